"""Prediction of volumes from other volumes: of the same shell, of the shell below, or of all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: From so many directions on, spherical harmonics of the fourth order, below of the second.
MANY_DIRECTIONS = 20

#: Weight of their Laplace-Beltrami penalty.
SMOOTHNESS = 0.006

#: A volume that weighs more than this in its own fit is predicted by the mean of the others.
LARGEST_LEVERAGE = 0.8

#: Signals are alike in log(b + this), s/mm^2, over this length; they differ between directions by this much of their
#: size where b is high, over this angle (radians), and by this much without a reason.
LOWEST_B, LENGTH, ANISOTROPY, ANGLE, NOISE = 50.0, 1.0, 0.5, 1.2, 0.17

#: Variance of the mean signal in these units: nothing is known of it.
MEAN = 100.0


def leave_one_out(b_values: NDArray, directions: NDArray | None = None) -> NDArray[np.float32]:
    """Leave-one-out weights that predict volumes of a shell from each other, shape (n, n).

    Row k predicts volume k; its own weight is 0 (1 if it is alone). The prediction is a least-squares fit of a
    constant, of b (s/mm^2) if it varies, and of even spherical harmonics if there are directions, shape (n, 3).
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


def held_out(b_values: NDArray, directions: NDArray | None = None) -> NDArray[np.float64]:
    """Leave-one-out weights that predict volumes of any b from each other, shape (n, n).

    Row k predicts volume k; its own weight is 0. The prediction is a Gaussian process whose covariance decreases with
    the distance in log b (s/mm^2) and, if there are ``directions`` (n, 3), in angle, as in eddy [1]_; leaving out each
    volume has a closed form [2]_.

    References
    ----------
    .. [1] Andersson JLR, Sotiropoulos SN. NeuroImage 2015;122:166-176.
    .. [2] Rasmussen CE, Williams CKI. Gaussian Processes for Machine Learning. MIT Press 2006, section 5.4.2.
    """
    b = np.asarray(b_values, dtype=float)
    near = _near(log_b(b))
    covariance = MEAN + near
    if directions is not None:
        lengths = np.linalg.norm(directions, axis=1)
        unit = directions / np.where(lengths > 0, lengths, 1)[:, None]
        apart = np.arccos(np.clip(np.abs(unit @ unit.T), 0, 1)) / ANGLE
        spherical = np.where(apart < 1, 1 - 1.5 * apart + 0.5 * apart**3, 0)
        size = np.where(lengths > 0, ANISOTROPY * (1 - np.exp(-b / 1000)), 0)
        covariance += near * spherical * np.outer(size, size)
    return _each_held_out(covariance)


def held_out_along(places: NDArray) -> NDArray[np.float64]:
    """Like `held_out`, for values at places on a line, shape (n,), in units of the correlation length."""
    return _each_held_out(MEAN + _near(places))


def log_b(b_values: NDArray) -> NDArray[np.float64]:
    """Position of b-values (s/mm^2) on a logarithmic axis, in units of `LENGTH`."""
    return np.asarray(np.log(np.maximum(b_values, 0) + LOWEST_B) / LENGTH)


def _near(places: NDArray) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * (places[:, None] - places) ** 2))


def _each_held_out(covariance: NDArray) -> NDArray[np.float64]:
    precision = np.linalg.inv(covariance + NOISE**2 * np.eye(len(covariance)))
    weights = -precision / np.diag(precision)[:, None]
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


class Extrapolation:
    """Prediction of the volumes of a shell along their directions, from the shell below.

    Parameters
    ----------
    unweighted : ndarray, shape (x, y, z)
    aligned : ndarray, shape (n, x, y, z)
        Volumes of the shell below, in the frame of the unweighted image.
    b_value : float
        b-value of the shell below, s/mm^2.
    directions : ndarray, shape (n, 3)
    """

    def __init__(self, unweighted: NDArray, aligned: NDArray, b_value: float, directions: NDArray) -> None:
        self.unweighted = np.maximum(unweighted, 1e-6 * unweighted.max())
        self.b_value = b_value
        self.n = len(directions)
        harmonics, smoothness = _harmonics(directions, self.n)
        design = np.column_stack([np.ones(self.n), harmonics])
        fit = np.linalg.solve(design.T @ design + np.diag([0.0, *smoothness]), design.T)
        self.coefficients = np.tensordot(fit.astype(np.float32), aligned, 1)

    def __call__(self, b_value: float, directions: NDArray) -> NDArray[np.float32]:
        """Volumes (m, x, y, z) along m directions, mono-exponential in b."""
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
