"""Path of a head through a scan: motion parameters, whether it moved at all, and joining of groups of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

#: Rotations become distances on a sphere of this radius, mm.
RADIUS = 50.0

#: A head whose sharpest volumes lie within so many mm of each other (root mean square) did not move between them.
STILL = 0.15

#: Shells farther from the first than this (mm, beside three standard errors) are not only misled by contrast.
APART = 0.5

#: Errors of volumes that are seen one by one differ from one volume to the next by twice their variance (von Neumann's
#: ratio); a head that drifts or jumps has neighbours that lie together. Below this the differences tell of motion.
WHITE = 1.2

#: Groups of fewer volumes do not tell.
FEWEST = 6

#: How far a difference in contrast misleads the registration of two shells, mm (rotations as on the sphere).
MISLED = 0.1

#: No head lies stiller than so from one volume to the next, mm.
SMALLEST_STEP = 0.05

#: Degrees of freedom of its steps: most are small, and some are jumps.
FREEDOM = 3.0

#: Iterations of joining the path, at most; they end when no group moves by more than so many mm.
ITERATIONS = 50
CONVERGED = 1e-4


def is_still(transforms: ArrayLike, groups: Sequence[NDArray[np.intp]], centre: ArrayLike) -> bool:
    """Whether the estimated motion does not exceed the errors of its estimate.

    A still scan should not be interpolated, but noise at high b and differences in contrast between shells always feign
    some motion. The head counts as still if the best-seen volumes have the same position, no other shell is farther
    from them than contrast can mislead, and in no shell successive volumes are closer together than arbitrary ones
    [1]_.

    Parameters
    ----------
    transforms : array_like, shape (n, 4, 4)
        World to world, of every volume in temporal order.
    groups : sequence of ndarray of int
        Indices of volumes whose motion is seen equally well, such as shells, the best-seen first.
    centre : array_like, shape (3,)
        Centre of rotation, mm.

    References
    ----------
    .. [1] von Neumann J. Annals of Mathematical Statistics 1941;12:367-395.
    """
    path = motion_parameters(transforms, centre) * [1, 1, 1, RADIUS, RADIUS, RADIUS]
    if np.sqrt(np.var(path[groups[0]], axis=0).sum()) > STILL:
        return False
    where = path[groups[0]].mean(axis=0)
    for group in groups[1:]:
        if len(group) > 1:
            error = np.sqrt(np.var(path[group], axis=0, ddof=1).sum() / len(group))
            if np.linalg.norm(path[group].mean(axis=0) - where) > APART + 3 * error:
                return False
        if len(group) >= FEWEST and _ratio(path[np.sort(group)]) <= WHITE:
            return False
    return True


def _ratio(path: NDArray) -> float:
    """Von Neumann ratio: mean squared successive difference over variance, 2 for white noise and less for a path."""
    spread = np.var(path, axis=0).sum()
    return float(np.mean(np.sum(np.diff(path, axis=0) ** 2, axis=1)) / spread) if spread > 0 else 2.0


def motion_parameters(transforms: ArrayLike, centre: ArrayLike) -> NDArray[np.float64]:
    """Translations (mm) along and rotations (radians) about the world axes, shape (n, 6), of transforms (n, 4, 4).

    Rotations are about x, then y, then z (fixed axes) through ``centre`` (world, mm), the centre of the mask. Strain is
    left out.
    """
    transforms, centre = np.asarray(transforms, dtype=float), np.asarray(centre, dtype=float)
    rotations = np.array([polar(transform[:3, :3])[0] for transform in transforms]).reshape(-1, 3, 3)
    translations = transforms[:, :3, :3] @ centre + transforms[:, :3, 3] - centre
    return np.column_stack([translations, Rotation.from_matrix(rotations).as_euler("xyz")])


def rigid_transforms(parameters: ArrayLike, centre: ArrayLike) -> NDArray[np.float64]:
    """Transforms (n, 4, 4) of motion parameters (n, 6) about a centre: the inverse of `motion_parameters`."""
    values, centre = np.asarray(parameters, dtype=float), np.asarray(centre, dtype=float)
    transforms = np.tile(np.eye(4), (len(values), 1, 1))
    transforms[:, :3, :3] = Rotation.from_euler("xyz", values[:, 3:]).as_matrix()
    transforms[:, :3, 3] = values[:, :3] + centre - transforms[:, :3, :3] @ centre
    return transforms


class Link(NamedTuple):
    """Position of a group of volumes relative to another, estimated across contrasts.

    Attributes
    ----------
    reference : int
        Index of the other group.
    offset : ndarray, shape (6,)
        From the frame of the other group to that of this one, mm and radians.
    """

    reference: int
    offset: NDArray[np.float64]


def join_groups(
    path: NDArray[np.float64],
    groups: Sequence[NDArray[np.intp]],
    links: Sequence[Link],
    known: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Offsets that join groups of volumes, each followed in its own frame, to one path.

    They follow from the links, whose errors due to contrast are about `MISLED`, and from the continuity of the path
    wherever a volume of one group follows one of another.

    Parameters
    ----------
    path : ndarray, shape (n, 6)
        Motion of every volume in temporal order, in the frame of its group, mm and radians.
    groups : sequence of ndarray of int
        Indices of the volumes of each group; the first gives the common frame.
    links : sequence of Link
        One for every group but the first.
    known : ndarray of bool, shape (n,)
        Volumes whose position was found.

    Returns
    -------
    ndarray, shape (n_groups, 6)
        Offsets to add to the path of every group; 0 for the first.

    Notes
    -----
    Steps in time and residuals of the links follow Student's distribution with `FREEDOM` degrees of freedom, as heads
    jump and contrast may mislead; the scale of a step is the median absolute deviation of all steps. Solved by
    iteratively reweighted least squares, starting from the links.
    """
    scale = np.array([1.0, 1, 1, RADIUS, RADIUS, RADIUS])
    n = len(groups)
    place = np.zeros(len(path), dtype=int)
    for index, group in enumerate(groups):
        place[group] = index
    offsets = np.zeros((n, path.shape[1]))
    for index, link in enumerate(links, start=1):
        offsets[index] = offsets[link.reference] + link.offset * scale
    linked = np.array([link.offset * scale for link in links]).reshape(n - 1, path.shape[1])
    seen = np.flatnonzero(known)
    stride = np.sqrt(np.diff(seen))  # of a random walk
    design = np.concatenate(
        [
            np.eye(n)[place[seen[1:]]] - np.eye(n)[place[seen[:-1]]],
            np.eye(n)[1:] - np.eye(n)[[link.reference for link in links]],
        ]
    )
    steps = np.diff(path[seen] * scale, axis=0)
    target = np.concatenate([-steps, linked])
    for _ in range(ITERATIONS):
        residual = design @ offsets - target
        step = 1.4826 * np.median(np.abs(residual[: stride.size]) / stride[:, None]) if stride.size else 0.0
        size = np.concatenate([max(step, SMALLEST_STEP) * stride, np.full(n - 1, MISLED)])[:, None]
        weight = (FREEDOM + 1) / (FREEDOM + (residual / size) ** 2) / size**2
        weight[stride.size :] = 1 / MISLED**2
        before = offsets.copy()
        for axis in range(path.shape[1]):
            weighted = design[:, 1:].T * weight[:, axis]
            offsets[1:, axis] = np.linalg.solve(weighted @ design[:, 1:], weighted @ target[:, axis])
        if np.abs(offsets - before).max() < CONVERGED:
            break
    return offsets / scale
