"""Intraclass correlations of the table that every textbook prints."""

import numpy as np
import pytest

from bidsfit.statistics.intraclass import intraclass_correlation

#: Shrout and Fleiss 1979, table 2: six targets, four judges.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


@pytest.mark.parametrize(
    ("form", "value", "lower", "upper"),
    [("ICC(1,1)", 0.17, -0.133, 0.72), ("ICC(A,1)", 0.29, 0.019, 0.76), ("ICC(C,1)", 0.71, 0.342, 0.946)],
)
def test_ratings_of_shrout_and_fleiss(form, value, lower, upper):
    """The limits are those that other programs print for this table."""
    found = intraclass_correlation(RATINGS, form)
    assert found.form == form
    assert found.coefficient.value == pytest.approx(value, abs=0.005)
    assert found.coefficient.lower == pytest.approx(lower, abs=0.0006)
    assert found.coefficient.upper == pytest.approx(upper, abs=0.005)


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


def test_two_way_forms_leave_out_whoever_lacks_a_session():
    values = np.r_[RATINGS, [[1.0, 2.0, np.nan, 4.0], [np.nan, np.nan, np.nan, 1.0]]]
    found = intraclass_correlation(values, "ICC(A,1)")
    assert found.coefficient == intraclass_correlation(RATINGS, "ICC(A,1)").coefficient
    assert (found.n_participants, found.n_left_out) == (6, 2)


def test_a_shift_between_sessions_counts_as_error_but_for_consistency():
    shifted = RATINGS[:, :1] + np.array([[0.0, 2.0]]) + 0.1 * RATINGS[:, 1:2] * np.array([[0.0, 1.0]])
    forms = {form: intraclass_correlation(shifted, form).coefficient.value for form in ("ICC(A,1)", "ICC(C,1)")}
    assert forms["ICC(C,1)"] > 0.98
    assert forms["ICC(A,1)"] < 0.6


def test_perfect_consistency():
    shifted = RATINGS[:, :1] + np.array([[0.0, 2.0]])
    assert tuple(intraclass_correlation(shifted, "ICC(C,1)").coefficient) == (1.0, 1.0, 1.0)


def test_perfect_agreement_of_those_with_all_sessions():
    values = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [4.0, 5.0, np.nan]])
    assert tuple(intraclass_correlation(values, "ICC(A,1)").coefficient) == (1.0, 1.0, 1.0)


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="Unknown form 'ICC'"):
        intraclass_correlation(RATINGS, "ICC")


def test_two_way_form_without_a_complete_participant_is_refused():
    values = np.array([[1.0, 2.0, np.nan], [np.nan, 4.0, 6.0], [2.0, np.nan, 3.0]])
    with pytest.raises(ValueError, match=r"ICC\(A,1\) of repeated scans needs at least 2 participants"):
        intraclass_correlation(values, "ICC(A,1)")
