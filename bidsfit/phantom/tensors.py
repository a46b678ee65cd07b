"""Tensors of tissue from the numbers by which tables of tissues describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bidsfit.models import dki, dti

Arrays = Mapping[str, NDArray[np.float64]]

#: Compartments of `kurtosis_tensors`.
PARTS = ("fibre", "around")


def diffusion_tensors(table: Arrays) -> dict[str, NDArray[np.float64]]:
    """Elements of tensors with one axis from ``MD`` (um^2/ms), ``FA`` and the angles of the axis; others stay.

    The diffusivity across the axis is the same all around it: MD (1 - FA / sqrt(3 - 2 FA^2)), and that along it follows
    from the mean.
    """
    made = {name: values for name, values in table.items() if name not in ("MD", "FA")}
    axis, fa = _axis(made), table["FA"]
    across = table["MD"] * (1 - fa / np.sqrt(3 - 2 * fa**2))
    matrix = _around(axis, 3 * table["MD"] - 2 * across, across)
    places = [("xyz".index(name[1]), "xyz".index(name[2])) for name in dti.ELEMENTS]
    return made | {name: matrix[..., i, j] for name, (i, j) in zip(dti.ELEMENTS, places, strict=True)}


def kurtosis_tensors(table: Arrays) -> dict[str, NDArray[np.float64]]:
    """Elements of diffusion and kurtosis tensors of two compartments with one axis; others stay.

    ``share`` is that of the fibres, whose diffusivities are ``fibre_axial`` and ``fibre_radial`` (um^2/ms); those of
    the rest are ``around_axial`` and ``around_radial``.
    """
    made = dict(table)
    axis, share = _axis(made), made.pop("share")
    fibres, around = (_around(axis, made.pop(f"{part}_axial"), made.pop(f"{part}_radial")) for part in PARTS)
    elements = dki.of_compartments(share.ravel(), fibres.reshape(-1, 3, 3), around.reshape(-1, 3, 3))
    names = (*dti.ELEMENTS, *dki.ELEMENTS)
    return made | {name: column.reshape(share.shape) for name, column in zip(names, elements.T, strict=True)}


def _axis(table: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Unit vectors (..., 3) of the angles of a table, which are taken out of it."""
    polar, azimuth = table.pop("direction_polar"), table.pop("direction_azimuth")
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=-1)


def _around(axis: NDArray[np.float64], along: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tensors (..., 3, 3) with these diffusivities along and across axes (..., 3)."""
    outer = axis[..., :, None] * axis[..., None, :]
    return across[..., None, None] * np.eye(3) + (along - across)[..., None, None] * outer


#: By the name that a recipe gives.
MADE: Mapping[str, Callable[[Arrays], dict[str, NDArray[np.float64]]]] = {
    "diffusion": diffusion_tensors,
    "kurtosis": kurtosis_tensors,
}
