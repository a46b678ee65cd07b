"""Variation of the truth: factors as planted, inside the bounds, medians that tell."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import models
from bidsfit.phantom.head import Head, make_head
from bidsfit.phantom.tissue import RECIPES, recipe
from bidsfit.phantom.variation import draw_factors, outside, region_medians, times, vary, varying


def head(model="ivim", lesion=None):
    return make_head((24, 24, 2), recipe(model), np.random.default_rng(1), lesion=lesion, homogeneous=True)


def test_factors_have_mean_1_and_the_coefficient_of_variation_that_was_asked_for():
    rng = np.random.default_rng(0)
    drawn = [draw_factors(("D", "f", "Dstar"), {"D": 0.1, "f": 0.4}, rng) for _ in range(20000)]
    d, f, dstar = (np.array([factors[name] for factors in drawn]) for name in ("D", "f", "Dstar"))
    for values, variation in ((d, 0.1), (f, 0.4)):
        assert values.mean() == pytest.approx(1, abs=4 * variation / np.sqrt(20000))
        assert values.std(ddof=1) == pytest.approx(variation, rel=0.04)
    assert np.all(f > 0)
    assert np.all(dstar == 1)
    assert abs(np.corrcoef(d, f)[0, 1]) < 0.03


def test_how_much_one_parameter_varies_does_not_change_another():
    alone = draw_factors(("D", "f"), {"f": 0.2}, np.random.default_rng(3))
    together = draw_factors(("D", "f"), {"D": 0.3, "f": 0.2}, np.random.default_rng(3))
    assert alone["f"] == together["f"]


def test_factors_multiply():
    assert times({"D": 2.0, "f": 3.0}, {"D": 0.5}, {"Dstar": 4.0}) == {"D": 1.0, "f": 3.0, "Dstar": 4.0}


def test_vary_multiplies_the_head_and_its_region_and_nothing_else():
    before = head(lesion="hyperperfused")
    after = vary(before, models.get("ivim"), {"D": 1.1}, {"D": 1.2, "f": 0.5})
    region, rest = before.region, before.mask & ~before.region
    ratio = {
        name: after.parameters[name][before.mask] / values[before.mask] for name, values in before.parameters.items()
    }
    inside = region[before.mask]
    np.testing.assert_allclose(ratio["D"][inside], 1.32)
    np.testing.assert_allclose(ratio["D"][~inside], 1.1)
    np.testing.assert_allclose(ratio["f"][inside], 0.5)
    np.testing.assert_array_equal(after.parameters["f"][rest], before.parameters["f"][rest])
    for name in ("S0", "Dstar"):
        np.testing.assert_array_equal(after.parameters[name], before.parameters[name])
    assert not after.parameters["D"][~before.mask].any()
    np.testing.assert_array_equal(after.tissue, before.tissue)


def test_a_head_that_is_varied_is_left_as_it_was():
    before = head()
    copies = {name: values.copy() for name, values in before.parameters.items()}
    vary(before, models.get("ivim"), {"D": 1.5}, {"D": 2.0})
    for name, values in copies.items():
        np.testing.assert_array_equal(before.parameters[name], values)


@pytest.mark.parametrize("model", [model for model in RECIPES if not RECIPES[model].made])
@pytest.mark.parametrize("factor", [0.3, 0.8, 1.25, 3.0])
def test_bounds_and_constraints_hold_whatever_the_factor(model, factor):
    signal_model = models.get(model)
    after = vary(head(model), signal_model, dict.fromkeys(varying(signal_model), factor))
    for name in varying(signal_model):
        lower, upper = signal_model[name].bounds
        values = after.parameters[name][after.mask]
        assert lower <= values.min() <= values.max() <= upper
    matrix, limit = signal_model.linear_constraints
    values = np.stack([after.parameters[name][after.mask] for name in signal_model.names])
    assert np.all(matrix @ values <= limit[:, None])


def test_voxels_stop_short_of_a_constraint_and_keep_their_way():
    """D would pass D* in one voxel, which goes towards both new values as far as that; the other one is free."""
    shape = (2, 1, 1)
    parameters = {"S0": np.ones(shape), "f": np.full(shape, 0.2)}
    parameters |= {"D": np.array([2.0, 1.0]).reshape(shape), "Dstar": np.array([4.0, 40.0]).reshape(shape)}
    small = Head(np.ones(shape, dtype=np.uint8), parameters, 1.0, np.zeros(shape, dtype=bool))
    ivim = models.get("ivim")
    wide = replace(ivim, parameters=[replace(p, bounds=(0.0, 200.0)) if "D" in p.name else p for p in ivim.parameters])
    after = vary(small, wide, {"D": 2.4, "Dstar": 0.9})
    d, dstar = after.parameters["D"].ravel(), after.parameters["Dstar"].ravel()
    assert (d[1], dstar[1]) == pytest.approx((2.4, 36))
    assert d[0] < dstar[0]
    assert d[0] == pytest.approx(dstar[0], rel=1e-3)
    assert (d[0] - 2) / (4.8 - 2) == pytest.approx((dstar[0] - 4) / (3.6 - 4))


def test_medians_survive_what_is_cut_off():
    """Cutting off keeps the order of voxels, so that medians change by the factor while voxels at a bound do not."""
    before = head()
    after = vary(before, models.get("ivim"), {"Dstar": 0.7})
    white = before.tissue == 1
    assert (after.parameters["Dstar"][white] == 5.0).any()
    np.testing.assert_allclose(
        np.median(after.parameters["Dstar"][white]), 0.7 * np.median(before.parameters["Dstar"][white])
    )


def test_what_a_model_does_not_allow():
    ivim, smt3 = models.get("ivim"), models.get("smt3")
    assert outside({"S0": 1.0, "f": 0.2, "D": 1.0, "Dstar": 20.0}, ivim) == ""
    assert outside({"S0": 1.0, "f": 1.2, "D": 1.0, "Dstar": 20.0}, ivim) == "f = 1.2, outside its bounds 0 to 1"
    meeting = replace(ivim, parameters=[replace(p, bounds=(0, 9)) if "D" in p.name else p for p in ivim.parameters])
    words = outside({"S0": 1.0, "f": 0.2, "D": 4.0, "Dstar": 3.5}, meeting)
    assert "D = 4" in words
    assert "Dstar = 3.5" in words
    assert "<=" in words
    assert "vcsf = 0.5" in outside({"S0": 1.0, "vcyl": 0.6, "vcsf": 0.5, "lambda": 1.5}, smt3)


def test_medians_of_regions():
    one = head()
    found = {(m.region, m.parameter): m for m in region_medians(one, {"roi": one.region, "none": one.tissue == 9})}
    assert {region for region, _ in found} == {"roi"}
    assert found["roi", "D"].median == pytest.approx(0.8)  # the middle of white matter's range
    assert found["roi", "D"].n_voxels == one.region.sum()


def test_medians_where_another_parameter_is_large_enough():
    one = head()
    (found,) = (
        m for m in region_medians(one, {"wm": one.tissue == 1}, {"Dstar": ("f", 0.05)}) if m.parameter == "Dstar"
    )
    where = (one.tissue == 1) & (one.parameters["f"] >= 0.05)
    assert 0 < found.n_voxels == where.sum() < (one.tissue == 1).sum()
    assert found.median == np.median(one.parameters["Dstar"][where])


def test_tissue_varies_and_fields_of_the_scanner_do_not():
    assert varying(models.get("dti")) == ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")
    assert varying(models.get("qmtgbloch")) == ("m0s", "R1f", "R2f", "Rx", "R1s", "T2s")
