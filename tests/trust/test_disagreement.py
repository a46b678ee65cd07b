"""Disagreement of an estimate with the most likely one: known answers, and which estimator is the reference."""

import numpy as np
import pytest

from bidsfit.trust.disagreement import disagreement, reference_of


def test_it_counts_bounds_of_the_reference():
    found = disagreement(np.array([1.2, 0.8, np.nan, 3.0]), np.ones(4), np.array([0.1, 0.05, 0.1, np.inf]))
    np.testing.assert_allclose(found, [2, 4, np.nan, 0])


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["lsq", "bayes", "mle"], "mle"), (["bayes", "lsq"], "lsq"), (["bayes", "net-uniform"], None), (["mle"], None)],
)
def test_the_reference_is_the_most_likely_estimate(names, expected):
    assert reference_of(names) == expected
