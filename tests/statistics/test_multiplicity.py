"""Corrections by hand."""

import numpy as np
import pytest

from bidsfit.statistics.multiplicity import adjust_p_values


def test_holm_by_hand():
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_benjamini_and_hochberg_by_hand():
    adjusted = adjust_p_values([0.01, 0.04, 0.03, 0.005], "benjamini-hochberg")
    assert adjusted == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_benjamini_and_hochbergs_own_example():
    """Fifteen p-values of their paper: four findings at 5 %, three with Bonferroni's bound."""
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719]
    p_values += [0.6528, 0.7590, 1.0]
    assert np.count_nonzero(adjust_p_values(p_values, "benjamini-hochberg") <= 0.05) == 4
    assert np.count_nonzero(adjust_p_values(p_values, "holm") <= 0.05) == 3


def test_tests_that_were_not_made_do_not_count():
    adjusted = adjust_p_values([[0.01, np.nan], [0.04, np.nan]])
    assert adjusted == pytest.approx(np.array([[0.02, np.nan], [0.04, np.nan]]), nan_ok=True)
    assert np.isnan(adjust_p_values([np.nan])).all()
    assert adjust_p_values([]).size == 0


def test_none():
    assert adjust_p_values([0.01, 0.04], "none").tolist() == [0.01, 0.04]


def test_refusals():
    with pytest.raises(ValueError, match="Unknown correction"):
        adjust_p_values([0.1], "bonferroni")
    for wrong in (1.1, -0.1, np.inf):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjust_p_values([0.1, wrong])
