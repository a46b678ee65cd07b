"""Which signals are like those that an estimator was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from bidsfit.simulation.simulator import Features, Simulator
from bidsfit.trust.performance import HIGHEST_SNR, LOWEST_SNR

#: Signals of the training that others are compared with, and held-out signals that tell how far they usually lie.
SIGNALS, HELD_OUT = 8192, 16384
#: The nearest is looked for in a plane that holds this share of their variance, in so many dimensions at most. A tensor
#: has six elements: in a plane of fewer dimensions its usual signals lie so far from it that hardly any is unusual.
VARIANCE, MOST_DIMENSIONS = 0.9999, 6
#: Share of the held-out signals that lie farther than the limit, and bands of SNR that have one.
FAR, BANDS = 0.01, 8


@dataclass(frozen=True)
class Domain:
    """Signals of a training without noise, and the distance from them that signals of the training hardly exceed.

    Where measured signals train, they have their noise, and those that are held out tell the distance.

    The distance is that to the nearest signal, in standard deviations of the noise. Signals are the features of the
    estimator (`bidsfit.simulation.simulator.Features`), weighted by the numbers of measurements.

    Attributes
    ----------
    mean : ndarray, shape (n_features,)
    axes : ndarray, shape (n_dimensions, n_features)
        Principal axes of the weighted signals.
    signals : ndarray, shape (n_signals, n_dimensions)
        Along these axes.
    bands, limits : ndarray, shape (n_bands,)
        SNR, and logarithm of the square of the largest usual distance.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    signals: NDArray[np.float64]
    bands: NDArray[np.float64]
    limits: NDArray[np.float64]

    @classmethod
    def of(cls, simulator: Simulator, seed: int) -> Domain:
        """The domain of the training that a simulator of single voxels describes."""
        rng = np.random.default_rng([seed, 2])
        features = Features(simulator.space.model, simulator.acquisition)
        weights, seen = np.sqrt(features.counts), simulator.seen
        if seen is None:
            sample = simulator.distribution.sample
            clean = simulator.measure(sample(SIGNALS, rng), rng, sigma=np.zeros(SIGNALS))
        else:
            clean = seen.signals[rng.permutation(np.flatnonzero(~seen.held_out))[:SIGNALS]]
        known = features(clean) * weights
        mean = known.mean(axis=0)
        _, size, axes = np.linalg.svd(known - mean, full_matrices=False)
        kept = int(np.searchsorted(np.cumsum(size**2) / np.sum(size**2), VARIANCE)) + 1
        axes = axes[: min(kept, MOST_DIMENSIONS)]
        if seen is None:
            snr = np.exp(rng.uniform(np.log(LOWEST_SNR), np.log(HIGHEST_SNR), HELD_OUT))
            noisy = simulator.measure(sample(HELD_OUT, rng), rng, sigma=simulator.brightness / snr)
        else:
            rows = rng.permutation(np.flatnonzero(seen.held_out))[:HELD_OUT]
            noisy, snr = seen.signals[rows], 1 / seen.sigma[rows].astype(float)
        found = cls(mean, axes, (known - mean) @ axes.T, np.zeros(1), np.zeros(1))
        distances = found.distances(features(noisy) * weights, snr)
        order = np.array_split(np.argsort(snr), min(BANDS, len(snr)))
        limits = np.array([np.quantile(distances[band], 1 - FAR) for band in order])
        return cls(mean, axes, found.signals, np.array([np.median(snr[band]) for band in order]), limits)

    def distances(self, features: NDArray[np.floating], snr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of the squared distance of weighted features (n, n_features) from the nearest signal."""
        moved = features - self.mean
        along = moved @ self.axes.T
        nearest, _ = self._tree.query(along)
        across = np.maximum((moved**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log((nearest**2 + across) * snr**2))

    def excludes(self, features: NDArray[np.floating], snr: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which weighted features (n, n_features) lie farther from the training than its own signals do."""
        level = np.interp(np.log(snr), np.log(self.bands), self.limits)
        return np.asarray(self.distances(features, snr) > level)

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.signals)

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Its content, for a file."""
        return {name: getattr(self, name) for name in ("mean", "axes", "signals", "bands", "limits")}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.float64]], n_features: int) -> Domain:
        """Rebuild a domain; raise `ValueError` if the arrays describe none of so many features."""
        found = cls(**{name: np.asarray(array, dtype=float) for name, array in arrays.items()})
        k, n = len(found.axes), len(found.bands)
        shapes = {name: array.shape for name, array in found.arrays.items()}
        expected = {"mean": (n_features,), "axes": (k, n_features), "bands": (n,), "limits": (n,)}
        if shapes != expected | {"signals": (len(found.signals), k)} or not len(found.signals):
            raise ValueError(f"the domain of an estimator has arrays of other shapes than {shapes}")
        if not all(np.isfinite(array).all() for array in found.arrays.values()) or np.any(found.bands <= 0):
            raise ValueError("the domain of an estimator has numbers that are not finite")
        return found
