"""Voxels of measured images, from which a training takes its noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
