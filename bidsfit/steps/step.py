"""What a step of the preprocessing is, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.helping_images import HelpingImages
from bidsfit.bids.inputs import DwiImage
from bidsfit.interfaces.step import StepInterface
from bidsfit.noise import repeats
from bidsfit.preprocessing.steps import STEPS
from bidsfit.reports.preprocessing import StepView, plot_before_after

Tools = Literal["auto", "none", "dipy", "fsl"]
BodyPart = Literal["auto", "brain", "body", "cord"]

#: Pictures (x, y, z) or (x, y, z, k) of all volumes (x, y, z, n).
Pictures = Callable[[NDArray], NDArray]


@dataclass(frozen=True)
class PreprocessingChoice:
    """What the options say about preprocessing.

    ``fsl`` names the programs of FSL that are installed. ``rician`` says why the Rician correction is left to the
    estimators, or is empty.
    """

    tools: Tools = "auto"
    skip: Collection[str] = ()
    denoise: Literal["mppca", "patch2self"] = "mppca"
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
        Part of the body that the image shows.
    unknown_part : str
        What to say of a word for the part that is not known.
    sigma : str
        Source of the noise level, or the level itself.
    """

    image: DwiImage
    shape: tuple[int, int, int, int]
    acquisition: Acquisition
    choice: PreprocessingChoice = field(default_factory=PreprocessingChoice)
    helping: HelpingImages = field(default_factory=HelpingImages)
    part: BodyPart = "brain"
    unknown_part: str = ""
    sigma: str = "auto"

    @property
    def body(self) -> bool:
        """Whether the image is none of a head."""
        return self.part != "brain"

    @property
    def sigma_is_given(self) -> bool:
        """Whether the noise level is a number."""
        try:
            return math.isfinite(float(self.sigma))
        except ValueError:
            return False

    def knows_noise(self, chosen: Mapping[str, Planned]) -> bool:
        """Whether the noise level of the raw image can be found before any fit."""
        found = chosen["denoise"].method == "mppca" or self.sigma in ("mppca", "map", "piesno") or self.sigma_is_given
        return found or any(group.size > 1 for group in repeats(self.acquisition))


@dataclass(frozen=True)
class Method:
    """One way to do a step.

    Parameters
    ----------
    title : str
        For reports.
    sentence : str
        For the methods text, with references as ``[@key]``.
    interface : type
        What runs. It is given what it has inputs for (see `StepInterface`).
    """

    title: str
    sentence: str
    interface: type[StepInterface]


class Step:
    """One step of the preprocessing: when an image gets it, what runs, and what reports say and show.

    Attributes
    ----------
    name : str
        In options (``--skip``), sidecars and names of files.
    title : str
        What it takes out, or makes; for reports.
    doing : str
        For messages: "reducing the noise".
    shows, caption : str
        Of its figure: what is to be seen, for those who cannot see it; and what to know when reading it.
    changes : bool
        Whether it changes the signals. One that does not runs when the image is fitted, and is given its mask.
    after : str
        Step of this package that it comes after, for steps of other packages; empty for none.
    memory : float
        Least memory that it needs, GB.
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
        """Choose the method for an image, or say why there is none.

        Parameters
        ----------
        chosen : mapping of name to Planned
            The steps before this one.
        """
        raise NotImplementedError

    def pictures(self, acquisition: Acquisition) -> tuple[Pictures, list[str]]:
        """What shows best what the step did: pictures of the volumes, and what each shows.

        Here one volume of the lowest b-value, and one of the highest.
        """
        lowest, highest = acquisition.shells[0], acquisition.shells[-1]
        volumes = [lowest.indices[0], highest.indices[-1]]
        names = [f"a volume of b = {acquisition.b_values[k]:.0f}" for k in volumes]
        return lambda data: np.stack([data[..., k] for k in volumes], axis=-1), names

    def draw(self, path: Path, view: StepView) -> bool:
        """Draw what the step did into a file; return whether there was anything to draw.

        Here the image before and after it, where they differ.
        """
        pictures, names = self.pictures(view.acquisition)
        before, after = pictures(view.before), pictures(view.after)
        if np.array_equal(before, after, equal_nan=True):
            return False
        plot_before_after(path, before, after, view.mask, view.affine, rows=names)
        return True


@dataclass(frozen=True)
class Planned:
    """A step of one image: its method (empty where it is left out), and the reason or a remark."""

    step: Step
    method: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def how(self) -> Method | None:
        """The method; None where the step is left out."""
        return self.step.methods[self.method] if self.method else None

    @property
    def in_words(self) -> str:
        """What it does, or why it does not."""
        words = self.how.title if self.how else "left out"
        return f"{words}: {self.reason}" if self.reason else words


def all_steps() -> list[Step]:
    """The steps in their order, those of other packages where they say (see `Step.after`)."""
    steps: list[Step] = [STEPS.get(name) for name in STEPS.built_in]
    for name in sorted(STEPS.available().keys() - STEPS.built_in.keys()):
        step = STEPS.get(name)
        place = next((i for i, other in enumerate(steps, start=1) if other.name == step.after), 0)
        steps.insert(place, step)
    return steps
