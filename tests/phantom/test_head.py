"""Heads: tissues where they belong, parameters in their ranges, lesions in white matter."""

import numpy as np
import pytest

from bidsfit import models
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.grid import centred_affine
from bidsfit.phantom.head import make_fractal, make_head
from bidsfit.phantom.tensors import kurtosis_tensors
from bidsfit.phantom.tissue import RECIPES, TISSUES, recipe
from bidsfit.preprocessing.gradients import detect_flip

SHAPE = (48, 48, 3)


def head(model="ivim", seed=0, shape=SHAPE, lesion=None):
    return make_head(shape, recipe(model), np.random.default_rng(seed), lesion=lesion)


#: Models whose parameters are in the tables of tissues, and those whose are made from what is.
PLAIN = [model for model in RECIPES if not RECIPES[model].made]
TENSORS = [model for model in RECIPES if RECIPES[model].made]


@pytest.mark.parametrize("model", PLAIN)
def test_recipes_are_complete_and_inside_the_bounds_of_the_model(model):
    signal_model = models.get(model)
    matrix, limits = signal_model.linear_constraints
    tissues = [RECIPES[model].tissues[t] for t in TISSUES if t != "lesion"]
    lesions = [RECIPES[model].ranges("lesion", name) for name in RECIPES[model].lesions]
    for ranges in tissues + lesions:
        assert set(ranges) == set(signal_model.names)
        for name, (lower, upper) in ranges.items():
            bounds = signal_model[name].bounds
            assert bounds[0] <= lower <= upper <= bounds[1]
        # the corner where the constraints are hardest to meet
        corner = [[ranges[n][int(a > 0)] for n, a in zip(signal_model.names, row, strict=True)] for row in matrix]
        assert all(row @ c <= limit for row, c, limit in zip(matrix, corner, limits, strict=True))


@pytest.mark.parametrize("model", TENSORS)
def test_tensors_of_all_tissues_are_possible(model):
    """No negative diffusivity or kurtosis, all elements within their bounds, and nothing in air."""
    signal_model = models.get(model)
    for lesion in RECIPES[model].lesions:
        truth = head(model, lesion=lesion, shape=(20, 20, 2))
        assert set(truth.parameters) == set(signal_model.names)
        rows = np.stack([truth.parameters[name][truth.mask] for name in signal_model.names], axis=1)
        assert signal_model.plausible(rows[::10]).all()
        low, high = np.transpose([signal_model[name].bounds for name in signal_model.names])
        assert np.all((rows >= low) & (rows <= high))
        assert all(np.all(values[~truth.mask] == 0) for values in truth.parameters.values())


@pytest.mark.parametrize("model", ["dti", "fwdti"])
def test_tensors_have_the_anisotropy_of_their_table(model):
    """FA, mean diffusivity and axis that derive from the elements are within the ranges of the tissue."""
    truth, signal_model = head(model), models.get(model)
    for tissue in ("WM", "GM", "CSF"):
        where = truth.tissue == TISSUES[tissue]
        rows = np.stack([truth.parameters[name][where] for name in signal_model.names], axis=1)
        found, ranges = signal_model.derivation.values(rows), RECIPES[model].ranges(tissue)
        for name in ("FA", "MD"):
            low, high = ranges[name]
            assert low - 1e-9 <= found[name].min() < found[name].max() <= high + 1e-9
        assert np.allclose(np.linalg.norm(found["direction"], axis=1), 1)


def test_directions_of_fibres_vary_smoothly():
    """Neighbours in white matter are closer than any two voxels of it."""
    truth = head("dti", shape=(96, 96, 1))
    white = truth.tissue[..., 0] == TISSUES["WM"]
    rows = np.stack([truth.parameters[name][..., 0] for name in models.get("dti").names], axis=-1)
    axes = np.zeros((*white.shape, 3))
    axes[white] = models.get("dti").derivation.values(rows[white])["direction"]
    both = white[1:] & white[:-1]
    near = np.abs((axes[1:] * axes[:-1]).sum(axis=-1))[both]
    some = axes[white][np.random.default_rng(0).permutation(white.sum())]
    far = np.abs((axes[white] * some).sum(axis=-1))
    assert np.median(np.arccos(np.minimum(near, 1))) < 0.5 * np.median(np.arccos(np.minimum(far, 1)))


@pytest.mark.parametrize(("model", "seed"), [("dti", 0), ("dti", 1), ("noddi", 0)])
def test_the_check_of_directions_does_not_take_offence_at_a_phantom(model, seed):
    """Another reading of the table of directions would not join the fibres of neighbouring voxels better."""
    cohort = Cohort(model, n_healthy=1, n_patients=0, seed=seed, n_directions=12)
    (participant,) = cohort.participants()
    image, about = cohort.scan(participant, 1), cohort.acquisition
    affine = centred_affine(image.shape[:3], participant.head.voxel_size)
    assert detect_flip(image, participant.head.mask, about.b_values, about.directions, affine) is None


def test_a_tensor_of_two_compartments_has_their_kurtosis():
    """Along the fibres 3 f (1 - f) (difference / mean)^2, and so across them."""
    table = {
        "S0": 1.0,
        "share": 0.4,
        "fibre_axial": 0.6,
        "fibre_radial": 0.1,
        "around_axial": 2.4,
        "around_radial": 0.7,
    }
    table |= {"direction_polar": 0.7, "direction_azimuth": 4.0}
    made = kurtosis_tensors({name: np.full((1, 1), value) for name, value in table.items()})
    rows = np.stack([made[name].ravel() for name in models.get("dki").names], axis=1)
    found = models.get("dki").derivation.values(rows)
    along, across = 0.4 * 0.6 + 0.6 * 2.4, 0.4 * 0.1 + 0.6 * 0.7
    assert found["AK"][0] == pytest.approx(3 * 0.24 * (1.8 / along) ** 2)
    assert found["RK"][0] == pytest.approx(3 * 0.24 * (0.6 / across) ** 2)
    assert (found["AD"][0], found["RD"][0]) == pytest.approx((along, across))
    axis = [np.sin(0.7) * np.cos(4.0), np.sin(0.7) * np.sin(4.0), np.cos(0.7)]
    assert abs(found["direction"][0] @ axis) == pytest.approx(1)


@pytest.mark.parametrize("model", PLAIN)
def test_parameters_lie_in_the_range_of_their_tissue_and_vary(model):
    for lesion in RECIPES[model].lesions:
        truth = head(model, lesion=lesion)
        for tissue, number in TISSUES.items():
            where = truth.tissue == number
            for name, (lower, upper) in RECIPES[model].ranges(tissue, lesion).items():
                values = truth.parameters[name][where]
                assert values.min() >= lower - 1e-12
                assert values.max() <= upper + 1e-12
                if tissue != "lesion":
                    assert lower == upper or np.ptp(values) > 0.5 * (upper - lower)
        assert all(np.all(values[~truth.mask] == 0) for values in truth.parameters.values())


@pytest.mark.parametrize("lesion", RECIPES["smt3"].lesions)
def test_fractions_leave_room_for_each_other(lesion):
    """Free water fills the fluid, and is next to nothing in tissue and nothing in lesions."""
    truth = head("smt3", lesion=lesion)
    vcyl, vcsf = truth.parameters["vcyl"], truth.parameters["vcsf"]
    assert np.max(vcyl + vcsf) <= 1
    assert np.all(vcsf[truth.lesion] == 0)
    means = [vcsf[truth.tissue == TISSUES[name]].mean() for name in ("WM", "GM", "CSF")]
    assert means[0] < means[1] < 0.15 < 0.85 < means[2]
    two = RECIPES["smt2"].ranges("lesion", lesion)
    assert {name: RECIPES["smt3"].ranges("lesion", lesion)[name] for name in two} == two


@pytest.mark.parametrize("seed", range(5))
def test_a_head_looks_like_one(seed):
    truth = head(seed=seed)
    share = {t: np.mean(truth.tissue[truth.mask] == n) for t, n in TISSUES.items()}
    assert 0.2 < share["WM"] < 0.6
    assert 0.25 < share["GM"] < 0.6
    assert 0.05 < share["CSF"] < 0.3
    assert share["lesion"] == 0
    assert 0.3 < truth.mask.mean() < 0.6
    border = np.ones(SHAPE[:2], dtype=bool)
    border[1:-1, 1:-1] = False
    assert not truth.mask[border].any()
    assert truth.voxel_size == 5.0


@pytest.mark.parametrize("seed", range(5))
def test_lesion_is_in_white_matter_and_changes_nothing_else(seed):
    healthy, patient = head(seed=seed), head(seed=seed, lesion="hyperperfused")
    lesion = patient.lesion
    assert 10 < lesion.sum() < 0.1 * patient.mask.sum()
    assert np.all(healthy.tissue[lesion] == TISSUES["WM"])
    np.testing.assert_array_equal(healthy.tissue[~lesion], patient.tissue[~lesion])
    for name, values in healthy.parameters.items():
        np.testing.assert_array_equal(values[~lesion], patient.parameters[name][~lesion])


def test_each_parameter_has_its_own_map():
    truth = head()
    white = truth.tissue == TISSUES["WM"]
    correlations = np.corrcoef([values[white] for values in truth.parameters.values()])
    assert np.abs(correlations[np.triu_indices(4, 1)]).max() < 0.9


def test_one_seed_gives_one_anatomy_for_every_model():
    np.testing.assert_array_equal(head("ivim").tissue, head("smt2").tissue)


@pytest.mark.parametrize("shape", [(16, 16, 1), (20, 32, 2), (24, 24, 40)])
def test_other_shapes(shape):
    truth = head(shape=shape, lesion="hyperperfused")
    assert truth.tissue.shape == shape
    assert truth.lesion.any()


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="hyperperfused"):
        head(lesion="hyperperfusd")
    with pytest.raises(UsageError, match="no table of tissues"):
        recipe("ivimsimple")


@pytest.mark.parametrize(("lesion", "d"), [(None, 0.8), ("hyperperfused", 1.15)])
def test_homogeneous_region(lesion, d):
    """The middle of the ranges in every voxel of the region; the rest of the head as it would be."""
    varied = head(lesion=lesion)
    same = make_head(SHAPE, recipe("ivim"), np.random.default_rng(0), lesion=lesion, homogeneous=True)
    np.testing.assert_array_equal(same.region, head(lesion="hyperperfused").lesion)
    np.testing.assert_allclose(same.parameters["D"][same.region], d)
    assert same.region.sum() > 20
    assert np.ptp(varied.parameters["D"][varied.region]) > 0
    for name, values in varied.parameters.items():
        assert np.ptp(same.parameters[name][same.region]) == 0
        np.testing.assert_array_equal(same.parameters[name][~same.region], values[~same.region])


def test_fractal_tissue_fills_the_image():
    """All of the three tissues of the head, each map within its range; a lesion changes nothing else."""
    truth, patient = (
        make_fractal((64, 64, 1), recipe("ivim"), np.random.default_rng(0), lesion=lesion)
        for lesion in (None, "hyperperfused")
    )
    assert truth.mask.all()
    shares = [np.mean(truth.tissue == TISSUES[name]) for name in ("WM", "GM", "CSF")]
    assert min(shares) > 0.05
    for tissue in ("WM", "GM", "CSF"):
        for name, (low, high) in recipe("ivim").ranges(tissue).items():
            values = truth.parameters[name][truth.tissue == TISSUES[tissue]]
            assert low - 1e-12 <= values.min() < values.max() <= high + 1e-12
    same = ~patient.lesion
    np.testing.assert_array_equal(truth.parameters["D"][same], patient.parameters["D"][same])
    assert 0 < patient.lesion.sum() < patient.lesion.size / 2
