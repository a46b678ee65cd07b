"""Repeatability against the worked examples of those who defined it."""

import numpy as np
import pytest
from scipy import stats

from bidsfit.statistics.repeatability import mean_of_root, repeatability
from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.scatter import scatter_trend
from bidsfit.statistics.session_effect import session_effect

#: Bland and Altman, BMJ 1996;313:744: four peak expiratory flows (l/min) of 20 schoolchildren.
CHILDREN = np.array(
    [
        [190, 220, 200, 200],
        [220, 200, 240, 230],
        [260, 260, 240, 280],
        [210, 300, 280, 265],
        [270, 265, 280, 270],
        [280, 280, 270, 275],
        [260, 280, 280, 300],
        [275, 275, 275, 305],
        [280, 290, 300, 290],
        [320, 290, 300, 290],
        [300, 300, 310, 300],
        [270, 250, 330, 370],
        [320, 330, 330, 330],
        [335, 320, 335, 375],
        [350, 320, 340, 365],
        [360, 320, 350, 345],
        [330, 340, 380, 390],
        [335, 385, 360, 370],
        [400, 420, 425, 420],
        [430, 460, 480, 470],
    ],
    dtype=float,
)

#: Bland and Altman, Lancet 1986;i:307: two readings of 17 people with a large and with a mini peak flow meter (l/min).
LARGE_METER = np.array(
    [
        [494, 490],
        [395, 397],
        [516, 512],
        [434, 401],
        [476, 470],
        [557, 611],
        [413, 415],
        [442, 431],
        [650, 638],
        [433, 429],
        [417, 420],
        [656, 633],
        [267, 275],
        [478, 492],
        [178, 165],
        [423, 372],
        [427, 421],
    ],
    dtype=float,
)
MINI_METER = np.array(
    [
        [512, 525],
        [430, 415],
        [520, 508],
        [428, 444],
        [500, 500],
        [600, 625],
        [364, 460],
        [380, 390],
        [658, 642],
        [445, 432],
        [432, 420],
        [626, 605],
        [260, 227],
        [477, 467],
        [259, 268],
        [350, 370],
        [451, 443],
    ],
    dtype=float,
)


def simulate(n=14, k=2, seed=0, within=0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(10, 1, (n, 1)) + rng.normal(0, within, (n, k))


def test_schoolchildren_of_bland_and_altman():
    found = repeatability(CHILDREN)
    assert found.within_subject_sd.value**2 == pytest.approx(460.52, abs=0.005)
    assert found.within_subject_sd.value == pytest.approx(21.5, abs=0.05)
    assert found.repeatability_coefficient.value == pytest.approx(2.77 * 21.46, abs=0.1)
    trend = scatter_trend(RepeatedScans.of(CHILDREN))
    assert trend.tau == pytest.approx(0.16, abs=0.005)
    assert trend.p_value == pytest.approx(0.3, abs=0.05)
    assert (found.n_participants, found.n_scans, found.freedom) == (20, 80, 60)


@pytest.mark.parametrize(("readings", "coefficient"), [(LARGE_METER, 43.2), (MINI_METER, 56.4)])
def test_peak_flow_meters_of_bland_and_altman(readings, coefficient):
    """Their coefficient of repeatability is twice the standard deviation of the differences about zero."""
    assert 2 * np.sqrt(2) * repeatability(readings).within_subject_sd.value == pytest.approx(coefficient, abs=0.15)


def test_difference_between_the_meters_is_a_session_effect():
    """Mean difference -2.1 l/min, standard deviation 38.8, and its limits."""
    effect = session_effect(RepeatedScans.of(np.column_stack([MINI_METER[:, 0], LARGE_METER[:, 0]])))
    assert effect.difference.value == pytest.approx(-2.1, abs=0.05)
    half = stats.t.ppf(0.975, 16) * 38.8 / np.sqrt(17)
    assert effect.difference.upper - effect.difference.value == pytest.approx(half, rel=0.002)


def test_interval_of_the_standard_deviation_is_that_of_chi_square():
    """A textbook value: with 10 degrees of freedom 95 % limits are 0.699 and 1.755 times the estimate."""
    within = repeatability(simulate(n=10)).within_subject_sd
    assert within.lower / within.value == pytest.approx(0.699, abs=0.0005)
    assert within.upper / within.value == pytest.approx(1.755, abs=0.0005)
    wider = repeatability(simulate(n=10), level=0.99).within_subject_sd
    assert wider.lower < within.lower < within.upper < wider.upper


def test_repeatability_coefficient_is_its_multiple():
    found = repeatability(simulate())
    factor = 1.959964 * np.sqrt(2)
    assert np.array(found.repeatability_coefficient) == pytest.approx(factor * np.array(found.within_subject_sd))


@pytest.mark.parametrize(("freedom", "c4"), [(1, 0.797885), (4, 0.939986), (9, 0.972659), (24, 0.989640)])
def test_bias_of_the_root_is_that_of_quality_control_tables(freedom, c4):
    assert mean_of_root(freedom) == pytest.approx(c4, abs=1e-6)


def test_unbiased_standard_deviation_of_fourteen_pairs():
    found = repeatability(simulate(n=14))
    assert found.unbiased_within_subject_sd / found.within_subject_sd.value == pytest.approx(1 / 0.98230, abs=1e-4)


def test_coefficient_of_variation_is_the_root_mean_square_of_the_participants():
    """Two participants by hand: variances 2 and 8 about means 11 and 42."""
    found = repeatability([[10, 12], [40, 44]])
    assert found.within_subject_cv.value == pytest.approx(np.sqrt((2 / 11**2 + 8 / 42**2) / 2))
    assert found.within_subject_sd.value == pytest.approx(np.sqrt(5))
    rescaled = repeatability(CHILDREN / 60).within_subject_cv  # litres per second
    assert np.array(rescaled) == pytest.approx(np.array(repeatability(CHILDREN).within_subject_cv))


def test_no_coefficient_of_variation_without_a_positive_mean():
    found = repeatability([[-1.0, 1.0], [2.0, 3.0], [5.0, 4.0]])
    assert np.isnan(found.within_subject_cv).all()
    assert any("not positive" in warning for warning in found.warnings)
    assert found.within_subject_sd.value > 0


def test_unequal_numbers_of_scans_are_weighted_by_their_freedom():
    values = np.array([[1.0, 2.0, np.nan], [4.0, 5.0, 9.0], [7.0, np.nan, np.nan], [np.nan] * 3])
    found = repeatability(values)
    assert found.within_subject_sd.value**2 == pytest.approx((0.5 + 2 * 7) / 3)
    assert (found.n_participants, found.n_left_out, found.n_scans, found.freedom) == (2, 2, 5, 3)
    assert any("left out: 2" in warning for warning in found.warnings)


def test_missing_values_leave_the_others_as_they_are():
    values = simulate()
    without = repeatability(values)
    with_one_more = repeatability(np.r_[values, [[9.0, np.nan]]])
    assert with_one_more.within_subject_sd == without.within_subject_sd
    assert with_one_more.n_left_out == 1


def test_variance_between_participants_is_that_of_the_analysis_of_variance():
    values = simulate(n=2000, k=3, within=0.5)
    assert repeatability(values).between_subject_sd == pytest.approx(1.0, abs=0.05)
    noise = np.random.default_rng(3).normal(size=(6, 2))
    assert repeatability(noise - noise.mean(axis=1, keepdims=True)).between_subject_sd == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "one row per participant"),
        ([[1.0], [2.0]], "found 1 session"),
        ([[1.0, 2.0]], "found 1 of 1"),
        ([[1.0, 2.0], [3.0, np.nan]], "found 1 of 2"),
        ([[0.1, 0.1, 0.1], [3.0, 3.0, 3.0]], "at a bound"),
        ([[1.0, np.inf], [3.0, 2.0]], "infinite"),
    ],
)
def test_designs_that_do_not_identify_repeatability_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        repeatability(values)


@pytest.mark.parametrize("level", [0, 1, 95, np.nan])
def test_levels_that_are_none_are_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        repeatability(simulate(), level=level)


def test_few_pairs_are_warned_of():
    assert any("QIBA asks for 35" in warning for warning in repeatability(simulate()).warnings)
    assert not repeatability(simulate(n=40)).warnings


def test_large_coefficients_of_variation_are_warned_of():
    values = 5 * np.exp(0.5 * np.random.default_rng(4).normal(size=(40, 2)))
    assert any("too narrow" in warning for warning in repeatability(values).warnings)


def test_a_participant_who_repeats_exactly_has_no_variance():
    """The mean of three equal numbers need not be that number."""
    assert RepeatedScans.of([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]]).variances.tolist() == [0.0, 1.0]
