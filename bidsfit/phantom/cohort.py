"""A simulated study: its participants and their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, add_noise
from bidsfit.phantom.abdomen import breathing_pattern, make_abdomen
from bidsfit.phantom.anatomy import T1wImage, make_t1w
from bidsfit.phantom.directions import spread_directions
from bidsfit.phantom.grid import centred_affine
from bidsfit.phantom.head import FIELDS, Head, make_fractal, make_head
from bidsfit.phantom.imperfections import NONE, Imperfections
from bidsfit.phantom.scanner import ScanTruth, distorted, draw_phase, draw_truth, reversed_pair
from bidsfit.phantom.study import REPEATED, Study
from bidsfit.phantom.tissue import ABDOMEN, ABDOMEN_NAMES, TISSUE_NAMES, TISSUES, TissueRecipe, recipe
from bidsfit.phantom.variation import Factors, draw_factors, outside, times, vary, varying

#: Intensity of the brightest cerebrospinal fluid at b = 0: what an S0 of 1 in the recipes stands for.
INTENSITY = 1000.0

#: A slice must hold the head with some voxels to spare.
SMALLEST_SIDE = 16

#: Images of each polarity in a pair of opposite phase encoding.
REVERSED_REPEATS = 2

#: Groups of participants, in the order of their labels.
GROUPS = ("healthy", "patient", "retest", "treated")

#: What can be imaged.
ANATOMIES = {"head": make_head, "abdomen": make_abdomen, "fractal": make_fractal}

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Participant:
    """A participant with the true head; `Cohort.head_at` gives that of a session if sessions differ.

    Attributes
    ----------
    label : str
        Without ``sub-``.
    group : {"healthy", "patient", "retest", "treated"}
    head : Head
        Parameters in the units of the model, its scale in image units.
    sigma : float
        Standard deviation of the noise of one measurement, in image units.
    """

    label: str
    group: str
    head: Head
    sigma: float


@dataclass(frozen=True)
class Cohort:
    """Settings of a simulated study, whose participants are generated one at a time.

    Parameters
    ----------
    model : str
        A model with a recipe.
    n_healthy, n_patients, n_sessions : int
        Numbers of participants, and sessions of healthy participants and patients; participants of a study of
        repeatability have two.
    shape : tuple of int
        Voxels along x, y and z.
    b_values : sequence of float, optional
        s/mm^2, by default the recipe's. Each value above 0 is measured along every direction; repeated values are
        measured repeatedly.
    n_directions : int, optional
        By default the recipe's.
    snr : float, optional
        Mean S0 outside air divided by the noise level of one measurement; may be infinite. By default the recipe's.
    noise : {"rician", "gaussian"}
    lesion : str, optional
        Lesion of the patients; by default the first of the recipe.
    seed : int
        Equal settings and seeds give equal studies. The anatomy of a participant depends only on seed and shape; a
        patient equals the healthy participant of the same number except for the lesion.
    imperfections : Imperfections
        Imperfections of the images besides noise; by default none. They change neither the true tissue nor the random
        numbers of the noise.
    t1w : bool
        Whether every session has a T1-weighted image, in another position.
    phase : bool
        Whether images are complex: a magnitude and a phase, see `complex_scan`.
    study : Study, optional
        Repeated and treated participants, and variation of the truth. Every participant then has a homogeneous region:
        the lesion, or white matter in its place. By default sessions differ only in noise, and participants in anatomy.
    anatomy : {"head", "abdomen", "fractal"}
        "fractal" fills the image with the tissues of the head, without air. Lesions of the abdomen lie in the liver;
        its truth is halfway between exhalation and inhalation.

    Raises
    ------
    UsageError
        If a setting is invalid.
    UnsupportedProtocolError
        If the b-values do not support the model.
    """

    model: str
    n_healthy: int = 2
    n_patients: int = 2
    n_sessions: int = 1
    shape: tuple[int, int, int] = (48, 48, 3)
    b_values: tuple[float, ...] | None = None
    n_directions: int | None = None
    snr: float | None = None
    noise: NoiseKind = "rician"
    lesion: str | None = None
    seed: int = 0
    imperfections: Imperfections = NONE
    t1w: bool = False
    phase: bool = False
    study: Study | None = None
    anatomy: str = "head"

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise UsageError(message)

        require(self.n_healthy >= 0 and self.n_patients >= 0, "Numbers of participants cannot be negative.")
        require(self.n_participants > 0, "A study needs at least one participant.")
        require(self.n_sessions >= 1, f"At least one session is needed, found {self.n_sessions}.")
        require(
            min(self.shape[:2]) >= SMALLEST_SIDE and self.shape[2] >= 1,
            f"The shape must be at least {SMALLEST_SIDE} {SMALLEST_SIDE} 1, found {' '.join(map(str, self.shape))}.",
        )
        require(self.n_directions is None or self.n_directions >= 1, "At least one direction is needed.")
        require(self.level > 0, f"The SNR must be positive, found {self.snr}.")  # NaN is not either
        require(self.seed >= 0, f"The seed cannot be negative, found {self.seed}.")
        if self.noise not in get_args(NoiseKind):
            raise UnknownNameError("kind of noise", self.noise, get_args(NoiseKind))
        if self.anatomy not in ANATOMIES:
            raise UnknownNameError("anatomy", self.anatomy, ANATOMIES)
        require(self.anatomy == "abdomen" or self.imperfections.breathing == 0, "Breathing moves no head.")
        if self.signal_model.complex_valued:
            object.__setattr__(self, "noise", "gaussian")
        require(self.noise == "rician" or not self.phase, "The magnitude of complex signals has Rician noise.")
        require(not (self.phase and self.recipe.columns), "A series has no phase images.")
        require(self.anatomy == "head" or not self.t1w, "A T1-weighted image is one of the head.")
        self.recipe.ranges("lesion", self.lesion_name)  # refuses an unknown lesion
        of_diffusion = self.b_values or self.n_directions or self.t1w or self.imperfections.of_diffusion
        require(
            not (self.recipe.columns and of_diffusion),
            f"The model {self.model!r} is of a series of images, which have no b-values, directions, off-resonance, "
            "eddy currents or outlier volumes, and come without a T1-weighted image. Leave these options out.",
        )
        self.signal_model.require_support(self.acquisition, enough=1)  # so few may be asked of networks
        weighted = int((self.acquisition.b_values > 0).sum())
        require(
            self.imperfections.outliers <= weighted,
            f"{self.imperfections.outliers} outlier volumes need as many volumes with b above 0, found {weighted}.",
        )
        if self.study is not None:
            require(
                not self.recipe.made,
                f"The phantom of the model {self.model!r} has no study of repeatability: single elements of a tensor "
                "cannot vary alone. Leave the options of the study out.",
            )
            self.study.require_parameters(varying(self.signal_model))
            self._require_possible_truth()

    @property
    def groups(self) -> dict[str, int]:
        """Number of participants by group, in the order of their labels."""
        repeated = (0, 0) if self.study is None else (self.study.n_retest, self.study.n_treated)
        return dict(zip(GROUPS, (self.n_healthy, self.n_patients, *repeated), strict=True))

    @property
    def n_participants(self) -> int:
        """Number of participants in all groups."""
        return sum(self.groups.values())

    def sessions(self, group: str) -> range:
        """Session numbers, from 1, of participants of a group."""
        return range(1, (REPEATED if group in ("retest", "treated") else self.n_sessions) + 1)

    @property
    def has_sessions(self) -> bool:
        """Whether anyone has more than one session."""
        return any(n > 0 and len(self.sessions(group)) > 1 for group, n in self.groups.items())

    @cached_property
    def signal_model(self) -> SignalModel:
        """The model of the signal."""
        return models.get(self.model)

    @cached_property
    def recipe(self) -> TissueRecipe:
        """Tissues and defaults of the model."""
        models.get(self.model)
        return recipe(self.model, self.anatomy)

    @property
    def level(self) -> float:
        """The SNR of the images."""
        return self.recipe.snr if self.snr is None else self.snr

    @property
    def tissues(self) -> dict[str, tuple[int, str]]:
        """Number and name of every tissue."""
        numbers, names = (ABDOMEN, ABDOMEN_NAMES) if self.anatomy == "abdomen" else (TISSUES, TISSUE_NAMES)
        return {tissue: (number, names[tissue]) for tissue, number in numbers.items()}

    @property
    def host(self) -> str:
        """Name of the tissue that contains lesions."""
        return self.tissues[self.recipe.host][1]

    @property
    def lesion_name(self) -> str:
        """Name of the lesion of the patients."""
        return self.lesion if self.lesion is not None else next(iter(self.recipe.lesions))

    @cached_property
    def acquisition(self) -> Acquisition:
        """Acquisition of every session: all directions of each b-value above 0 in turn, or that of a series."""
        if self.recipe.columns:
            return self.recipe.series
        n_directions = self.recipe.n_directions if self.n_directions is None else self.n_directions
        scheme = self.recipe.b_values if self.b_values is None else self.b_values
        around = spread_directions(n_directions)
        still = np.zeros((1, 3))
        parts = [(b, around if b > 0 else still) for b in scheme]
        try:
            return Acquisition(
                [b for b, directions in parts for _ in directions],
                np.concatenate([directions for _, directions in parts]) if parts else None,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    def participants(self) -> Iterator[Participant]:
        """Participants, group by group."""
        for i, group in enumerate(self._group_of_each()):
            head = ANATOMIES[self.anatomy](
                self.shape,
                self.recipe,
                self._generator(i, 0),
                lesion=self._lesion_of(group),
                homogeneous=self.study is not None,
            )
            for parameter, field in self.recipe.fields.items():
                head.parameters[parameter] = FIELDS[field](self.shape)
            if self.signal_model.phase is not None:
                phases = draw_phase(self.shape[:2], self.shape[2], self._generator(i, 0, 1))
                head.parameters[self.signal_model.phase] = np.where(head.mask, np.angle(np.exp(1j * phases)), 0.0)
            scale = self.signal_model.names[self.signal_model.scale_index]
            head.parameters[scale] *= INTENSITY
            sigma = float(head.parameters[scale][head.mask].mean()) / self.level
            if self.study is not None:
                head = vary(head, self.signal_model, self._factors_of_participant(i))
            yield Participant(label=self._label(i), group=group, head=head, sigma=sigma)

    def head_at(self, participant: Participant, session: int) -> Head:
        """The truth of one session; ``session`` counts from 1."""
        if self.study is None:
            return participant.head
        return vary(
            participant.head,
            self.signal_model,
            self._factors_of_session(int(participant.label) - 1, session),
            self._factors_of_treatment(participant.group, session),
        )

    def factors(self, participant: Participant, session: int) -> dict[str, Factors]:
        """Factors applied to the truth of a session: "participant", "session" and, in the region, "treatment".

        Empty without a study.
        """
        if self.study is None:
            return {}
        i = int(participant.label) - 1
        return {
            "participant": self._factors_of_participant(i),
            "session": self._factors_of_session(i, session),
            "treatment": self._factors_of_treatment(participant.group, session),
        }

    def scan(self, participant: Participant, session: int) -> NDArray[np.float32]:
        """The image of one session, shape (x, y, z, n_measurements); ``session`` counts from 1."""
        rng = self._generator(int(participant.label) - 1, session)
        if not self.imperfections.any:
            return simulate(
                self.head_at(participant, session),
                self.signal_model,
                self.acquisition,
                rng,
                sigma=participant.sigma,
                noise=self.noise,
            )
        seen = self._seen(distorted, self.ideal(participant, session), self.truth(participant, session))
        return noisy(seen, participant.sigma, self.noise, rng)

    def complex_scan(self, participant: Participant, session: int) -> NDArray[np.complex64]:
        """The complex image of one session, shape (x, y, z, n_measurements).

        Every slice of every volume has a smooth phase of its own, as motion during the diffusion weighting leaves one
        (`bidsfit.phantom.scanner.draw_phase`); that of the files of a series is the same.
        """
        rng = self._generator(int(participant.label) - 1, session, 5)
        clean = self.ideal(participant, session)
        if self.imperfections.any:
            clean = self._seen(distorted, clean, self.truth(participant, session))
        found = np.empty(clean.shape, dtype=np.complex64)
        for z in range(clean.shape[2]):  # a slice at a time: little memory beside the image
            phases = draw_phase(clean.shape[:2], 1 if self.recipe.columns else clean.shape[3], rng)
            signals = clean[:, :, z] * np.exp(1j * phases)
            found[:, :, z] = add_noise(signals, participant.sigma, "gaussian", rng)
        return found

    def ideal(self, participant: Participant, session: int = 1) -> NDArray[np.float32]:
        """Noise-free signals of a still head in a perfect scanner, shape (x, y, z, n_measurements)."""
        head = self.head_at(participant, session)
        return simulate(head, self.signal_model, self.acquisition, self._generator(0, 0), noise="gaussian")

    def unweighted(self, participant: Participant) -> NDArray[np.float32]:
        """The ideal signal at b = 0, whether acquired or not, shape (x, y, z)."""
        at_zero = Acquisition([0.0], np.zeros((1, 3)))
        return simulate(participant.head, self.signal_model, at_zero, self._generator(0, 0))[..., 0]

    def truth(self, participant: Participant, session: int) -> ScanTruth:
        """Breathing, motion, field, eddy currents and drop-out of one session."""
        rng = self._generator(int(participant.label) - 1, session, 1)
        shape = participant.head.tissue.shape
        affine = centred_affine(shape, participant.head.voxel_size)
        pattern = None
        if self.imperfections.breathing > 0:
            pattern = breathing_pattern(participant.head.tissue, participant.head.voxel_size)
        return draw_truth(shape, affine, self.acquisition, self.imperfections, rng, pattern)

    def reversed_phase(self, participant: Participant, session: int) -> dict[int, NDArray[np.float32]]:
        """Images with b = 0 before motion, by polarity (1 or -1) of the phase encoding along the second axis.

        Each has shape (x, y, z, `REVERSED_REPEATS`).
        """
        rng = self._generator(int(participant.label) - 1, session, 2)
        pair = self._seen(reversed_pair, self.unweighted(participant), self.truth(participant, session))
        return {
            polarity: noisy(np.stack([seen] * REVERSED_REPEATS, axis=-1), participant.sigma, self.noise, rng)
            for polarity, seen in pair.items()
        }

    def t1w_image(self, participant: Participant, session: int) -> T1wImage:
        """A T1-weighted image of one session, with its truth."""
        return make_t1w(participant.head, self._generator(int(participant.label) - 1, session, 3))

    def _seen(
        self, see: Callable[[NDArray[np.float32], ScanTruth], Seen], image: NDArray[np.float32], truth: ScanTruth
    ) -> Seen:
        try:
            return see(image, truth)
        except ValueError as error:
            amounts = f"{self.imperfections.off_resonance:g} Hz and eddy currents of {self.imperfections.eddy:g} %"
            raise UsageError(f"An off-resonance of {amounts} cannot be simulated. {error}") from error

    def _group_of_each(self) -> list[str]:
        return [group for group, n in self.groups.items() for _ in range(n)]

    def _label(self, i: int) -> str:
        return f"{i + 1:0{max(2, len(str(self.n_participants)))}d}"

    def _lesion_of(self, group: str) -> str | None:
        return None if group == "healthy" else self.lesion_name

    def _factors_of_participant(self, i: int) -> Factors:
        assert self.study is not None
        return draw_factors(varying(self.signal_model), self.study.between, self._generator(i, 0, 4))

    def _factors_of_session(self, i: int, session: int) -> Factors:
        assert self.study is not None
        return draw_factors(varying(self.signal_model), self.study.within, self._generator(i, session, 4))

    def _factors_of_treatment(self, group: str, session: int) -> Factors:
        assert self.study is not None
        after = group == "treated" and session > 1
        return {name: 1 + self.study.effect.get(name, 0.0) if after else 1.0 for name in varying(self.signal_model)}

    def _require_possible_truth(self) -> None:
        """Refuse a study whose true values violate bounds of the model, where they would be clipped."""
        for i, group in enumerate(self._group_of_each()):
            middle = self.recipe.middle(self._lesion_of(group))
            own = self._factors_of_participant(i)
            visits = {"on average": own}
            for session in self.sessions(group):
                visit = times(own, self._factors_of_session(i, session), self._factors_of_treatment(group, session))
                visits[f"in session {session}"] = visit
            for when, factors in visits.items():
                values = {name: value * factors.get(name, 1.0) for name, value in middle.items()}
                if words := outside(values, self.signal_model):
                    raise UsageError(
                        f"The region of sub-{self._label(i)} ({group}) would have {words}, {when}. Choose less "
                        "variation, a smaller effect, another lesion or another seed."
                    )

    def _generator(self, *place: int) -> np.random.Generator:
        """Random generator of one part of the study, independent of the size of the rest."""
        return np.random.default_rng([self.seed, *place])


def simulate(
    head: Head,
    model: SignalModel,
    acquisition: Acquisition,
    rng: np.random.Generator,
    *,
    sigma: float = 0.0,
    noise: NoiseKind = "rician",
) -> NDArray:
    """Simulated image of a head, shape (x, y, z, n_measurements), complex if the model is; air contains only noise."""
    kinds: tuple[type, type] = (np.complex64, complex) if model.complex_valued else (np.float32, float)
    image = np.empty((*head.tissue.shape, len(acquisition)), dtype=kinds[0])
    for z in range(head.tissue.shape[2]):  # a slice at a time: little memory beside the image
        mask = head.mask[:, :, z]
        signals = np.zeros((*mask.shape, len(acquisition)), dtype=kinds[1])
        if mask.any():
            parameters = {name: values[:, :, z][mask] for name, values in head.parameters.items()}
            signals[mask] = model.signal(parameters, acquisition)
        image[:, :, z] = add_noise(signals, sigma, noise, rng)
    return image


def noisy(image: NDArray[np.float32], sigma: float, noise: NoiseKind, rng: np.random.Generator) -> NDArray[np.float32]:
    """An image (x, y, z, n) with noise, drawn in the order of `simulate`."""
    for z in range(image.shape[2]):
        image[:, :, z] = add_noise(image[:, :, z], sigma, noise, rng)
    return image
