"""Signals of the voxels of one image, averaged as its viewer shows them, and the file that keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition, DirectionAverage, Frame
from bidsfit.estimators.estimator import CHUNK, Signals

#: Single measurements are kept where they are not more than so many.
MOST_MEASUREMENTS = 2_000_000


@dataclass(frozen=True)
class MeasuredVoxels:
    """Signals of the voxels of a mask, averaged over what differs only in direction.

    Attributes
    ----------
    acquisition : Acquisition
        Of the single measurements.
    mean, spread : ndarray, shape (n_shells, n_voxels)
        Means over the directions and repeats of every shell, and their standard deviation; this is NaN where there is
        one measurement.
    measurements : ndarray, shape (n_measurements, n_voxels)
        Single measurements; no rows where they are more than `MOST_MEASUREMENTS`.
    reference : ndarray, shape (x, y, z)
        Mean image of the lowest b-value.
    mask : ndarray of bool, shape (x, y, z)
        Its voxels are in Fortran order.
    affine : ndarray, shape (4, 4)
    """

    acquisition: Acquisition
    mean: NDArray
    spread: NDArray
    measurements: NDArray
    reference: NDArray
    mask: NDArray[np.bool_]
    affine: NDArray

    @classmethod
    def of(cls, signals: Signals, acquisition: Acquisition, *, even: bool, **grid: NDArray) -> MeasuredVoxels:
        """Average signals of shape (n_voxels, n_measurements); of complex ones, the magnitudes.

        Parameters
        ----------
        signals : array or view
            A zero where others are positive is a missing measurement.
        acquisition : Acquisition
        even : bool
            Whether means are even over the sphere, as models of direction averages need them.
        **grid : ndarray
            ``reference``, ``mask`` and ``affine``.
        """
        n_voxels, n = signals.shape
        average = DirectionAverage(acquisition, even=even)
        mean, spread = np.full((2, len(acquisition.shells), n_voxels), np.nan, dtype=np.float32)
        single = np.empty((n if n * n_voxels <= MOST_MEASUREMENTS else 0, n_voxels), dtype=np.float32)
        for start in range(0, n_voxels, CHUNK):
            here = slice(start, start + CHUNK)
            values = np.abs(np.asarray(signals[here]))
            missing = (values == 0) & np.any(values > 0, axis=1, keepdims=True)
            mean[:, here] = average(values, missing).T
            values = np.ma.masked_array(values, missing | ~np.isfinite(values))
            for k, shell in enumerate(acquisition.shells):
                if shell.indices.size > 1:
                    spread[k, here] = values[:, shell.indices].std(axis=1, ddof=1).filled(np.nan)
            if single.size:
                single[:, here] = values.filled(np.nan).T
        return cls(acquisition, mean, spread, single, **grid)

    def save(self, path: Path) -> None:
        """Write an array file that holds no executable content."""
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "acquisition"}
        arrays |= {f"column_{name}": values for name, values in self.acquisition.columns.items()}
        if self.acquisition.directions is not None:
            arrays["directions"] = self.acquisition.directions
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, frame=np.array(self.acquisition.frame), **arrays)

    @classmethod
    def load(cls, path: Path) -> MeasuredVoxels:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = dict(file)
        frame: Frame = "xyz" if str(found.pop("frame")) == "xyz" else "bvec"
        columns = {name.removeprefix("column_"): found.pop(name) for name in [*found] if name.startswith("column_")}
        acquisition = Acquisition(columns.pop("b", None), found.pop("directions", None), frame=frame, **columns)
        return cls(acquisition, **found)
