"""Quality of an image: outlier volumes and slices, signal-to-noise ratio, motion, and a carpet for figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition, Shell
from bidsfit.parallel import Progress

#: Standard deviations below what its shell predicts from which a slice has lost signal (the default of FSL eddy).
DROP_OUT = 4.0

#: Standard deviations above the typical difference from its shell from which a volume stands out.
STANDS_OUT = 4.0

#: A volume is an outlier from this share of slices that lost signal.
OUTLIER_SLICES = 0.1

#: A shell of fewer volumes cannot tell which of them is unusual.
FEWEST_VOLUMES = 4
#: Nor can one with fewer deviations to learn the spread from (of all its slices).
FEWEST_DEVIATIONS = 15

#: The mean of fewer voxels is not judged.
LEAST_VOXELS = 30

#: Spreads below these shares of the signal, and of the typical difference, are taken as these.
LEAST_SPREAD, LEAST_DIFFERENCE = 2e-3, 0.05

#: Lower signals, as shares of the median, are taken as this in logarithms.
LEAST_SIGNAL = 0.01

#: From the median absolute deviation to the standard deviation of a Gaussian.
GAUSSIAN = 1.4826

#: Where Huber's weights begin to fall, in standard deviations.
HUBER = 1.345

#: Lower b-values (s/mm^2) are not diffusion-weighted.
LOWEST_WEIGHTED = 50.0

#: Radius of the sphere on which rotations become distances, mm (Power et al. 2012).
HEAD_RADIUS = 50.0

#: Decimals of displacements in mm that mean anything: beyond them is the rounding of matrices.
DECIMALS = 6

#: Names of the columns of motion: translations in mm, rotations in radians.
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


class Outliers(NamedTuple):
    """Volumes and slices that differ from the rest of their shell.

    Attributes
    ----------
    slice_z : ndarray, shape (n_slices, n)
        Mean signal of each slice minus its prediction from the shell, in standard deviations; NaN where not judged.
    std_dvars : ndarray, shape (n,)
        Root mean square difference from the median image of the shell, relative to the typical volume; NaN if there is
        nothing to compare with.
    outlier_fraction : ndarray, shape (n,)
        Fraction of the judged slices that lost signal; NaN if none is judged.
    is_outlier : ndarray of bool, shape (n,)
    """

    slice_z: NDArray[np.float64]
    std_dvars: NDArray[np.float64]
    outlier_fraction: NDArray[np.float64]
    is_outlier: NDArray[np.bool_]


class Carpet(NamedTuple):
    """Voxels by volumes, for a figure.

    Attributes
    ----------
    values : ndarray of float32, shape (n_rows, n)
        Each voxel minus its median over the shell, in standard deviations over the shell; NaN for shells of one volume.
    labels : ndarray of int, shape (n_rows,)
        Labels of the segmentation in ascending order; all 1 without one.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """Quality measures of one image.

    Attributes
    ----------
    b_values : ndarray, shape (n,)
        s/mm^2.
    motion : ndarray, shape (n, 6), or None
        Translations (mm) and rotations (radians) of each volume, as named in `MOTION`.
    framewise_displacement : ndarray, shape (n,)
        mm; NaN for the first volume, and for all if the motion is unknown.
    snr : ndarray, shape (n_shells,)
        Mean signal over the noise of one volume; NaN if the noise is unknown.
    neighbour_correlation : float
        Neighbouring DWI correlation; NaN without directions.
    n_voxels : int
        Voxels in the mask.
    remarks : tuple of str
        What could not be judged, and why.
    """

    b_values: NDArray[np.float64]
    motion: NDArray[np.float64] | None
    framewise_displacement: NDArray[np.float64]
    outliers: Outliers
    shells: tuple[Shell, ...]
    snr: NDArray[np.float64]
    neighbour_correlation: float
    n_voxels: int
    remarks: tuple[str, ...]

    @property
    def columns(self) -> dict[str, NDArray]:
        """One value per volume for each column of the table of confounds; unknown motion is left out."""
        moved = {} if self.motion is None else dict(zip(MOTION, self.motion.T, strict=True))
        if self.motion is not None:
            moved["framewise_displacement"] = self.framewise_displacement
        return {
            "b_value": self.b_values,
            **moved,
            "std_dvars": self.outliers.std_dvars,
            "outlier_fraction": self.outliers.outlier_fraction,
            "is_outlier": self.outliers.is_outlier.astype(int),
        }

    @property
    def numbers(self) -> dict[str, Any]:
        """Measures of the whole image as plain values; None if unknown."""
        lost = self.outliers.slice_z < -DROP_OUT
        judged = np.isfinite(self.outliers.slice_z)
        compared = judged.any(axis=0) | np.isfinite(self.outliers.std_dvars)
        return {
            "n_volumes": int(self.b_values.size),
            "n_voxels": self.n_voxels,
            "fd_mean": _plain(_over(np.mean, self.framewise_displacement)),
            "fd_max": _plain(_over(np.max, self.framewise_displacement)),
            "n_outlier_volumes": int(self.outliers.is_outlier.sum()) if compared.any() else None,
            "n_compared_volumes": int(compared.sum()),
            "outlier_slices": _plain(lost.sum() / judged.sum() if judged.any() else np.nan),
            "dvars_max": _plain(_over(np.max, self.outliers.std_dvars)),
            "ndc": _plain(self.neighbour_correlation),
            "b_lowest": _plain(self.shells[0].b_value),
            "snr_lowest": _plain(self.snr[0]),
            "b_highest": _plain(self.shells[-1].b_value),
            "snr_highest": _plain(self.snr[-1]),
            "shells": [
                {"b_value": _plain(shell.b_value), "n_volumes": int(shell.indices.size), "snr": _plain(snr)}
                for shell, snr in zip(self.shells, self.snr, strict=True)
            ],
            "outlier_indices": np.flatnonzero(self.outliers.is_outlier).tolist(),
            "remarks": list(self.remarks),
        }


def assess(
    data: NDArray,
    b_values: ArrayLike,
    mask: NDArray,
    *,
    directions: ArrayLike | None = None,
    motion: ArrayLike | None = None,
    radius: float = HEAD_RADIUS,
    no_motion: str = "volumes were not aligned here",
    sigma: ArrayLike | None = None,
    outliers: Outliers | None = None,
    slice_axis: int = 2,
    progress: Progress | None = None,
) -> Quality:
    """Measure the quality of an image.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Read slice by slice, so that it may be mapped from a file.
    b_values : array_like, shape (n,)
        s/mm^2.
    mask : ndarray of bool, shape (x, y, z)
    directions : array_like, shape (n, 3), optional
        Gradient directions; signs do not matter.
    motion : array_like, shape (n, 6), optional
        Translations (mm) and rotations (radians) about x, y and z.
    radius : float
        Radius of the sphere on which rotations become distances, mm.
    no_motion : str
        Reason if motion is unknown.
    sigma : float or array_like, shape (x, y, z), optional
        Standard deviation of the noise of one volume, in the units of the data.
    outliers : Outliers, optional
        Outliers of the data before volumes were moved, when slices were those acquired; by default computed from
        ``data``.
    slice_axis : int
        Axis across the acquired slices.

    Raises
    ------
    ValueError
        If shapes disagree or the mask is empty.
    """
    b = np.asarray(b_values, dtype=float)
    mask = _check(data, b, mask)
    gradients = None if directions is None else _of_shape(directions, (b.size, 3), "Directions")
    moved = None if motion is None else _of_shape(motion, (b.size, 6), "Motion parameters")
    report = progress or (lambda _: None)
    if outliers is None:
        outliers = volume_outliers(data, b, mask, directions=gradients, slice_axis=slice_axis)
    report(0.5)
    shells = Acquisition(b).shells
    snr = np.full(len(shells), np.nan) if sigma is None else snr_of_shells(data, b, mask, sigma)
    report(0.75)
    correlation = np.nan if gradients is None else neighbour_correlation(data, b, gradients, mask)
    report(1.0)
    return Quality(
        b_values=b,
        motion=moved,
        framewise_displacement=np.full(b.size, np.nan) if moved is None else framewise_displacement(moved, radius),
        outliers=outliers,
        shells=shells,
        snr=snr,
        neighbour_correlation=correlation,
        n_voxels=int(mask.sum()),
        remarks=tuple(_remarks(outliers, shells, "" if moved is not None else no_motion, sigma, gradients)),
    )


def _remarks(outliers: Outliers, shells: Sequence[Shell], no_motion: str, sigma: Any, directions: Any) -> Iterator[str]:
    """What could not be judged, and why."""
    silent = [shell for shell in shells if not np.isfinite(outliers.std_dvars[shell.indices]).any()]
    if silent:
        values = ", ".join(f"{shell.b_value:.0f}" for shell in silent)
        yield (
            f"Outliers were not sought at b = {values} s/mm²: a shell needs {FEWEST_VOLUMES} volumes or more, of which "
            "the mask holds signal, to tell which of them is unusual."
        )
    if no_motion:
        yield f"Motion is not known: {no_motion}."
    if sigma is None:
        yield "The signal-to-noise ratio of each shell is not told: there is no map of the noise level."
    if directions is None:
        yield "The neighbouring DWI correlation needs gradient directions, and there are none."


def volume_outliers(
    data: NDArray,
    b_values: ArrayLike,
    mask: NDArray,
    *,
    directions: ArrayLike | None = None,
    slice_axis: int = 2,
) -> Outliers:
    """Find volumes and slices that differ from the others of their shell.

    The mean signal of a slice is compared with a robust tensor fit over its shell if there are enough directions, else
    with the median. Slices four standard deviations below have lost signal, as in FSL eddy [1]_, which predicts voxel
    by voxel. The difference of a volume is measured as DVARS [2]_, but from the median image of its shell, since
    neighbours in time have other directions. A volume is an outlier if a tenth of its slices lost signal, or if its
    difference is unusually large for its shell and direction.

    Use data before volumes are moved, so that slices are those acquired.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Read slice by slice. Non-finite values count as 0.
    b_values : array_like, shape (n,)
    mask : ndarray of bool, shape (x, y, z)
    directions : array_like, shape (n, 3), optional

    References
    ----------
    .. [1] Andersson JLR, Graham MS, Zsoldos E, Sotiropoulos SN. NeuroImage 2016;141:556-572.
    .. [2] Power JD, Barnes KA, Snyder AZ, Schlaggar BL, Petersen SE. NeuroImage 2012;59:2142-2154.
    """
    b = np.asarray(b_values, dtype=float)
    mask = _check(data, b, mask)
    gradients = None if directions is None else _of_shape(directions, (b.size, 3), "Directions")
    shells = Acquisition(b).shells
    counts = np.zeros(mask.shape[slice_axis], dtype=int)
    means = np.zeros((counts.size, b.size))
    squares = np.zeros(b.size)
    for index, values in _slices(data, mask, slice_axis):
        counts[index] = len(values)
        means[index] = values.mean(axis=0, dtype=float)
        for shell in shells:
            block = values[:, shell.indices]
            block -= np.median(block, axis=1, keepdims=True)
            squares[shell.indices] += np.einsum("ij,ij->j", block, block, dtype=float)
    judged = counts >= min(LEAST_VOXELS, counts.max())
    slice_z = np.full(means.shape, np.nan)
    for shell in shells:
        if shell.indices.size >= FEWEST_VOLUMES:
            design = _design(gradients, shell)
            slice_z[np.ix_(judged, shell.indices)] = _standardised(means[np.ix_(judged, shell.indices)], design)
    dvars, unusual = _relative_differences(np.sqrt(squares / counts.sum()), shells, gradients)
    lost = np.where(np.isnan(slice_z), np.nan, slice_z < -DROP_OUT)
    fraction = lost[judged].mean(axis=0)
    return Outliers(slice_z, dvars, fraction, unusual | (fraction >= OUTLIER_SLICES))


def _slices(data: NDArray, mask: NDArray, axis: int) -> Iterator[tuple[int, NDArray]]:
    """Values (n_voxels, n) inside the mask, copied slice by slice; slices without voxels are skipped."""
    for index in range(mask.shape[axis]):
        where = (slice(None),) * axis + (index,)
        if mask[where].any():
            values = np.asarray(data[where])[mask[where]]
            yield index, np.nan_to_num(values.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)


def _design(directions: NDArray | None, shell: Shell) -> NDArray | None:
    """Quadratic form in the directions of a shell, if it has twice as many volumes as terms; else None."""
    if directions is None or shell.b_value < LOWEST_WEIGHTED:
        return None
    x, y, z = directions[shell.indices].T
    design = np.column_stack([x * x, y * y, z * z, x * y, x * z, y * z])
    enough = len(design) >= 2 * design.shape[1] and np.linalg.cond(design) < 100
    return design if enough else None


def _standardised(means: NDArray, design: NDArray | None) -> NDArray[np.float64]:
    """Deviations of slice means from their prediction in robust standard deviations, shape (n_slices, n_shell).

    NaN where too few volumes give the spread, and in slices without signal.
    """
    level = np.median(means, axis=1, keepdims=True)
    with_signal = level[:, 0] > 0
    freedom = means.shape[1] - (1 if design is None else design.shape[1])
    found = np.full(means.shape, np.nan)
    if freedom * with_signal.sum() < FEWEST_DEVIATIONS:
        return found
    means, level = means[with_signal], level[with_signal]
    if design is None:
        predicted = level
    else:  # a tensor is a quadratic form of the logarithm
        logarithms = np.log(np.maximum(means / level, LEAST_SIGNAL))
        predicted = level * np.exp([_robust_fit(design, row) for row in logarithms])
    relative = means / predicted - 1
    correction = GAUSSIAN * np.sqrt(means.shape[1] / freedom)
    own = correction * np.median(np.abs(relative), axis=1, keepdims=True)
    # The spread of few volumes may be small by chance: it is at least the typical one of all slices.
    typical = np.sqrt(np.mean(np.minimum(own, 2 * np.median(own)) ** 2))
    found[with_signal] = relative / np.maximum(np.maximum(own, typical), LEAST_SPREAD)
    return found


def _robust_fit(design: NDArray, values: NDArray, iterations: int = 20) -> NDArray[np.float64]:
    """Prediction of a linear regression with Huber weights."""
    weights = np.ones(values.size)
    for _ in range(iterations):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
        apart = np.abs(values - design @ coefficients)
        limit = HUBER * GAUSSIAN * np.median(apart)
        weights = np.where(apart > limit, limit / np.maximum(apart, np.finfo(float).tiny), 1.0)
    return design @ coefficients


def _relative_differences(
    rms: NDArray, shells: Sequence[Shell], directions: NDArray | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Differences relative to the typical one of the shell, and which are unusually large."""
    relative, unusual = np.full(rms.size, np.nan), np.zeros(rms.size, dtype=bool)
    for shell in shells:
        typical = np.median(rms[shell.indices])
        if shell.indices.size < FEWEST_VOLUMES or typical == 0:
            continue
        relative[shell.indices] = own = rms[shell.indices] / typical
        if shell.indices.size > FEWEST_VOLUMES:  # fewer do not tell how differences are spread
            design = _design(directions, shell)
            if design is not None:  # along coherent fibres, volumes differ more from the median image
                own = own / np.exp(_robust_fit(design, np.log(np.maximum(own, LEAST_SIGNAL))))
            spread = max(GAUSSIAN * float(np.median(np.abs(own - 1))), LEAST_DIFFERENCE)
            unusual[shell.indices] = own > 1 + STANDS_OUT * spread
    return relative, unusual


def snr_of_shells(data: NDArray, b_values: ArrayLike, mask: NDArray, sigma: ArrayLike) -> NDArray[np.float64]:
    """SNR of each shell in ascending order of b, shape (n_shells,); NaN if sigma is positive nowhere.

    It is the mean over the mask of the mean signal over the shell divided by ``sigma``, the noise of one volume: a
    number or an array (x, y, z). Voxels where it is not positive are left out.
    """
    b = np.asarray(b_values, dtype=float)
    mask = _check(data, b, mask)
    noise = np.asarray(sigma, dtype=np.float32)
    if noise.shape not in ((), mask.shape):
        raise ValueError(f"Sigma must be a number or of the shape of the mask, {mask.shape}, found {noise.shape}.")
    noise = np.broadcast_to(noise, mask.shape)
    known = mask & np.isfinite(noise) & (noise > 0)
    if not known.any():
        return np.full(len(Acquisition(b).shells), np.nan)
    sums = np.zeros(b.size)
    for index, values in _slices(data, known, 2):
        sums += np.einsum("i,ij->j", 1 / noise[:, :, index][known[:, :, index]], values, dtype=float)
    ratios = sums / known.sum()
    return np.array([ratios[shell.indices].mean() for shell in Acquisition(b).shells])


def neighbour_correlation(data: NDArray, b_values: ArrayLike, directions: ArrayLike, mask: NDArray) -> float:
    """Neighbouring DWI correlation [1]_: how well each volume agrees with the one closest to it in q-space.

    Correlation over the mask with the volume of the closest b-value and direction (antipodes are equivalent), averaged
    over all diffusion-weighted volumes. NaN if fewer than two are weighted or none varies.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    b_values : array_like, shape (n,)
    directions : array_like, shape (n, 3)
    mask : ndarray of bool, shape (x, y, z)

    References
    ----------
    .. [1] Yeh FC, Zaydan IM, Suski VR, Lacomis D, Richardson RM, Maroon JC, Barrios-Martinez J. NeuroImage
       2019;202:116131.
    """
    b = np.asarray(b_values, dtype=float)
    mask = _check(data, b, mask)
    gradients = _of_shape(directions, (b.size, 3), "Directions")
    weighted = np.flatnonzero((b >= LOWEST_WEIGHTED) & (np.linalg.norm(gradients, axis=1) > 0))
    if weighted.size < 2:
        return np.nan
    q = np.sqrt(b[weighted])[:, None] * gradients[weighted] / np.linalg.norm(gradients[weighted], axis=1, keepdims=True)
    distance = np.minimum(*(np.linalg.norm(q[:, None] + sign * q[None], axis=-1) for sign in (-1, 1)))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1)
    n, sums, squares, products = 0, *np.zeros((3, weighted.size))
    for _, values in _slices(data, mask, 2):
        own = values[:, weighted].astype(float)  # of one slice
        n += len(own)
        sums += own.sum(axis=0)
        squares += np.einsum("ij,ij->j", own, own)
        products += np.einsum("ij,ij->j", own, own[:, nearest])
    means = sums / n
    spreads = np.sqrt(np.maximum(squares / n - means**2, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = (products / n - means * means[nearest]) / (spreads * spreads[nearest])
    return float(_over(np.mean, correlations))


def framewise_displacement(motion: ArrayLike, radius: float = HEAD_RADIUS) -> NDArray[np.float64]:
    """Framewise displacement [1]_ in mm, shape (n,), NaN for the first volume.

    The sum of the absolute changes of translations and rotations from the previous volume.

    Parameters
    ----------
    motion : array_like, shape (n, 6)
        Translations (mm) and rotations (radians).
    radius : float
        Radius of the sphere on which rotations become distances, mm.

    References
    ----------
    .. [1] Power JD, Barnes KA, Snyder AZ, Schlaggar BL, Petersen SE. NeuroImage 2012;59:2142-2154.
    """
    steps = np.abs(np.diff(np.asarray(motion, dtype=float), axis=0))
    moved = steps[:, :3].sum(axis=1) + radius * steps[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], np.round(moved, DECIMALS)])


def carpet(
    data: NDArray, b_values: ArrayLike, mask: NDArray, segmentation: NDArray | None = None, *, n: int = 1000
) -> Carpet:
    """Sample voxels for a carpet plot [1]_ of all volumes.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n_volumes)
    b_values : array_like, shape (n_volumes,)
    mask : ndarray of bool, shape (x, y, z)
    segmentation : ndarray of int, shape (x, y, z), optional
        Groups the rows by label; 0 is left out if the mask has other labels.
    n : int
        Largest number of rows, sampled evenly over the mask, in order of slices within a label.

    References
    ----------
    .. [1] Power JD. NeuroImage 2017;154:150-158.
    """
    b = np.asarray(b_values, dtype=float)
    mask = _check(data, b, mask)
    if segmentation is None:
        labels = mask.astype(np.int64)
    else:
        labels = np.where(mask, _of_shape(segmentation, mask.shape, "The segmentation"), 0).astype(np.int64)
        labels = labels if labels.any() else mask.astype(np.int64)
    z, y, x = np.nonzero(labels.transpose(2, 1, 0))
    order = np.argsort(labels[x, y, z], kind="stable")
    order = order[((np.arange(min(n, order.size)) + 0.5) * order.size / min(n, order.size)).astype(int)]
    place = x[order], y[order], z[order]
    values = np.nan_to_num(np.asarray(data[place]).astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    for shell in Acquisition(b).shells:
        block = values[:, shell.indices]
        block -= np.median(block, axis=1, keepdims=True)
        spread = np.sqrt(np.mean(block**2, axis=1, keepdims=True))
        single = shell.indices.size < 2
        values[:, shell.indices] = np.nan if single else block / np.where(spread > 0, spread, 1)
    return Carpet(values, labels[place])


def _check(data: NDArray, b: NDArray, mask: NDArray) -> NDArray[np.bool_]:
    """Check that all shapes agree and return the mask as booleans."""
    inside: NDArray[np.bool_] = np.asarray(mask, dtype=bool)
    if data.ndim != 4 or data.shape != (*inside.shape, b.size):
        raise ValueError(
            f"Data of shape {data.shape} do not match a mask of shape {inside.shape} and {b.size} b-values: "
            f"expected {(*inside.shape, b.size)}."
        )
    if not inside.any():
        raise ValueError("The mask is empty: there is no voxel whose quality could be judged.")
    return inside


def _of_shape(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, found {array.shape}.")
    return array


def _over(statistic: Callable[[NDArray], Any], values: NDArray) -> float:
    """A statistic of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(statistic(finite)) if finite.size else np.nan


def _plain(value: Any) -> float | None:
    """A number that JSON can hold, with six digits."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
