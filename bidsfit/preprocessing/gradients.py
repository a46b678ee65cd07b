"""Checks of gradient directions against the b-values and the data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Up to this b-value (s/mm^2) a direction says nothing, and may be a zero vector.
NO_WEIGHTING = 50.0

#: Lengths within this of 1 are rounding.
LENGTH_TOLERANCE = 0.02

#: Directions a tensor needs, and the b-value up to which it describes the signal (s/mm^2).
SMALLEST_NUMBER = 6
TENSOR_LOWEST_B = 400.0
TENSOR_LARGEST_B = 1500.0

#: Where one bundle of fibres runs: at least so anisotropic.
ANISOTROPIC = 0.4

#: So many pairs of neighbouring anisotropic voxels are needed for a verdict,
ENOUGH_PAIRS = 200
#: and so large a gain of the best reading over the table as given: standard errors, and relative.
STANDARD_ERRORS = 4.5
LEAST_GAIN = 0.06
#: Readings within so many standard errors of the best one cannot be told from it.
INDISTINGUISHABLE = 3.0

_AXES = "xyz"


class Orientation(NamedTuple):
    """A permutation and flips of the axes of a table of directions.

    Component i of the corrected direction is component ``axes[i]`` of the given one, times ``signs[i]``.
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Matrix that converts a direction of the table to the corrected one."""
        result = np.zeros((3, 3))
        result[np.arange(3), self.axes] = self.signs
        return result

    def __str__(self) -> str:
        flipped = [_AXES[i] for i in range(3) if self.signs[i] < 0]
        swapped = [i for i in range(3) if self.axes[i] != i]
        words = []
        if len(swapped) == 2:
            words.append(f"{_AXES[swapped[0]]} and {_AXES[swapped[1]]} swapped")
        elif swapped:
            words.append("axes in the order " + " ".join(_AXES[i] for i in self.axes))
        if flipped:
            words.append(f"the sign of {' and '.join(flipped)} flipped")
        return ", then ".join(words) or "as given"


def orientations() -> list[Orientation]:
    """The 24 distinct orientations: 6 permutations times 4 flips, as a direction and its opposite are equivalent."""
    signs = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    return [Orientation((a, b, c), sign) for a, b, c in permutations(range(3)) for sign in signs]


def normalise_directions(
    b_values: ArrayLike, directions: ArrayLike, numbers: Sequence[int] | None = None
) -> tuple[NDArray[np.float64], list[str]]:
    """Normalise directions to unit length, and warn about questionable ones.

    Parameters
    ----------
    b_values : array_like, shape (n,)
        s/mm^2.
    directions : array_like, shape (n, 3)
    numbers : sequence of int, optional
        Numbers of the volumes in warnings; by default counted from 0.

    Returns
    -------
    directions : ndarray, shape (n, 3)
        Of length 1, or 0 if unknown.
    warnings : list of str
        Plain sentences.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    b = np.asarray(b_values, dtype=float)
    called = np.arange(b.size) if numbers is None else np.asarray(numbers)
    table = np.array(directions, dtype=float)
    if table.shape != (b.size, 3):
        raise ValueError(f"{b.size} b-values need directions of shape ({b.size}, 3), found {table.shape}.")
    warnings: list[str] = []
    weighted = b > NO_WEIGHTING
    broken = ~np.isfinite(table).all(axis=1)
    if broken.any():
        table[broken] = 0.0
        if (broken & weighted).any():
            warnings.append(
                f"The gradient directions of volumes {_list(called[broken & weighted])} (counted from 0) are not "
                "numbers; they count as unknown."
            )
    lengths = np.linalg.norm(table, axis=1)
    missing = weighted & (lengths == 0) & ~broken
    if missing.any():
        warnings.append(
            f"The gradient directions of volumes {_list(called[missing])} (counted from 0) are zero although b is "
            f"above {NO_WEIGHTING:.0f} s/mm²; they count as unknown."
        )
    known = weighted & (lengths > 0)
    off = known & (np.abs(lengths - 1) > LENGTH_TOLERANCE)
    if off.any():
        warnings.append(
            f"{off.sum()} of {known.sum()} gradient directions above b = {NO_WEIGHTING:.0f} s/mm² are not of unit "
            f"length ({lengths[known].min():.3g} to {lengths[known].max():.3g}); they were scaled to 1."
        )
    scale = np.where(lengths > 0, lengths, 1.0)
    return table / scale[:, None], warnings


def refuse_scaled_directions(b_values: ArrayLike, directions: ArrayLike) -> None:
    """Refuse tables that encode b-values in the lengths of the directions.

    ``b_values`` (n,) are in s/mm^2, ``directions`` have shape (n, 3).

    Raises
    ------
    ValueError
        If all b-values above 50 s/mm^2 are alike while b |g|^2 falls into several shells, which the message names.
    """
    b, table = np.asarray(b_values, dtype=float), np.asarray(directions, dtype=float)
    lengths = np.linalg.norm(np.nan_to_num(table), axis=1)
    known = (b > NO_WEIGHTING) & (lengths > 0)
    if not np.any(np.abs(lengths[known] - 1) > LENGTH_TOLERANCE):
        return
    effective = _scaled_b_values(b[known], lengths[known])
    if effective:
        raise ValueError(
            f"the b-values above {NO_WEIGHTING:.0f} s/mm² are all alike ({b[known].mean():.0f}), but the lengths of "
            f"the gradient directions differ ({lengths[known].min():.3g} to {lengths[known].max():.3g}): some scanners "
            f"scale the directions instead of the b-value, which then is b |g|². That gives b = {effective} s/mm²"
        )


def _scaled_b_values(b: NDArray, lengths: NDArray) -> str:
    """Shells of b |g|^2, in words, if b alone has one shell and the lengths have several; else empty."""
    from bidsfit.acquisition import Acquisition

    if len(Acquisition(b).shells) > 1:
        return ""
    largest = lengths.max()
    shells = Acquisition(b * (lengths / largest) ** 2).shells
    if len(shells) < 2 or len(shells) > b.size // 3:
        return ""
    return ", ".join(f"{shell.b_value:.0f}" for shell in shells)


def _list(numbers: NDArray) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if numbers.size > 8 else "")


def coherence(
    data: NDArray,
    mask: NDArray,
    b_values: ArrayLike,
    directions: ArrayLike,
    affine: ArrayLike,
) -> tuple[list[Orientation], NDArray[np.float64]]:
    r"""Fibre coherence between neighbouring voxels for every orientation of the table of directions.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    mask : ndarray of bool, shape (x, y, z)
    b_values : array_like, shape (n,)
        s/mm^2.
    directions : array_like, shape (n, 3)
        As in FSL's bvec files.
    affine : array_like, shape (4, 4)
        Voxel to world; only voxel sizes and the sign of the determinant matter.

    Returns
    -------
    orientations : list of Orientation
    values : ndarray, shape (n_orientations, n_pairs)
        Contribution of each pair of neighbours; their mean is the coherence, 0 to 1. Empty if the data do not suffice.

    Notes
    -----
    After the fibre coherence index [1]_. A tensor is fitted once, as another orientation of the table only turns its
    eigenvectors. A voxel and its neighbour in direction u, both anisotropic, with eigenvectors e and e', contribute
    :math:`(|e \cdot u| |e' \cdot u| |e \cdot e'|)^2` if u lies within 45 degrees of either. Pairs that contribute for
    no orientation are left out.

    References
    ----------
    .. [1] Schilling KG, et al. Magnetic Resonance Imaging 2019;58:82-89.
    """
    ways = orientations()
    nothing = np.zeros((len(ways), 0))
    b, table = np.asarray(b_values, dtype=float), np.asarray(directions, dtype=float)
    affine = np.asarray(affine, dtype=float)
    known = np.isfinite(table).all(axis=1) & (np.linalg.norm(np.nan_to_num(table), axis=1) > 0)
    chosen = _for_tensor(b, known)
    if chosen.size == 0 or not np.any(mask):
        return ways, nothing

    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel, fractional_anisotropy

    vectors = np.where(known[chosen, None], np.nan_to_num(table[chosen]), 0.0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(lengths > 0, lengths, 1)
    low = b[chosen] <= NO_WEIGHTING
    gradients = gradient_table(
        np.where(low, 0, b[chosen]), bvecs=np.where(low[:, None], 0, vectors), b0_threshold=NO_WEIGHTING
    )
    signals = np.maximum(np.nan_to_num(data[mask][:, chosen]), 1e-6)
    fit = TensorModel(gradients, fit_method="WLS").fit(signals)
    anisotropy = np.zeros(mask.shape)
    anisotropy[mask] = np.nan_to_num(fractional_anisotropy(fit.evals))
    fibres = np.zeros((*mask.shape, 3))
    fibres[mask] = np.nan_to_num(fit.evecs[..., :, 0])

    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    flip = np.diag([-1.0 if np.linalg.det(affine[:3, :3]) > 0 else 1.0, 1.0, 1.0])
    inside = anisotropy > ANISOTROPIC
    parts = []
    for step in _half_of_the_neighbours():
        here, there = _pairs(inside.shape, step)
        both = inside[here] & inside[there]
        if not both.any():
            continue
        towards = np.array(step) * sizes
        towards = flip @ towards / np.linalg.norm(towards)  # in the frame of bvec files
        first, second = fibres[here][both], fibres[there][both]
        along = np.abs(np.einsum("pi,pi->p", first, second))
        values = []
        for way in ways:
            toward = way.matrix.T @ towards
            one, other = np.abs(first @ toward), np.abs(second @ toward)
            values.append(np.where(np.maximum(one, other) > np.sqrt(0.5), (one * other * along) ** 2, 0.0))
        parts.append(np.array(values))
    if not parts:
        return ways, nothing
    joined = np.concatenate(parts, axis=1)
    return ways, joined[:, joined.max(0) > 0]


def detect_flip(
    data: NDArray,
    mask: NDArray,
    b_values: ArrayLike,
    directions: ArrayLike,
    affine: ArrayLike,
) -> str | None:
    """Whether another orientation of the directions fits the data better: a recommendation in words, or None.

    Nothing is changed. None is no proof of a correct table: with fewer than `SMALLEST_NUMBER` directions, few
    anisotropic voxels or a small difference there is no verdict, and few slices say little about z. Parameters are
    those of `coherence`.
    """
    data, mask = np.asarray(data), np.asarray(mask, dtype=bool)
    ways, values = coherence(data, mask, b_values, directions, affine)
    if values.shape[1] < ENOUGH_PAIRS:
        return None
    means = values.mean(axis=1)
    best = int(np.argmax(means))
    given = ways.index(Orientation((0, 1, 2), (1, 1, 1)))
    behind = [_standard_errors(values[best] - other) for other in values]
    if behind[given] < STANDARD_ERRORS or means[best] < (1 + LEAST_GAIN) * means[given]:
        return None
    alike = [str(ways[i]) for i in np.argsort(-means) if i != best and behind[i] < INDISTINGUISHABLE]
    also = f", and about as well with {'; or '.join(alike)}" if alike else ""
    return (
        f"The gradient directions do not suit the data: fibres of neighbouring voxels join up better with "
        f"{ways[best]} (coherence {means[best]:.2f} instead of {means[given]:.2f}){also}. Check the .bvec file; "
        "nothing was changed."
    )


def _standard_errors(difference: NDArray) -> float:
    """Mean of paired differences in units of its standard error."""
    spread = float(difference.std())
    return float(difference.mean()) / spread * np.sqrt(difference.size) if spread > 0 else 0.0


def _for_tensor(b: NDArray, known: NDArray) -> NDArray[np.intp]:
    """Indices of the volumes for a tensor fit: low b-values and suitable shells; empty if they do not suffice."""
    low = b <= NO_WEIGHTING
    high = known & (b >= TENSOR_LOWEST_B) & (b <= TENSOR_LARGEST_B)
    if high.sum() < SMALLEST_NUMBER:  # only higher shells: their tensor still points along the fibres
        above = known & (b >= TENSOR_LOWEST_B)
        high = above & (b <= b[above].min() * 1.1) if above.any() else above
    if high.sum() < SMALLEST_NUMBER or not low.any():
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(low | high)


def _half_of_the_neighbours() -> list[tuple[int, int, int]]:
    """Offsets of 13 of the 26 neighbours; the others are their opposites."""
    steps = [(i, j, k) for i, j, k in product((-1, 0, 1), repeat=3)]
    return [step for step in steps if step > (0, 0, 0)]


def _pairs(shape: tuple[int, ...], step: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    here = tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(step, shape, strict=True))
    there = tuple(slice(max(0, s), size + min(0, s)) for s, size in zip(step, shape, strict=True))
    return here, there
