"""What a volume looks like, as the other volumes of its shell tell, and those of the shell below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: From so many directions on, spherical harmonics of the fourth order, below of the second.
MANY_DIRECTIONS = 20

#: Weight of their Laplace-Beltrami penalty.
SMOOTHNESS = 0.006

#: A volume that weighs more than this in its own fit is predicted by the mean of the others.
LARGEST_LEVERAGE = 0.8


def leave_one_out(b_values: NDArray, directions: NDArray | None = None) -> NDArray[np.float32]:
    """Weights of volumes in the sum that predicts each of them from all the others.

    A least-squares fit over the volumes of a constant, of b where it varies, and of even spherical harmonics where
    there are directions; none sees its own noise.

    Parameters
    ----------
    b_values : ndarray, shape (n,)
        s/mm^2.
    directions : ndarray, shape (n, 3), optional

    Returns
    -------
    ndarray, shape (n, n)
        Row k predicts volume k; its own weight is 0 (1 where it is alone).
    """
    n = b_values.size
    if n == 1:
        return np.ones((1, 1), dtype=np.float32)
    columns, penalties = [np.ones(n)], [0.0]
    if n >= 4 and np.ptp(b_values) > 0.2 * max(float(b_values.max()), 1.0):  # more than the jitter of a shell
        columns.append((b_values - b_values.mean()) / np.ptp(b_values))
        penalties.append(1e-3 * n)
    design, penalty = np.column_stack(columns), np.diag(penalties)
    if directions is not None:
        harmonics, smoothness = _harmonics(directions, n)
        design = np.column_stack([design, harmonics])
        penalty = np.diag([*penalties, *smoothness])
    hat = design @ np.linalg.solve(design.T @ design + penalty, design.T)
    own = np.diag(hat)
    weights = hat / np.maximum(1 - own, 1 - LARGEST_LEVERAGE)[:, None]
    np.fill_diagonal(weights, 0.0)
    others = (1 - np.eye(n)) / (n - 1)
    return np.where((own < LARGEST_LEVERAGE)[:, None], weights, others).astype(np.float32)


class Extrapolation:
    """What volumes of a higher shell look like along their directions, from the shell below.

    Parameters
    ----------
    unweighted : ndarray, shape (x, y, z)
    aligned : ndarray, shape (x, y, z, n)
        The shell below, in the frame of the unweighted image.
    b_value : float
        Of the shell below, s/mm^2.
    directions : ndarray, shape (n, 3)
    """

    def __init__(self, unweighted: NDArray, aligned: NDArray, b_value: float, directions: NDArray) -> None:
        self.unweighted = np.maximum(unweighted, 1e-6 * unweighted.max())
        self.b_value = b_value
        self.n = len(directions)
        harmonics, smoothness = _harmonics(directions, self.n)
        design = np.column_stack([np.ones(self.n), harmonics])
        fit = np.linalg.solve(design.T @ design + np.diag([0.0, *smoothness]), design.T)
        self.coefficients = np.tensordot(fit.astype(np.float32), aligned, (1, 3))

    def __call__(self, b_value: float, directions: NDArray) -> NDArray[np.float32]:
        """Volumes, shape (m, x, y, z), mono-exponential in b along each of m directions."""
        rows = np.column_stack([np.ones(len(directions)), _harmonics(directions, self.n)[0]])
        below = np.tensordot(rows.astype(np.float32), self.coefficients, 1)
        ratio = np.clip(below / self.unweighted, 0.02, 1.0)
        return np.asarray(self.unweighted * ratio ** np.float32(b_value / self.b_value), dtype=np.float32)


def _harmonics(directions: NDArray, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Even spherical harmonics (without the constant) that n directions support, and their smoothness penalties."""
    from dipy.reconst.shm import real_sh_descoteaux_from_index, sph_harm_ind_list

    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = (directions / np.where(lengths > 0, lengths, 1)).T
    order, degree = sph_harm_ind_list(4 if n >= MANY_DIRECTIONS else 2)
    values = real_sh_descoteaux_from_index(
        order, degree, np.arccos(np.clip(z, -1, 1))[:, None], np.arctan2(y, x)[:, None], legacy=False
    )
    return values[:, 1:], SMOOTHNESS * (degree * (degree + 1.0))[1:] ** 2
