"""Organs that change their shape between volumes: deformable registration to the mean image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from bidsfit.parallel import in_processes
from bidsfit.preprocessing.motion import estimate_motion
from bidsfit.preprocessing.registration import enlargement
from bidsfit.preprocessing.resampling import Displacement, sample

Method = Literal["elastix", "SyN"]

#: With fewer slices each slice is deformed by itself: a pyramid needs some to halve.
FEWEST_SLICES = 12

#: A B-spline has one control point every so many mm (elastix); lengths in mm are those of what is enlarged to a head's.
GRID_SPACING = 24.0

#: Smoothing of the images before they are compared, voxels: noise must not steer the deformation.
SMOOTHING = 1.5

#: Iterations of the symmetric diffeomorphic registration, from coarse to fine.
ITERATIONS = (25, 15, 5)

#: Standard deviation of the Gaussian that smooths each step of that registration, voxels.
STIFFNESS = 3.0

#: A deformation that goes farther (mm) was not one of tissue.
LARGEST_DISPLACEMENT = 40.0


class Deformed(NamedTuple):
    """Volumes in the shape of their mean.

    Attributes
    ----------
    data : ndarray of float32, shape (x, y, z, n)
        0 where a volume has no data.
    covered : ndarray of bool, shape (x, y, z)
        Voxels that every volume has data for.
    displacement : ndarray, shape (n, 2)
        Mean and largest displacement over the mask, affine part included, mm.
    transforms : ndarray, shape (n, 4, 4)
        The affine part, world to world, from the reference to the volume.
    replaced : ndarray of bool, shape (n,)
        Volumes whose deformation was folded or absurd, and that were moved by the affine part alone.
    method : {"elastix", "SyN"}
    """

    data: NDArray[np.float32]
    covered: NDArray[np.bool_]
    displacement: NDArray[np.float64]
    transforms: NDArray[np.float64]
    replaced: NDArray[np.bool_]
    method: Method


def available_method() -> Method:
    """What there is: elastix where the package itk-elastix is installed, DIPY's SyN otherwise."""
    return "elastix" if find_spec("itk") is not None and find_spec("itk.itkElastixRegistrationMethodPython") else "SyN"


def deform_to_mean(
    data: NDArray,
    affine: ArrayLike,
    b_values: ArrayLike,
    mask: NDArray | None = None,
    *,
    method: Method | None = None,
    shift: NDArray | None = None,
    axis: int | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Deformed:
    """Deform every volume to the mean of all, from a rigid start, in one interpolation.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    b_values : array_like, shape (n,)
        s/mm^2, for the rigid start.
    mask : ndarray of bool, shape (x, y, z), optional
        Where displacements are summarised, and what the rigid start looks at.
    method : {"elastix", "SyN"}, optional
        B-splines and mutual information [1]_, or symmetric diffeomorphic registration and local cross-correlation
        [2]_; what is installed by default.
    shift : ndarray, shape (x, y, z), optional
        Displacement by susceptibility along ``axis``, voxels.
    axis : int, optional
        Axis of the phase encoding.
    threads : int
        Processes.
    progress : callable, optional
        Called with the fraction that is done.

    Returns
    -------
    Deformed

    Notes
    -----
    Images of fewer than `FEWEST_SLICES` slices are deformed slice by slice. The signal is not scaled by the volume
    change: tissue that is compressed does not shine brighter. Gradient directions are turned by the affine part.

    References
    ----------
    .. [1] Klein S, et al. IEEE Transactions on Medical Imaging 2010;29:196-205.
    .. [2] Avants BB, et al. Medical Image Analysis 2008;12:26-41.
    """
    affine = np.asarray(affine, dtype=float)
    chosen: Method = available_method() if method is None else method
    if chosen not in ("elastix", "SyN"):
        raise ValueError(f"Unknown deformable registration {chosen!r}; valid: elastix, SyN.")
    first_half = None if progress is None else (lambda done: progress(0.2 * done))
    motion = estimate_motion(
        data, affine, b_values, mask, kind="rigid", shift=shift, axis=axis, threads=threads, progress=first_half
    )
    n = data.shape[3]
    shape = data.shape[:3]
    inside = np.ones(shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    sizes = enlargement(inside, affine) * np.sqrt((affine[:3, :3] ** 2).sum(0))
    displacement = Displacement(shape, shift, axis)
    identity = np.indices(shape, dtype=float)
    matrices = [np.linalg.inv(affine) @ transform @ affine for transform in motion.transforms]

    def aligned(k: int) -> NDArray[np.float32]:
        if displacement.shift is not None:
            return sample(data[..., k], _move(matrices[k], identity), displacement)[0]
        values = np.nan_to_num(data[..., k]).astype(np.float32)
        return np.asarray(affine_transform(values, matrices[k][:3, :3], matrices[k][:3, 3], order=1, mode="nearest"))

    mean = np.zeros(shape, dtype=np.float32)
    for k in range(n):
        mean += aligned(k) / n

    def jobs() -> Iterator[tuple[NDArray, NDArray, NDArray, Method]]:
        for k in range(n):
            yield mean, aligned(k), sizes, chosen

    result = np.empty(data.shape, dtype=np.float32)
    everywhere = np.ones(shape, dtype=bool)
    summary = np.zeros((n, 2))
    replaced = np.zeros(n, dtype=bool)
    second_half = None if progress is None else (lambda done: progress(0.2 + 0.8 * done))
    for k, field in enumerate(in_processes(deformation, jobs(), n, threads, second_half)):
        if not _is_plausible(field, sizes, inside):
            replaced[k] = True
            field = np.zeros_like(field)
        places = _move(matrices[k], identity + field)
        distance = np.sqrt(((affine[:3, :3] @ (places - identity).reshape(3, -1)) ** 2).sum(0)).reshape(shape)[inside]
        summary[k] = distance.mean(), distance.max()
        result[..., k], covered = sample(data[..., k], places, displacement)
        everywhere &= covered
    return Deformed(result, everywhere, summary, motion.transforms, replaced, chosen)


def deformation(static: NDArray, moving: NDArray, sizes: NDArray, method: Method) -> NDArray[np.float64]:
    """Displacement from each voxel of an image to where its tissue lies in another, voxels, shape (3, x, y, z).

    Parameters
    ----------
    static, moving : ndarray, shape (x, y, z)
    sizes : ndarray, shape (3,)
        Of the voxels, mm.
    method : {"elastix", "SyN"}
    """
    register = _elastix if method == "elastix" else _symmetric_diffeomorphic
    still = np.zeros((3, *static.shape))
    if np.ptp(static) == 0 or np.ptp(moving) == 0:
        return still
    if static.shape[2] >= FEWEST_SLICES:
        return register(_prepare(static), _prepare(moving), sizes)
    for z in range(static.shape[2]):
        if np.ptp(static[:, :, z]) > 0 and np.ptp(moving[:, :, z]) > 0:
            still[:2, :, :, z] = register(_prepare(static[:, :, z]), _prepare(moving[:, :, z]), sizes[:2])
    return still


def _prepare(image: NDArray) -> NDArray[np.float32]:
    smooth = gaussian_filter(image.astype(np.float32), SMOOTHING, mode="nearest")
    return np.asarray(smooth / max(float(np.percentile(smooth, 99)), 1e-12), dtype=np.float32)


def _symmetric_diffeomorphic(static: NDArray, moving: NDArray, sizes: NDArray) -> NDArray[np.float64]:
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    dimensions = static.ndim
    grid = np.diag([*sizes, 1.0])
    # Every level of the pyramid must be larger than the window of the local correlation.
    radius = 4 if min(static.shape) >= 40 else 2
    levels = 1 + sum(min(static.shape) // 2**level > 2 * radius + 2 for level in (1, 2))
    registration = SymmetricDiffeomorphicRegistration(
        CCMetric(dimensions, sigma_diff=STIFFNESS, radius=radius), level_iters=list(ITERATIONS[-levels:])
    )
    registration.verbosity = 0
    mapping = registration.optimize(static, moving, static_grid2world=grid, moving_grid2world=grid)
    # The deformation of an image of the coordinates is the deformation; a frame keeps it defined at the edge.
    identity = np.indices(static.shape, dtype=float)
    there = np.array([mapping.transform((line + 1).astype(np.float32)) - 1 for line in identity])
    outside = (there <= -0.999).any(0)
    return np.where(outside, 0.0, there - identity)


def _elastix(static: NDArray, moving: NDArray, sizes: NDArray) -> NDArray[np.float64]:
    import itk

    def image(values: NDArray) -> itk.Image:
        result = itk.image_from_array(np.ascontiguousarray(values.T, dtype=np.float32))  # ITK counts axes backwards
        result.SetSpacing([float(size) for size in sizes])
        return result

    parameters = itk.ParameterObject.New()
    settings = itk.ParameterObject.New().GetDefaultParameterMap("bspline", 3, GRID_SPACING)
    settings["RandomSeed"] = ["1"]
    settings["MaximumNumberOfIterations"] = ["300"]
    settings["NumberOfSpatialSamples"] = ["3000"]
    settings["RequiredRatioOfValidSamples"] = ["0.05"]
    settings["WriteResultImage"] = ["false"]
    parameters.AddParameterMap(settings)
    fixed, floating = image(static), image(moving)
    _, found = itk.elastix_registration_method(
        fixed, floating, parameter_object=parameters, log_to_console=False, number_of_threads=1
    )
    with TemporaryDirectory() as folder, chdir(folder):  # transformix leaves a copy of the field where it runs
        field = np.asarray(itk.transformix_deformation_field(floating, found))  # (..., y, x, component), mm
    displacement = np.moveaxis(field, -1, 0).transpose(0, *range(static.ndim, 0, -1))
    return displacement / sizes.reshape(-1, *[1] * static.ndim)


def _move(matrix: NDArray, places: NDArray) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,jabc->iabc", matrix[:3, :3], places) + matrix[:3, 3, None, None, None])


def _is_plausible(field: NDArray, sizes: NDArray, inside: NDArray) -> bool:
    """Finite, not too far, and folded almost nowhere inside the mask."""
    if not np.isfinite(field).all():
        return False
    distance = np.sqrt(((field * sizes[:, None, None, None]) ** 2).sum(0))
    if distance[inside].max(initial=0) > LARGEST_DISPLACEMENT:
        return False
    axes = [axis for axis in range(3) if field.shape[axis + 1] > 1]
    slopes = np.zeros((*field.shape[1:], 3, 3)) + np.eye(3)
    for i in axes:
        for j in axes:
            slopes[..., i, j] += np.gradient(field[i], axis=j)
    return bool((np.linalg.det(slopes[inside]) <= 0).mean() < 0.01)
