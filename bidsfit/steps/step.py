"""Base class of preprocessing steps, and the information by which their methods are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.helping_images import HelpingImages
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.metadata import interpolation
from bidsfit.interfaces.step import StepInterface
from bidsfit.noise import repeats
from bidsfit.preprocessing.steps import STEPS

if TYPE_CHECKING:
    from bidsfit.reports.preprocessing import StepView

Tools = Literal["auto", "none", "dipy", "fsl"]
BodyPart = Literal["auto", "brain", "body", "cord"]

#: Pictures (x, y, z) or (x, y, z, k) of all volumes (x, y, z, n).
Pictures = Callable[[NDArray], NDArray]


@dataclass(frozen=True)
class PreprocessingChoice:
    """Preprocessing options of the user.

    ``denoise``: "auto" is MP-PCA, unless the image was interpolated. ``fsl`` lists installed programs of FSL.
    ``rician`` says why the Rician correction is left to the estimators; else it is empty.
    """

    tools: Tools = "auto"
    skip: Collection[str] = ()
    denoise: Literal["auto", "mppca", "patch2self"] = "auto"
    body_part: BodyPart = "auto"
    fsl: Collection[str] = ()
    rician: str = ""


@dataclass(frozen=True)
class Scene:
    """What is known of a raw image when its steps are chosen.

    Parameters
    ----------
    shape : (x, y, z, n)
    part : str
        Part of the body in the image.
    unknown_part : str
        Message about an unknown body part.
    sigma : str
        Source of the noise level, or the level itself.
    """

    image: InputImage
    shape: tuple[int, int, int, int]
    acquisition: Acquisition
    choice: PreprocessingChoice = field(default_factory=PreprocessingChoice)
    helping: HelpingImages = field(default_factory=HelpingImages)
    part: BodyPart = "brain"
    unknown_part: str = ""
    sigma: str = "auto"

    @property
    def body(self) -> bool:
        """Whether the image does not show a head."""
        return self.part != "brain"

    @cached_property
    def interpolation(self) -> str:
        """How the scanner interpolated the image, by its sidecar; empty if it does not say so."""
        return interpolation(self.image.sidecar, self.shape)

    @property
    def sigma_is_given(self) -> bool:
        """Whether the noise level is a number."""
        try:
            return math.isfinite(float(self.sigma))
        except ValueError:
            return False

    def knows_noise(self, chosen: Mapping[str, Planned]) -> bool:
        """Whether the noise level of the raw image can be estimated before a fit."""
        return chosen["denoise"].method == "mppca" or self.knows_noise_anyway

    @property
    def knows_noise_anyway(self) -> bool:
        """Whether the noise level of the raw image can be estimated without denoising."""
        found = self.sigma in ("mppca", "map", "piesno") or self.sigma_is_given
        return found or any(group.size > 1 for group in repeats(self.acquisition))


@dataclass(frozen=True)
class Method:
    """A method of a step.

    Parameters
    ----------
    title : str
        Name in reports.
    sentence : str
        Sentence of the methods text, with references as ``[@key]``.
    interface : type
        Nipype interface; it gets the inputs that it declares (see `StepInterface`).
    """

    title: str
    sentence: str
    interface: type[StepInterface]


class Step:
    """A preprocessing step: when an image gets it, its methods, and its texts and figure.

    Attributes
    ----------
    name : str
        Name in options (``--skip``), sidecars and file names.
    title : str
        Name in reports.
    doing : str
        For messages: "reducing the noise".
    shows, caption : str
        Alternative text and caption of its figure.
    changes : bool
        Whether it changes the signals. If not, it runs with the fit and gets its mask.
    after : str
        For steps of other packages: the step of this package that it follows; may be empty.
    memory : float
        Least memory, GB.
    """

    name: str
    title: str
    doing: str
    shows: str
    caption: str
    methods: ClassVar[Mapping[str, Method]]
    changes: bool = True
    after: str = ""
    memory: float = 0.0

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        """Choose the method for an image, or give a reason why there is none.

        ``chosen`` holds the preceding steps.
        """
        raise NotImplementedError

    def pictures(self, acquisition: Acquisition) -> tuple[Pictures, list[str]]:
        """Volumes that best show the effect of the step, and a title for each.

        By default one volume of the lowest b-value and one of the highest.
        """
        lowest, highest = acquisition.shells[0], acquisition.shells[-1]
        volumes = [lowest.indices[0], highest.indices[-1]]
        names = [f"a volume of b = {acquisition.b_values[k]:.0f}" for k in volumes]
        return lambda data: np.stack([data[..., k] for k in volumes], axis=-1), names

    def draw(self, path: Path, view: StepView) -> bool:
        """Draw the effect of the step into a file; return whether there was anything to draw.

        By default the image before and after, if they differ.
        """
        from bidsfit.reports.preprocessing import plot_before_after  # matplotlib, which a plan does not need

        pictures, names = self.pictures(view.acquisition)
        before, after = pictures(view.before), pictures(view.after)
        if np.array_equal(before, after, equal_nan=True):
            return False
        plot_before_after(path, before, after, view.mask, view.affine, rows=names)
        return True


@dataclass(frozen=True)
class Planned:
    """A planned step: its method (empty if it is left out), and the reason or a remark.

    ``needed``: the user named the method, or nothing can replace it; it is applied even to an image that turns out not
    to suit it, with a warning.
    """

    step: Step
    method: str = ""
    reason: str = ""
    needed: bool = False

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def how(self) -> Method | None:
        """The method; None if the step is left out."""
        return self.step.methods[self.method] if self.method else None

    @property
    def in_words(self) -> str:
        """What the step does, or why it is left out."""
        words = self.how.title if self.how else "left out"
        return f"{words}: {self.reason}" if self.reason else words


def all_steps() -> list[Step]:
    """All steps in order, including those of other packages (see `Step.after`)."""
    steps: list[Step] = [STEPS.get(name) for name in STEPS.built_in]
    for name in sorted(STEPS.available().keys() - STEPS.built_in.keys()):
        step = STEPS.get(name)
        place = next((i for i, other in enumerate(steps, start=1) if other.name == step.after), 0)
        steps.insert(place, step)
    return steps
