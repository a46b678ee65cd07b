"""The abdomen: organs where they belong, a truth within its ranges, and breathing that keeps the tissue whole."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from bidsfit import models
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.phantom.abdomen import breathing_pattern, make_abdomen
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.imperfections import Imperfections
from bidsfit.phantom.movement import deform, draw_breathing
from bidsfit.phantom.tissue import ABDOMEN, ABDOMEN_RECIPES, recipe

SHAPE, VOXEL = (48, 40, 12), 380 / 48


@pytest.fixture(scope="module")
def abdomen():
    return make_abdomen(SHAPE, recipe("ivim", "abdomen"), np.random.default_rng(0), lesion="hypoperfused")


def cohort(**settings):
    return Cohort("ivim", **{"n_healthy": 1, "n_patients": 0, "shape": SHAPE, "anatomy": "abdomen", **settings})


@pytest.mark.parametrize("model", ABDOMEN_RECIPES)
def test_recipes_are_complete_and_inside_the_bounds_of_the_model(model):
    table, signal_model = ABDOMEN_RECIPES[model], models.get(model)
    for ranges in [*table.tissues.values(), *(table.ranges("lesion", name) for name in table.lesions)]:
        assert set(ranges) == set(signal_model.names)
        for name, (lower, upper) in ranges.items():
            assert signal_model[name].bounds[0] <= lower <= upper <= signal_model[name].bounds[1]
    assert set(table.tissues) | {"lesion"} == set(ABDOMEN)


def test_organs_lie_where_they_belong(abdomen):
    """The image lies as the world does: its axes run to the right, to the front and up."""
    middle = {name: np.array(center_of_mass(abdomen.tissue == number)) for name, number in ABDOMEN.items()}
    assert middle["liver"][0] > middle["bone"][0] + 40 / VOXEL
    assert middle["spleen"][0] < middle["bone"][0] - 60 / VOXEL
    assert middle["bone"][1] < middle["bowel"][1] - 60 / VOXEL
    litres = np.sum(abdomen.tissue == ABDOMEN["liver"]) * VOXEL**3 / 1e6
    assert 0.8 < litres < 2.2
    gas = (abdomen.tissue == 0)[:, 20:, :] & (np.indices(SHAPE)[0] < 24)[:, 20:, :]
    assert gas[15:24].any(axis=(1, 2)).all()


def test_parameters_lie_in_the_range_of_their_tissue(abdomen):
    table = recipe("ivim", "abdomen")
    for tissue, number in ABDOMEN.items():
        where = abdomen.tissue == number
        assert where.any()
        for name, (lower, upper) in table.ranges(tissue, "hypoperfused").items():
            values = abdomen.parameters[name][where]
            assert lower <= values.min() <= values.max() <= upper
    assert not abdomen.parameters["D"][abdomen.tissue == 0].any()
    assert np.all(np.isin(abdomen.tissue[abdomen.region], ABDOMEN["lesion"]))


def test_too_small_for_a_liver():
    with pytest.raises(UsageError, match="too small to hold a liver"):
        make_abdomen((1, 1, 1), recipe("ivim", "abdomen"), np.random.default_rng(0))


# --- breathing ------------------------------------------------------------------------------------------------------


def test_breathing_moves_the_liver_and_not_the_wall(abdomen):
    pattern = breathing_pattern(abdomen.tissue, VOXEL)
    to_the_feet = -pattern[2]
    mean = {name: to_the_feet[abdomen.tissue == number].mean() for name, number in ABDOMEN.items()}
    assert 0.8 < mean["liver"] <= 1
    assert mean["liver"] > mean["kidney"] > mean["muscle"]
    assert mean["muscle"] < 0.25
    assert to_the_feet[abdomen.tissue == 0].min() >= 0
    np.testing.assert_allclose(pattern[1], 0.25 * to_the_feet)


def test_breaths_have_mean_0_and_dwell_at_the_end_of_breathing_out():
    depth = draw_breathing(4000, np.random.default_rng(0))
    assert depth.mean() == pytest.approx(0, abs=1e-12)
    assert np.ptp(depth) == pytest.approx(1, abs=0.01)
    assert np.median(depth) < -0.1


def test_deformation_takes_tissue_where_it_says():
    """A ramp along the first axis, displaced by a smooth bump: the value of a place is that of where it came from."""
    grid = np.indices((40, 8, 8), dtype=float)
    displacement = np.zeros_like(grid)
    displacement[0] = 3 * np.exp(-((grid[0] - 20) ** 2) / 50)
    found = deform(grid[0], displacement)
    arrival = np.arange(40) + displacement[0, :, 4, 4]
    np.testing.assert_allclose(np.interp(np.arange(10, 30), arrival, np.arange(40)), found[10:30, 4, 4], atol=0.03)


def test_no_volume_folds_and_the_truth_is_the_middle():
    study = cohort(imperfections=Imperfections(breathing=30))
    participant = next(study.participants())
    truth = study.truth(participant, 1)
    assert truth.breathing.sum() == pytest.approx(0, abs=1e-9)
    assert 20 < np.ptp(truth.breathing) <= 30
    field = truth.deformation(int(truth.breathing.argmax()))
    slopes = np.stack([np.stack(np.gradient(line)) for line in field], axis=0).transpose(2, 3, 4, 0, 1)
    assert np.linalg.det(slopes + np.eye(3)).min() > 0.2


def test_images_without_breathing_are_those_of_a_body_that_lies_still():
    still, breathing = (cohort(imperfections=Imperfections(breathing=amount), snr=np.inf) for amount in (0, 10))
    participant = next(still.participants())
    ideal, seen = still.scan(participant, 1), breathing.scan(participant, 1)
    liver = participant.head.tissue == ABDOMEN["liver"]
    moved = breathing.truth(participant, 1).breathing
    size = np.abs(seen - ideal)[liver].mean(axis=0)
    size /= ideal[liver].mean(axis=0)
    assert size[np.abs(moved) < 0.2].max(initial=0) < 0.01
    assert size[np.abs(moved) > 4].min() > 0.015
    np.testing.assert_array_equal(ideal, cohort(snr=np.inf).ideal(participant))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"anatomy": "head", "imperfections": Imperfections(breathing=5)}, "Breathing moves no head"),
        ({"t1w": True}, "one of the head"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        cohort(**settings)


def test_unknown_anatomies_models_and_amounts_are_refused():
    with pytest.raises(UnknownNameError, match="Unknown anatomy"):
        cohort(anatomy="abdomne")
    with pytest.raises(UsageError, match="no table of tissues of the abdomen"):
        Cohort("smt2", anatomy="abdomen")
    with pytest.raises(UsageError, match="fold the tissue"):
        Imperfections(breathing=40)
