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
    positions : ndarray, shape (n, 4), optional
        Number of the image and voxel indices, for a training that reads neighbours.
    """

    signals: NDArray
    sigma: NDArray[np.float32]
    acquisition: Acquisition
    images: Mapping[str, int]
    most: int = MOST_VOXELS
    positions: NDArray[np.integer] | None = None

    @classmethod
    def pooled(cls, parts: Sequence[ImageVoxels]) -> ImageVoxels:
        """The voxels of several images, with the acquisition of the first."""
        places = [np.add(part.positions, [i, 0, 0, 0]) for i, part in enumerate(parts) if part.positions is not None]
        return cls(
            np.concatenate([part.signals for part in parts]),
            np.concatenate([part.sigma for part in parts]),
            parts[0].acquisition,
            {name: n for part in parts for name, n in part.images.items() if n},
            parts[0].most,
            np.concatenate(places) if places else None,
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
        return replace(self, signals=as_single(limited))._of(np.flatnonzero(good))

    def some(self, most: int, seed: int) -> ImageVoxels:
        """A random sample of at most so many voxels, in their order.

        Where they have positions, it is one of whole slices, which hold their neighbours: at least one slice.
        """
        rng = np.random.default_rng(seed)
        if self.positions is None:
            rows = np.sort(rng.permutation(len(self.sigma))[:most])
        else:
            slices, counts = np.unique(self.positions[:, -1], return_counts=True)
            order = rng.permutation(len(slices))
            n = max(int(np.searchsorted(np.cumsum(counts[order]), most, "right")), 1)
            rows = np.flatnonzero(np.isin(self.positions[:, -1], slices[order[:n]]))
        (name,) = self.images
        return replace(self._of(rows), images={name: rows.size}, most=most)

    def _of(self, rows: NDArray[np.integer]) -> ImageVoxels:
        places = None if self.positions is None else self.positions[rows]
        return replace(self, signals=self.signals[rows], sigma=self.sigma[rows], positions=places)

    def patches(self, rows: NDArray[np.integer], reach: tuple[int, int, int]) -> NDArray:
        """Signals of some voxels with their neighbours, shape (n, x, y, z, n_averages); NaN where no neighbour is.

        The signals of a patch are in the unit in which its voxels have the noise of the central one, so that where the
        noise of the image is the same, they differ in brightness as in the image.
        """
        if self.positions is None:
            raise ValueError("The voxels of the images have no positions, which tell their neighbours.")
        offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1)
        there = np.zeros((len(rows), *offsets.shape[:3], 4), dtype=np.int64) + self.positions[rows, None, None, None]
        there[..., 1:] += offsets
        inside = ((there >= 0) & (there < self._grid)).all(axis=-1)
        asked = np.ravel_multi_index(tuple(np.moveaxis(there, -1, 0)), self._grid, mode="clip")
        found = self._order[np.searchsorted(self._keys, asked, sorter=self._order) % len(self._keys)]
        present = inside & (self._keys[found] == asked)
        scale = np.where(present, self.sigma[rows, None, None, None] / self.sigma[found], np.nan)
        return as_single(self.signals[found] * scale[..., None])

    @cached_property
    def _grid(self) -> tuple[int, ...]:
        """Number of images, and the size of the largest."""
        assert self.positions is not None
        return tuple((self.positions.max(axis=0) + 1).tolist())

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """Positions as one number each."""
        assert self.positions is not None
        return np.ravel_multi_index(tuple(self.positions.T), self._grid)

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        return np.argsort(self._keys)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which voxels are for validation where signals train, shape (n,)."""
        return np.arange(len(self.sigma)) % HELD_OUT == HELD_OUT - 1

    @property
    def digest(self) -> str:
        """SHA-256 of signals, noise and positions, by which networks that learned from them are found again."""
        places = b"" if self.positions is None else self.positions.tobytes()
        return hashlib.sha256(self.signals.tobytes() + self.sigma.tobytes() + places).hexdigest()

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
