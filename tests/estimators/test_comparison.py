from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

from bidsfit.estimators.comparison import correlations, difference, precision, rank_correlation

RNG = np.random.default_rng(5)
X = RNG.normal(size=200)
NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("sd", "crb", "expected"),
    [
        ([1, 2, 3, NAN], [2, 4, INF, NAN], (2, 4, 1 / 3)),
        (None, [1, INF, INF], (NAN, INF, 2 / 3)),  # half of the voxels or more are not determined
        ([1, 1], [NAN, NAN], (1, NAN, NAN)),
        (None, None, (NAN, NAN, NAN)),
    ],
)
def test_precision(sd: list[float] | None, crb: list[float] | None, expected: tuple[float, ...]) -> None:
    arrays = [None if values is None else np.array(values, dtype=float) for values in (sd, crb)]
    np.testing.assert_allclose(list(vars(precision(*arrays)).values()), [*expected, np.nan])


def test_difference_is_over_the_voxels_that_both_have() -> None:
    values, reference = np.array([2, 4, NAN, 1, 9.0]), np.array([1, 5, 3, NAN, 6.0])
    found = difference(values, reference, np.array([0.5, 0.5, 9, 9, INF]))
    assert (found.median, found.median_absolute, found.floor) == (1.0, 1.0, 0.5)
    assert np.isnan(found.correlation)  # three voxels
    assert found.exceeds_floor


@pytest.mark.parametrize("crb", [None, np.full(200, INF), np.full(200, NAN)])
def test_no_difference_exceeds_a_floor_that_is_not_known_or_infinite(crb: np.ndarray | None) -> None:
    assert not difference(X + 100, X, crb).exceeds_floor


def test_a_difference_far_below_the_floor_is_negligible() -> None:
    assert difference(X + 1e-4, X, np.full(200, 0.1)).negligible
    assert not difference(X + 0.01, X, np.full(200, 0.1)).negligible
    assert not difference(X + 100, X, np.full(200, INF)).negligible


def test_nothing_in_common() -> None:
    found = difference(np.full(200, NAN), X, np.ones(200))
    assert np.isnan([found.median, found.median_absolute, found.correlation, found.floor]).all()
    assert not found.exceeds_floor


def test_rank_correlation_is_spearmans() -> None:
    y = np.round(X + RNG.normal(size=X.size), 1)  # ties
    y[:5] = NAN
    assert rank_correlation(X, y) == pytest.approx(spearmanr(X[5:], y[5:]).statistic)
    assert rank_correlation(X, np.exp(X)) == pytest.approx(1)
    assert rank_correlation(X, -X) == pytest.approx(-1)


def test_what_is_constant_has_no_correlation_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(rank_correlation(X, np.ones_like(X)))
        assert np.isnan(rank_correlation(X[:3], X[:3]))


def test_every_pair_once() -> None:
    found = correlations({"a": X, "b": -X, "c": X})
    assert found == {("a", "b"): pytest.approx(-1), ("a", "c"): pytest.approx(1), ("b", "c"): pytest.approx(-1)}


def test_a_bias_has_a_size() -> None:
    assert precision(None, None, np.array([-0.3, 0.1, 0.2, np.nan])).bias == pytest.approx(0.2)
