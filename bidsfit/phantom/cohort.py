"""A study with known truth: who takes part, and what the scanner measures of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, add_noise
from bidsfit.phantom.directions import spread_directions
from bidsfit.phantom.head import Head, make_head
from bidsfit.phantom.tissue import Recipe, recipe

#: Intensity of the brightest cerebrospinal fluid at b = 0: what an S0 of 1 in the recipes stands for.
INTENSITY = 1000.0

#: A slice must hold the head with some voxels to spare.
SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Participant:
    """One participant and their truth, the same at every session.

    Attributes
    ----------
    label : str
        Without the prefix ``sub-``.
    group : {"healthy", "patient"}
    head : Head
        Parameters in the units of the model's table, its scale in the units of the image.
    sigma : float
        Standard deviation of the noise of one measurement, in the units of the image.
    """

    label: str
    group: str
    head: Head
    sigma: float


@dataclass(frozen=True)
class Cohort:
    """Settings of a simulated study; the participants follow from them, one at a time.

    Parameters
    ----------
    model : str
        A model of the registry that has a recipe.
    n_healthy, n_patients, n_sessions : int
    shape : tuple of int
        Voxels along x, y and z.
    b_values : sequence of float, optional
        s/mm^2, the recipe's by default. Those above 0 are measured along every direction; a value that is
        listed twice is measured twice.
    n_directions : int, optional
        The recipe's by default.
    snr : float
        Mean S0 over the brain mask divided by the standard deviation of the noise of a single measurement;
        infinity for no noise.
    noise : {"rician", "gaussian"}
    lesion : str, optional
        The lesion of the patients: the recipe's first by default.
    seed : int
        The same settings and seed give the same study. A participant's anatomy depends on the seed and the shape
        alone, and a patient without the lesion would be the healthy participant of the same number.

    Raises
    ------
    UsageError
        Where a setting cannot be used.
    UnsupportedProtocolError
        Where the b-values do not support the model; the message names what is missing.
    """

    model: str
    n_healthy: int = 2
    n_patients: int = 2
    n_sessions: int = 1
    shape: tuple[int, int, int] = (48, 48, 3)
    b_values: tuple[float, ...] | None = None
    n_directions: int | None = None
    snr: float = 30.0
    noise: NoiseKind = "rician"
    lesion: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise UsageError(message)

        require(self.n_healthy >= 0 and self.n_patients >= 0, "Numbers of participants cannot be negative.")
        require(self.n_healthy + self.n_patients > 0, "A study needs at least one participant.")
        require(self.n_sessions >= 1, f"At least one session is needed, found {self.n_sessions}.")
        require(
            min(self.shape[:2]) >= SMALLEST_SIDE and self.shape[2] >= 1,
            f"The shape must be at least {SMALLEST_SIDE} {SMALLEST_SIDE} 1, found {' '.join(map(str, self.shape))}.",
        )
        require(self.n_directions is None or self.n_directions >= 1, "At least one direction is needed.")
        require(self.snr > 0, f"The SNR must be positive, found {self.snr}.")  # NaN is not either
        require(self.seed >= 0, f"The seed cannot be negative, found {self.seed}.")
        if self.noise not in get_args(NoiseKind):
            raise UnknownNameError("kind of noise", self.noise, get_args(NoiseKind))
        self.recipe.ranges("lesion", self.lesion_name)  # refuses an unknown lesion
        self.signal_model.require_support(self.acquisition)

    @cached_property
    def signal_model(self) -> SignalModel:
        """The model of the signal."""
        return models.get(self.model)

    @cached_property
    def recipe(self) -> Recipe:
        """Tissues and defaults of the model; an unknown model is refused first."""
        models.get(self.model)
        return recipe(self.model)

    @property
    def lesion_name(self) -> str:
        """The lesion of the patients."""
        return self.lesion if self.lesion is not None else next(iter(self.recipe.lesions))

    @cached_property
    def acquisition(self) -> Acquisition:
        """What every session measures: each b-value above 0 along all directions, one after the other."""
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
        """The healthy participants, then the patients."""
        n = self.n_healthy + self.n_patients
        width = max(2, len(str(n)))
        scale = self.signal_model.scale
        for i in range(n):
            patient = i >= self.n_healthy
            head = make_head(
                self.shape, self.recipe, self._generator(i, 0), lesion=self.lesion_name if patient else None
            )
            head.parameters[scale] *= INTENSITY
            yield Participant(
                label=f"{i + 1:0{width}d}",
                group="patient" if patient else "healthy",
                head=head,
                sigma=float(head.parameters[scale][head.mask].mean()) / self.snr,
            )

    def scan(self, participant: Participant, session: int) -> NDArray[np.float32]:
        """The image of one session, shape (x, y, z, n_measurements); ``session`` counts from 1."""
        rng = self._generator(int(participant.label) - 1, session)
        return simulate(
            participant.head, self.signal_model, self.acquisition, rng, sigma=participant.sigma, noise=self.noise
        )

    def _generator(self, *place: int) -> np.random.Generator:
        """Random numbers of one place of the study, whatever the size of the rest."""
        return np.random.default_rng([self.seed, *place])


def simulate(
    head: Head,
    model: SignalModel,
    acquisition: Acquisition,
    rng: np.random.Generator,
    *,
    sigma: float = 0.0,
    noise: NoiseKind = "rician",
) -> NDArray[np.float32]:
    """What a scanner measures of a head; air gives no signal, only noise.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n_measurements)
    """
    image = np.empty((*head.tissue.shape, len(acquisition)), dtype=np.float32)
    for z in range(head.tissue.shape[2]):  # a slice at a time: little memory beside the image
        mask = head.mask[:, :, z]
        signals = np.zeros((*mask.shape, len(acquisition)))
        if mask.any():
            parameters = {name: values[:, :, z][mask] for name, values in head.parameters.items()}
            signals[mask] = model.signal(parameters, acquisition)
        image[:, :, z] = add_noise(signals, sigma, noise, rng)
    return image
