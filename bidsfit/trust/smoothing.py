"""Smooth functions of several variables through scattered noisy values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Distance over which functions of coordinates from 0 to 1 vary.
WIDTH = 0.7
#: Penalty of the coefficients of kernels, as a share of the number of points.
PENALTY = 1e-9
#: Points that are evaluated at a time: their kernels fit into the cache of a core.
CHUNK = 512


@dataclass(frozen=True)
class Smoother:
    """Functions of d coordinates: a quadratic polynomial and Matérn kernels (5/2) around some of the points.

    Least squares gives the coefficients, as in Gaussian process regression with inducing points. A value between the
    points is a weighted mean of many, so that independent noise of theirs averages out.

    Attributes
    ----------
    centres : ndarray, shape (n_centres, d)
    coefficients : ndarray, shape (n_terms, n_functions)
    """

    centres: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    @classmethod
    def fit(cls, points: NDArray[np.float64], values: NDArray[np.float64], centres: NDArray[np.float64]) -> Smoother:
        """Fit functions to values (n, n_functions) at points (n, d) of the unit cube."""
        n_terms = len(centres) + _n_monomials(points.shape[1])
        square, product = np.zeros((n_terms, n_terms)), np.zeros((n_terms, values.shape[1]))
        for start in range(0, len(points), CHUNK):
            terms = _terms(points[start : start + CHUNK], centres)
            square += terms.T @ terms
            product += terms.T @ values[start : start + CHUNK]
        penalised = np.arange(len(centres))
        square[penalised, penalised] += PENALTY * len(points)
        return cls(centres, np.asarray(np.linalg.lstsq(square, product, rcond=None)[0], dtype=np.float64))

    def __call__(self, points: NDArray[np.float64], threads: int = 1) -> NDArray[np.float64]:
        """Values (n, n_functions) at points (n, d)."""
        found = np.empty((len(points), self.coefficients.shape[1]))

        def evaluate(start: int) -> None:
            rows = slice(start, start + CHUNK)
            found[rows] = _terms(points[rows], self.centres) @ self.coefficients

        with ThreadPoolExecutor(max(threads, 1)) as pool:
            list(pool.map(evaluate, range(0, len(points), CHUNK)))
        return found

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Its content, for a file."""
        return {"centres": self.centres, "coefficients": self.coefficients}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float64]], dimensions: Sequence[int], n_functions: int) -> Smoother:
        """The smoother of these arrays; raise `ValueError` if they are none of n functions of so many coordinates."""
        centres, coefficients = arrays["centres"], arrays["coefficients"]
        d = centres.shape[-1]
        fits = centres.ndim == 2 and coefficients.shape == (len(centres) + _n_monomials(d), n_functions)
        if not fits or d not in dimensions:
            raise ValueError(f"arrays of the shapes {centres.shape} and {coefficients.shape} are no smooth functions")
        return cls(centres, coefficients)


def _n_monomials(d: int) -> int:
    """Number of monomials of d coordinates up to the second degree."""
    return (d + 1) * (d + 2) // 2


def _terms(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kernels and monomials at points, shape (n, n_centres + n_monomials)."""
    d, n = points.shape[1], len(centres)
    found = np.empty((len(points), n + _n_monomials(d)))
    here, there = points * (np.sqrt(5) / WIDTH), centres * (np.sqrt(5) / WIDTH)
    row = np.column_stack([-2 * here, (here**2).sum(axis=1), np.ones(len(here))])
    value = row @ np.column_stack([there, np.ones(n), (there**2).sum(axis=1)]).T  # squared distances
    np.maximum(value, 0.0, out=value)
    r = np.sqrt(value)
    value /= 3
    value += r
    value += 1  # 1 + r + r^2 / 3, all of this in place: time goes into memory, not into numbers
    np.negative(r, out=r)
    np.multiply(value, np.exp(r, out=r), out=found[:, :n])
    extended = np.column_stack([np.ones(len(points)), 2 * points - 1])
    first, second = np.triu_indices(d + 1)
    found[:, n:] = extended[:, first] * extended[:, second]
    return found
