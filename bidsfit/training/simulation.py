"""What an estimator sees in training: noisy signals of parameters drawn from a distribution, fresh at every draw."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.noise import NoiseKind, add_noise, rician_mean
from bidsfit.training.distributions import Distribution
from bidsfit.training.space import ParameterSpace

#: An average of more Rician magnitudes than this is taken for Gaussian, with their mean and variance.
FEW = 8


@dataclass(frozen=True)
class Noise:
    """Noise of the training signals.

    Parameters
    ----------
    snr : float
        S0 / standard deviation of one measurement; infinity for none.
    kind : {"gaussian", "rician"}
    lowest : bool
        Whether the images of the lowest b-value have noise as well. Gyori et al. leave it out there.
    """

    snr: float
    kind: NoiseKind = "gaussian"
    lowest: bool = True

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"The SNR of the training must be above 0, found {self.snr}.")
        if self.kind not in get_args(NoiseKind):
            raise ValueError(f"Unknown kind of noise {self.kind!r}; valid: {', '.join(get_args(NoiseKind))}.")


class Simulator:
    """Draws parameters, and what a scanner would measure of them.

    Parameters
    ----------
    distribution : Distribution
    acquisition : Acquisition
        Of the averages, as `Estimator.averaged` gives it: an entry that stands for n measurements has their average.
    noise : Noise
    """

    def __init__(self, distribution: Distribution, acquisition: Acquisition, noise: Noise) -> None:
        self.distribution = distribution
        self.acquisition = acquisition
        self.noise = noise

    @property
    def space(self) -> ParameterSpace:
        return self.distribution.space

    @cached_property
    def features(self) -> Features:
        return Features(self.acquisition)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Parameters, shape (n, n_parameters), and what an estimator is shown of them, shape (n, n_features)."""
        parameters = self.distribution.sample(n, rng)
        return parameters, self.features(self.measure(parameters, rng))

    def measure(self, parameters: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Noisy averages of voxels whose S0 is 1, shape (n, n_averages)."""
        clean = self.space.model.signal(self.space.with_scale(parameters), self.acquisition)
        if np.isinf(self.noise.snr):
            return clean
        noisy = noisy_averages(clean, self.acquisition, 1 / self.noise.snr, self.noise.kind, rng)
        if not self.noise.lowest:
            lowest = self.features.lowest
            noisy[:, lowest] = clean[:, lowest]
        return noisy


def noisy_averages(
    clean: NDArray[np.float64], acquisition: Acquisition, sigma: float, kind: NoiseKind, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Averages of repeated noisy measurements of the same signal.

    Parameters
    ----------
    clean : ndarray, shape (n, n_averages)
    acquisition : Acquisition
        Its weights are the numbers of measurements behind each average.
    sigma : float
        Standard deviation of the noise of one measurement.
    kind : {"gaussian", "rician"}
    rng : numpy.random.Generator
    """
    counts = acquisition.weights
    if kind == "gaussian":
        return add_noise(clean, sigma / np.sqrt(counts), kind, rng)
    noisy = np.empty_like(clean)
    for j, count in enumerate(counts.astype(int)):
        column = clean[:, j]
        if count <= FEW:
            noisy[:, j] = add_noise(np.repeat(column[:, None], count, axis=1), sigma, kind, rng).mean(axis=1)
        else:
            mean = rician_mean(column, sigma)
            variance = (column**2 + 2 * sigma**2 - mean**2) / count
            noisy[:, j] = mean + np.sqrt(variance) * rng.standard_normal(column.size)
    return noisy


class Features:
    """What of the averaged signals a trained estimator is shown: all relative to that of the lowest b-value.

    The lowest itself is then 1 and is left out, unless there are several of them (at several echo times).
    """

    def __init__(self, acquisition: Acquisition) -> None:
        self.lowest = acquisition.b_values == acquisition.b_values.min()
        self._weights = acquisition.weights[self.lowest]
        self._shown = ~self.lowest if self.lowest.sum() == 1 else np.full(len(acquisition), True)

    def __call__(self, signals: NDArray[np.float64]) -> NDArray[np.float32]:
        """Features, shape (n, n_features), of averaged signals, shape (n, n_averages)."""
        reference = np.average(signals[:, self.lowest], axis=1, weights=self._weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(signals[:, self._shown] / reference[:, None], dtype=np.float32)

    def __len__(self) -> int:
        return int(self._shown.sum())
