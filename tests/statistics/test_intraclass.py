"""Intraclass correlations of the table that every textbook prints."""

import numpy as np
import pandas as pd
import pingouin
import pytest

from bidsfit.statistics.intraclass import intraclass_correlation

#: Shrout and Fleiss 1979, table 2: six targets, four judges.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


def test_ratings_of_shrout_and_fleiss():
    """The limits are those that other programs print for this table."""
    found = intraclass_correlation(RATINGS)
    assert found.form == "ICC(1,1)"
    assert tuple(found.coefficient) == pytest.approx((0.17, -0.133, 0.72), abs=0.005)
    assert found.coefficient.lower == pytest.approx(-0.133, abs=0.0006)


@pytest.mark.parametrize("between", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("sessions", [2, 3])
def test_it_is_that_of_pingouin(between, sessions):
    rng = np.random.default_rng(sessions)
    values = rng.normal(10, between, (12, 1)) + rng.normal(0, 0.5, (12, sessions))
    participant, session = np.indices(values.shape)
    table = pd.DataFrame({"participant": participant.ravel(), "session": session.ravel(), "value": values.ravel()})
    theirs = pingouin.intraclass_corr(table, targets="participant", raters="session", ratings="value")
    theirs = theirs.set_index("Type").loc["ICC(1,1)"]
    found = intraclass_correlation(values).coefficient
    assert found.value == pytest.approx(theirs["ICC"], abs=1e-9)
    assert (found.lower, found.upper) == pytest.approx(tuple(theirs["CI95"]), abs=0.0051)  # given to two decimals


def test_unequal_numbers_of_scans():
    """By hand: n0 = (9 - 29 / 9) / 3, mean squares from the sums of squares."""
    values = np.array([[1.0, 2.0, np.nan], [4.0, 6.0, np.nan], [3.0, 4.0, 8.0], [9.0, 10.0, np.nan]])
    known = [row[np.isfinite(row)] for row in values]
    everything = np.concatenate(known)
    between = sum(row.size * (row.mean() - everything.mean()) ** 2 for row in known) / 3
    within = sum(((row - row.mean()) ** 2).sum() for row in known) / 5
    n0 = (9 - (4 + 4 + 9 + 4) / 9) / 3
    expected = (between - within) / (between + (n0 - 1) * within)
    assert intraclass_correlation(values).coefficient.value == pytest.approx(expected)


def test_unequal_numbers_tend_to_the_truth():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 2, (5000, 1)) + rng.normal(0, 1, (5000, 4))
    values[rng.random(values.shape) < 0.3] = np.nan
    assert intraclass_correlation(values).coefficient.value == pytest.approx(0.8, abs=0.01)


def test_a_shift_between_sessions_counts_as_error():
    shifted = RATINGS[:, :1] + np.array([[0.0, 2.0]]) + 0.1 * RATINGS[:, 1:2] * np.array([[0.0, 1.0]])
    assert intraclass_correlation(shifted).coefficient.value < 0.6
