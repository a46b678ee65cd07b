r"""Means over the directions of a shell: weights that make them even, and the error that remains.

The signals of a shell are taken for values of a random function on the sphere, that of one fibre of unknown orientation
(cylinders of zero radius). Its covariance follows from Legendre polynomials,

.. math:: K_{ij} = \sum_{l = 2, 4, ...} \frac{s_l^2}{2l + 1} P_l(g_i \cdot g_j),

with the coefficients s_l of the signal along the angle to the fibre. From K follow the weights w of the mean with the
smallest expected error, and this error (Bayesian quadrature [1]_): :math:`w^T K w` is what the directions add to the
variance of the noise.

References
----------
.. [1] O'Hagan A. Journal of Statistical Planning and Inference 1991;29:245-260.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

#: Highest order of the signal of the fibre: above it hardly anything is left up to b = 10,000 s/mm^2.
HIGHEST_ORDER = 16
#: Diffusivity along the fibre, um^2/ms: as high as in tissue, so that its signal is as sharp as any.
FIBRE_DIFFUSIVITY = 2.0
#: Ratio of the fibre's signal at b = 0 to the noise for which the weights are best: usual for diffusion images.
WEIGHTED_SNR = 30.0
#: Weights lose at most this fraction of the measurements to noise...
LARGEST_LOSS = 0.5
#: ...and are taken only where they lower the expected squared error by more than this fraction.
LEAST_GAIN = 0.1
#: An error of the mean of one fibre below this fraction of S0 is not followed: at a ratio of signal to noise of 50, a
#: mean of a hundred measurements has as much noise.
SMALL_ERROR = 0.002
#: Nodes of the integrals over the angle to the fibre.
NODES = 64


@dataclass(frozen=True)
class Sampling:
    """Weighted mean over the directions of a shell.

    Attributes
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors; opposite ones count as one.
    counts : ndarray, shape (n,)
        Number of measurements along each.
    covariance : ndarray, shape (n, n)
        That of the signals of one fibre over its orientation; its signal at b = 0 is 1.
    weights : ndarray, shape (n,)
        Weights of the mean, with a sum of 1; those of the plain mean where it is about as good.
    """

    directions: NDArray[np.float64]
    counts: NDArray[np.float64]
    covariance: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def is_plain(self) -> bool:
        """Whether all measurements count alike."""
        return bool(np.allclose(self.weights, self.counts / self.counts.sum()))

    @property
    def n_effective(self) -> float:
        """Number of measurements whose plain mean has as much noise."""
        return effective_number(self.weights, self.counts)

    @property
    def error(self) -> float:
        """Expected error (root mean square) of the mean over the directions of one fibre's signal, relative to S0."""
        return float(np.sqrt(max(float(self.weights @ self.covariance @ self.weights), 0.0)))

    @cached_property
    def share(self) -> float:
        """Expected squared error of the mean as a fraction of the variance of the signal between the directions.

        0 for an error that is too small to be followed.
        """
        if self.error < SMALL_ERROR:
            return 0.0
        return self.error**2 / self.between if self.between > 0 else 0.0

    @cached_property
    def between(self) -> float:
        """Expected variance of the signal of one fibre between the directions; 0 for a single direction."""
        return float(np.sum(_scatter_matrix(self.counts) * self.covariance))

    def unevenness(self, order: int = 2) -> float:
        """That of the weighted directions (see `unevenness`)."""
        return unevenness(self.directions, self.weights, order)


def unevenness(directions: ArrayLike, weights: ArrayLike | None = None, order: int = 2) -> float:
    r"""How far a weighted mean over directions is from a mean over the sphere.

    The root of :math:`\sum_{ij} w_i w_j P_l(g_i \cdot g_j)`, which is, up to a constant, the power of the weights in
    the spherical harmonics of order l. For a signal that varies as one such function, it is the error of the mean
    relative to the signal's standard deviation over the sphere.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        Of any length above 0; opposite ones count as one.
    weights : array_like, shape (n,), optional
        By default all directions count alike.
    order : int
        Even. Diffusion signals vary mostly with order 2, and at high b-values with order 4.

    Returns
    -------
    float
        From 0 (perfectly even) to 1 (a single direction) for weights that are not negative.

    Examples
    --------
    >>> round(unevenness([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), 6)  # of order 2, three axes are even
    0.0
    >>> unevenness([[1, 0, 0], [0, 1, 0]])
    0.5
    """
    vectors = np.asarray(directions, dtype=float)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    w = np.ones(len(vectors)) if weights is None else np.asarray(weights, dtype=float)
    w = w / w.sum()
    power = w @ legendre.legval(vectors @ vectors.T, np.eye(order + 1)[order]) @ w
    return float(np.sqrt(max(float(power), 0.0)))


def sample(directions: NDArray[np.float64], counts: NDArray[np.float64], b: float) -> Sampling:
    """The mean over directions with the smallest expected error.

    Parameters
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors.
    counts : ndarray, shape (n,)
        Number of measurements along each.
    b : float
        b-value, ms/um^2.
    """
    covariance = fibre_covariance(directions, b)
    plain, snr = counts / counts.sum(), WEIGHTED_SNR
    weights = _best_weights(covariance, counts, snr)
    while effective_number(weights, counts) < (1 - LARGEST_LOSS) * counts.sum():
        snr /= 1.25
        weights = _best_weights(covariance, counts, snr)

    def expected(w: NDArray[np.float64]) -> float:
        return float(snr**2 * w @ covariance @ w + 1 / effective_number(w, counts))

    worth = expected(weights) < (1 - LEAST_GAIN) * expected(plain)
    return Sampling(directions, counts, covariance, weights if worth else plain)


def fibre_covariance(directions: NDArray[np.float64], b: float) -> NDArray[np.float64]:
    """Covariance (n, n) of the signals of one fibre along unit vectors (n, 3), over its orientation; S0 is 1."""
    nodes, weights = legendre.leggauss(NODES)
    height = (nodes + 1) / 2  # cosine of the angle to the fibre, from 0 to 1
    signal = np.exp(-b * FIBRE_DIFFUSIVITY * height**2)
    orders = np.arange(HIGHEST_ORDER + 1)
    moments = (weights / 2 * signal) @ legendre.legvander(height, HIGHEST_ORDER)  # s_l / (2 l + 1)
    power = np.where((orders > 0) & (orders % 2 == 0), (2 * orders + 1) * moments**2, 0.0)
    return np.asarray(legendre.legval(directions @ directions.T, power))


def effective_number(weights: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Number of measurements whose plain mean has the noise of this weighted mean."""
    return float(1 / np.sum(weights**2 / counts))


def _best_weights(covariance: NDArray, counts: NDArray, snr: float) -> NDArray[np.float64]:
    weights = np.linalg.solve(snr**2 * covariance + np.diag(1 / counts), np.ones(len(counts)))
    return np.asarray(weights / weights.sum())


def _scatter_matrix(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix Q for which y^T Q y is the variance of single measurements, from means y of so many of them."""
    matrix = np.diag(counts) - np.outer(counts, counts) / counts.sum()
    return np.asarray(matrix / max(len(counts) - 1, 1))
