"""Voxels of measured images, from which a training takes its noise or its signals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition

#: Voxels of a training, divided equally among its images; of fewer than the last number nothing is learned.
MOST_VOXELS, FEWEST_VOXELS = 1 << 17, 50
#: Probabilities of the quantiles that stand for the SNRs of the voxels: without the extremes, which are of voxels
#: without tissue.
PROBABILITIES = np.linspace(0.01, 0.99, 50)
#: Where signals train, every tenth voxel is held out to validate on.
HELD_OUT = 10
#: Between two b-values (s/mm^2), the 95th percentile of the signals of a training voxel is below the third number.
DECAYING = ((-np.inf, 50.0, 1.3), (50.0, np.inf, 1.2), (150.0, np.inf, 1.0))
#: Their signals are cut off here.
LARGEST_SIGNAL = 1.5


def as_single(values: NDArray) -> NDArray:
    """Numbers of 32 bits, or complex ones of two."""
    return values.astype(np.complex64 if np.iscomplexobj(values) else np.float32, copy=False)


@dataclass(frozen=True)
class ImageVoxels:
    """Signals and noise of voxels of images of one protocol.

    Parameters
    ----------
    signals : ndarray, shape (n, n_averages)
        Averaged signals relative to the reference of the model (`SignalModel.reference_signal`).
    sigma : ndarray, shape (n,)
        Standard deviation of the noise of one measurement, in the same unit.
    acquisition : Acquisition
        Averaged acquisition of the signals.
    images : mapping of str to int
        Names of the images, and how many of the voxels, which come image by image, are theirs.
    most : int
        Voxels of an image beyond which a random sample of so many was taken.
    """

    signals: NDArray
    sigma: NDArray[np.float32]
    acquisition: Acquisition
    images: Mapping[str, int]
    most: int = MOST_VOXELS

    @classmethod
    def pooled(cls, parts: Sequence[ImageVoxels]) -> ImageVoxels:
        """The voxels of several images, with the acquisition of the first."""
        return cls(
            np.concatenate([part.signals for part in parts]),
            np.concatenate([part.sigma for part in parts]),
            parts[0].acquisition,
            {name: n for part in parts for name, n in part.images.items() if n},
            parts[0].most,
        )

    def decaying(self) -> ImageVoxels:
        """The voxels whose signals decay, cut off at 1.5: the filter of training voxels of IVIM-NET [1]_.

        The 95th percentile of the signals, relative to those of the lowest b-value, must be below 1.3 for b < 50, 1.2
        for b > 50 and 1.0 for b > 150 s/mm^2.

        References
        ----------
        .. [1] Kaandorp MPT et al. Magnetic Resonance in Medicine 2021;86:2250-2265, as in its published code.
        """
        size, b = np.abs(self.signals), self.acquisition.b_values
        good = np.full(len(size), True)
        for low, high, limit in DECAYING:
            chosen = (b > low) & (b < high)
            if chosen.any():
                good &= np.percentile(size[:, chosen], 95, axis=1) < limit
        limited = self.signals * (LARGEST_SIGNAL / np.maximum(size, LARGEST_SIGNAL))
        return replace(self, signals=as_single(limited[good]), sigma=self.sigma[good])

    def some(self, most: int, seed: int) -> ImageVoxels:
        """A random sample of at most so many voxels, in their order."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.sigma))[:most])
        (name,) = self.images
        return replace(self, signals=self.signals[rows], sigma=self.sigma[rows], images={name: rows.size}, most=most)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which voxels are for validation where signals train, shape (n,)."""
        return np.arange(len(self.sigma)) % HELD_OUT == HELD_OUT - 1

    @property
    def digest(self) -> str:
        """SHA-256 of signals and noise, by which networks that learned from them are found again."""
        return hashlib.sha256(self.signals.tobytes() + self.sigma.tobytes()).hexdigest()

    @cached_property
    def snr(self) -> tuple[float, ...]:
        """Quantiles of S0 / sigma at `PROBABILITIES`, with four digits."""
        return tuple(float(f"{value:.4g}") for value in np.quantile(1 / self.sigma, PROBABILITIES))

    @property
    def median_snr(self) -> float:
        """Median of S0 / sigma."""
        return float(np.median(self.snr))

    def draw_sigma(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Noise levels of n voxels with S0 = 1, shape (n,), drawn from the quantiles of the SNR."""
        places = np.linspace(0, 1, len(self.snr))
        return np.exp(-np.interp(rng.random(n), places, np.log(self.snr)))

    @property
    def facts(self) -> dict[str, Any]:
        """The images with the numbers of their voxels, and the quantiles of the SNR, for JSON."""
        return {"Voxels": dict(self.images), "Most": self.most, "SNR": list(self.snr)}
