"""Systematic differences between sessions, beside the tests of SciPy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM

from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.session_effect import session_effect


def simulate(n, k, shift=0.2):
    rng = np.random.default_rng(0)
    return rng.normal(10, 1, (n, 1)) + rng.normal(0, 0.3, (n, k)) + np.linspace(0, shift, k)


def test_two_sessions_are_the_paired_t_test():
    values = simulate(14, 2)
    effect = session_effect(RepeatedScans.of(values))
    test = stats.ttest_rel(values[:, 1], values[:, 0])
    assert effect.statistic == pytest.approx(test.statistic**2)
    assert effect.p_value == pytest.approx(test.pvalue)
    assert effect.freedom == (1, 13)
    low, high = test.confidence_interval()
    assert np.array(effect.difference) == pytest.approx([np.diff(values).mean(), low, high])


def test_more_sessions_are_the_analysis_of_variance():
    values = simulate(8, 4)
    frame = pd.DataFrame({"y": values.ravel(), "who": np.repeat(range(8), 4), "session": np.tile(range(4), 8)})
    expected = AnovaRM(frame, "y", "who", within=["session"]).fit().anova_table.iloc[0]
    effect = session_effect(RepeatedScans.of(values))
    assert effect.freedom == (expected["Num DF"], expected["Den DF"])
    assert effect.statistic == pytest.approx(expected["F Value"])
    assert effect.p_value == pytest.approx(expected["Pr > F"])


def test_missing_sessions_use_what_is_there():
    """Beside a linear model with a column for each participant."""
    values = simulate(10, 3)
    values[[0, 3, 5], [2, 0, 1]] = np.nan
    row, column = np.nonzero(np.isfinite(values))
    y = values[row, column]
    participants, sessions = np.eye(10)[row], np.eye(3)[column][:, 1:]

    def squares(x):
        return np.linalg.lstsq(x, y)[1][0]

    small, large = squares(participants), squares(np.hstack([participants, sessions]))
    effect = session_effect(RepeatedScans.of(values))
    assert effect.freedom == (2, 27 - 10 - 2)
    assert effect.statistic == pytest.approx((small - large) / 2 / (large / 15))
    last = np.linalg.lstsq(np.hstack([participants, sessions]), y)[0][-1]
    assert effect.difference.value == pytest.approx(last)


def test_sessions_that_no_participant_links_have_no_difference():
    values = np.array([[1.0, 2.0, np.nan, np.nan], [2.0, 3.5, np.nan, np.nan], [np.nan, np.nan, 3.0, 4.0]] * 3)
    values[6:] += [0.0, 0.3, 0.0, -0.4]
    assert np.isnan(session_effect(RepeatedScans.of(values)).difference.value)


def test_words():
    still, moved = (session_effect(RepeatedScans.of(simulate(14, 2, shift))) for shift in (-0.2, 1.0))
    assert "No sign of a systematic difference" in still.words
    assert "differ systematically" in moved.words
    assert "last minus first 1." in moved.words
    few = session_effect(RepeatedScans.of([[1.0, 2.0, np.nan], [np.nan, 3.0, 4.0]]))
    assert np.isnan(few.p_value)
    assert "Too few" in few.words


def test_the_same_shift_in_everyone_is_certain():
    effect = session_effect(RepeatedScans.of([[1.0, 2.0], [3.0, 4.0], [6.0, 7.0]]))
    assert effect.p_value < 1e-6
