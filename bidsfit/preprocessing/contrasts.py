"""Rigid registration of two images of different contrast by mutual information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bidsfit.preprocessing.registration import RADIUS, VoxelGrid
from bidsfit.preprocessing.susceptibility import coarser

#: Bins of the joint histogram along each axis: few, where few voxels fill them.
FEWEST_BINS = 16
MOST_BINS = 64

#: Heads of more voxels than this are compared at a lower resolution, which is as fine as rigid motion needs.
MOST_VOXELS = 200_000


def register_across_contrasts(
    reference: NDArray, volume: NDArray, grid: VoxelGrid, start: NDArray | None = None
) -> NDArray[np.float64]:
    """Rigid transform that maximises the mutual information [1]_ of a reference and a volume.

    Found by DIPY. Strain is not estimated, because mutual information would mistake fluid that fades with b for a
    smaller head.

    Parameters
    ----------
    reference, volume : ndarray, shape (x, y, z)
    grid : VoxelGrid
        Grid of both images; they are compared in its mask and a rim around it.
    start : ndarray, shape (4, 4), optional
        Start of the search, world to world.

    Returns
    -------
    ndarray, shape (4, 4)
        World to world, from a point of the reference to its tissue in the volume; ``start`` if an image is constant.

    References
    ----------
    .. [1] Mattes D, et al. IEEE Transactions on Medical Imaging 2003;22:120-128.
    """
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform2D, RigidTransform3D

    start = np.eye(4) if start is None else start
    if np.ptp(reference) == 0 or np.ptp(volume) == 0:
        return start
    bins = int(np.clip(np.sqrt(grid.rim.sum()) / 2, FEWEST_BINS, MOST_BINS))
    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=bins),
        level_iters=[50, 50, 20],
        sigmas=[3.0, 1.5, 1.0],  # never 0: interpolated noise would attract
        factors=[4, 2, 1],
        verbosity=0,
    )
    # In units of a head's radius, from its centre, a rotation and a translation are alike in size, without which the
    # search ends early.
    around = grid.rim.astype(np.int32)  # noise in air has no place in the histogram
    units = np.diag([1 / RADIUS] * 3 + [1.0])
    if not grid.thin:
        units[:3, 3] = -grid.centre / RADIUS
        factor = int(np.ceil(np.cbrt(grid.rim.sum() / MOST_VOXELS)))
        (reference, affine), (volume, _) = (coarser(image, grid.affine, factor) for image in (reference, volume))
        around = (coarser(around, grid.affine, factor)[0] > 0).astype(np.int32)
        placed = units @ affine
        found = registration.optimize(
            reference.astype(float),
            volume.astype(float),
            RigidTransform3D(),
            None,
            static_grid2world=placed,
            moving_grid2world=placed,
            static_mask=around,
            starting_affine=units @ start @ np.linalg.inv(units),
        ).affine
        result = np.linalg.inv(units) @ found @ units
    else:
        thick = [axis for axis in range(3) if axis not in grid.thin]
        middle = np.array([(reference.shape[axis] - 1) / 2 for axis in thick])
        plane = np.eye(3)
        plane[:2, :2] = np.diag(grid.voxel_sizes[thick] / RADIUS)
        plane[:2, 2] = -plane[:2, :2] @ middle
        matrix = np.linalg.inv(grid.affine) @ start @ grid.affine
        voxels = np.eye(3)
        voxels[:2, :2], voxels[:2, 2] = matrix[np.ix_(thick, thick)], matrix[thick, 3]
        found = registration.optimize(
            reference.mean(axis=grid.thin).astype(float),
            volume.mean(axis=grid.thin).astype(float),
            RigidTransform2D(),
            None,
            static_grid2world=plane,
            moving_grid2world=plane,
            static_mask=around.max(axis=grid.thin),
            starting_affine=plane @ voxels @ np.linalg.inv(plane),
        ).affine
        voxels = np.linalg.inv(plane) @ found @ plane
        matrix = np.eye(4)
        matrix[np.ix_(thick, thick)] = voxels[:2, :2]
        matrix[thick, 3] = voxels[:2, 2]
        result = grid.affine @ matrix @ np.linalg.inv(grid.affine)
    return np.asarray(result)
