"""Intervals that others are made of."""

import numpy as np
import pytest
from scipy.stats import nct

from bidsfit.statistics.interval import LARGE_STATISTIC, Interval, noncentrality_interval


@pytest.mark.parametrize("freedom", [1, 2, 13, 500])
@pytest.mark.parametrize("statistic", [-7.0, -0.3, 0.0, 2.0, 30.0])
def test_limits_leave_the_same_share_on_either_side(statistic, freedom):
    found = noncentrality_interval(statistic, freedom, 0.9)
    sign = 1 if statistic >= 0 else -1  # SciPy's distribution is better on that side
    for limit, share in ((found.lower, 0.95), (found.upper, 0.05)):
        below = nct.cdf(sign * statistic, freedom, sign * limit)
        assert (below if sign > 0 else 1 - below) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 3, 13])
@pytest.mark.parametrize("sign", [-1, 1])
def test_huge_statistics_go_on_where_others_end(freedom, sign):
    below, above = (
        np.array(noncentrality_interval(sign * LARGE_STATISTIC * factor, freedom)) / factor for factor in (0.99, 1.01)
    )
    assert below == pytest.approx(above, rel=0.01)
    assert above[1] < above[0] < above[2]
    assert np.isfinite(noncentrality_interval(1e12, freedom)).all()


def test_multiples():
    assert Interval(1.0, 0.5, 2.0).times(3) == (3.0, 1.5, 6.0)
