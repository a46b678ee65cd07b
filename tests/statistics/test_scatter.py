"""Scatter that grows with the mean is found, and said in words."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.scatter import scatter_trend

LEVELS = np.linspace(1, 10, 30)[:, None]
NOISE = np.random.default_rng(5).normal(size=(30, 2))


def trend(values):
    return scatter_trend(RepeatedScans.of(values))


def test_pairs_are_the_test_of_difference_against_mean():
    values = LEVELS + NOISE
    expected = kendalltau(np.abs(np.diff(values)[:, 0]), values.mean(axis=1))
    assert (trend(values).tau, trend(values).p_value) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("scale", "words"),
    [(1.0, "No sign"), (LEVELS, "grows with the mean"), (1 / LEVELS, "falls with the mean")],
)
def test_words(scale, words):
    assert words in trend(LEVELS + 0.2 * scale * NOISE).words


@pytest.mark.parametrize(
    "values",
    [[[1.0, 2.0], [3.0, 5.0], [2.0, 9.0], [4.0, 9.0]], np.arange(6.0)[:, None] + [[0.0, 0.5]]],
    ids=["four participants", "the same scatter in everyone"],
)
def test_what_tells_nothing(values):
    assert np.isnan(trend(values).p_value)
    assert "cannot be told" in trend(values).words
