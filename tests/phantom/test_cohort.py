"""Cohorts: the same truth, fresh noise, the SNR that was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError, UsageError
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.imperfections import RAW, Imperfections
from bidsfit.phantom.study import Study, repeatability
from bidsfit.phantom.tissue import RECIPES
from bidsfit.phantom.variation import varying

SMALL = {"shape": (20, 20, 2)}


@pytest.mark.parametrize("model", RECIPES)
def test_without_noise_the_image_is_the_model_at_the_truth(model):
    cohort = Cohort(model, **SMALL, snr=np.inf, noise="gaussian")  # magnitudes could not be negative
    assert len(list(cohort.participants())) == 4
    for participant in cohort.participants():
        head = participant.head
        image = cohort.scan(participant, session=1)
        assert image.shape == (20, 20, 2, len(cohort.acquisition))
        expected = cohort.signal_model.signal(head.parameters, cohort.acquisition)
        np.testing.assert_allclose(image[head.mask], expected[head.mask], rtol=1e-6)
        assert np.all(image[~head.mask] == 0)


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_snr_is_the_mean_of_s0_over_sigma_of_one_measurement(noise):
    cohort = Cohort("adc", **SMALL, snr=25, noise=noise, b_values=(0.0,) * 100 + (500.0, 1000.0), n_healthy=1)
    participant = next(cohort.participants())
    image = cohort.scan(participant, session=1).astype(float)
    at_zero = image[..., :100]
    mask = participant.head.mask
    bright = mask & (at_zero.mean(-1) > 5 * participant.sigma)
    sigma = np.sqrt(at_zero[bright].var(-1, ddof=1).mean())
    assert participant.head.parameters["S0"][mask].mean() / sigma == pytest.approx(25, rel=0.03)
    air = image[~mask]
    if noise == "rician":
        assert air.mean() == pytest.approx(participant.sigma * np.sqrt(np.pi / 2), rel=0.02)
    else:
        assert air.std() == pytest.approx(participant.sigma, rel=0.02)


def test_by_default_the_images_of_every_model_have_a_usual_quality():
    """The brightest image of white matter is 10 to 60 times above the noise; for the pools 240 to 480 times."""
    for model in RECIPES:
        cohort = Cohort(model, n_healthy=1, n_patients=0, shape=(16, 16, 1))
        (participant,) = cohort.participants()
        signals = np.abs(cohort.ideal(participant)[participant.head.tissue == 1]).max(axis=-1)
        needs = {"PSR": 240, "m0s": 480}
        most = next((most for name, most in needs.items() if name in cohort.signal_model.names), 60)
        assert most / 6 < np.median(signals) / participant.sigma < most, model
        assert Cohort(model, snr=7.0).level == 7


def test_seed_and_sessions():
    cohort = Cohort("adc", **SMALL, seed=3)
    participants, again = list(cohort.participants()), list(Cohort("adc", **SMALL, seed=3).participants())
    first = cohort.scan(participants[0], 1)
    np.testing.assert_array_equal(first, cohort.scan(again[0], 1))
    assert np.any(first != cohort.scan(participants[0], 2))
    assert np.any(participants[0].head.tissue != participants[1].head.tissue)
    other = next(Cohort("adc", **SMALL, seed=4).participants())
    assert np.any(participants[0].head.tissue != other.head.tissue)
    # a participant does not depend on who else takes part
    alone = next(Cohort("adc", **SMALL, seed=3, n_healthy=1, n_patients=0).participants())
    np.testing.assert_array_equal(first, cohort.scan(alone, 1))


def test_groups_and_labels():
    people = list(Cohort("adc", **SMALL, n_healthy=1, n_patients=2).participants())
    assert [(p.label, p.group, bool(p.head.lesion.any())) for p in people] == [
        ("01", "healthy", False),
        ("02", "patient", True),
        ("03", "patient", True),
    ]


def test_scheme():
    acquisition = Cohort("smt2").acquisition
    shells = [(s.b_value, s.n_measurements, s.n_directions) for s in acquisition.shells]
    assert shells == [(0, 8, 1), (1000, 32, 32), (2000, 32, 32), (3500, 32, 32), (5000, 32, 32)]
    chosen = Cohort("ivim", b_values=(0, 0, 5, 20, 20, 50, 100, 300, 800), n_directions=2).acquisition
    assert isinstance(chosen, Acquisition)
    assert list(chosen.b_values) == [0, 0, 5, 5, 20, 20, 20, 20, 50, 50, 100, 100, 300, 300, 800, 800]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "ivmi"}, UnknownNameError, "Did you mean 'ivim'"),
        ({"lesion": "stroke"}, UnknownNameError, "lesion"),
        ({"noise": "rice"}, UnknownNameError, "Did you mean 'rician'"),
        ({"snr": 0.0}, UsageError, "SNR must be positive"),
        ({"snr": -1.0}, UsageError, "SNR must be positive"),
        ({"snr": np.nan}, UsageError, "SNR must be positive"),
        ({"n_healthy": 0, "n_patients": 0}, UsageError, "at least one participant"),
        ({"n_patients": -1}, UsageError, "negative"),
        ({"n_sessions": 0}, UsageError, "session"),
        ({"n_directions": 0}, UsageError, "direction"),
        ({"shape": (8, 8, 1)}, UsageError, "at least 16 16 1"),
        ({"seed": -1}, UsageError, "seed"),
        ({"b_values": (0.0, -5.0)}, UsageError, "negative"),
        ({"imperfections": Imperfections(outliers=100)}, UsageError, r"100 outlier volumes .* found 39"),
        ({"b_values": (0.0, 500.0, 1000.0)}, UnsupportedProtocolError, "Missing"),
        ({"model": "dti", "study": Study(n_retest=1)}, UsageError, "elements of a tensor cannot vary alone"),
    ],
)
def test_refusals(settings, error, message):
    with pytest.raises(error, match=message):
        Cohort(**({"model": "ivim"} | settings))


def imperfect(shape=(32, 32, 3), snr=np.inf, seed=0, **imperfections):
    cohort = Cohort("adc", shape=shape, snr=snr, seed=seed, imperfections=Imperfections(**imperfections))
    return cohort, next(cohort.participants())


def difference(image, reference):
    """Root mean square difference, relative to the mean."""
    return np.sqrt(np.mean((image - reference) ** 2)) / reference.mean()


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 24, 1), (33, 17, 4)])
@pytest.mark.parametrize(
    "imperfections",
    [{"gibbs": True}, {"motion": 2.0}, {"rotation": 2.0}, {"off_resonance": 20.0}, {"outliers": 2}, {"eddy": 1.0}],
)
def test_each_imperfection_changes_images_and_never_the_truth(shape, imperfections):
    cohort, participant = imperfect(shape, **imperfections)
    perfect = next(imperfect(shape)[0].participants())
    for name, values in perfect.head.parameters.items():
        np.testing.assert_array_equal(participant.head.parameters[name], values)
    image, ideal = cohort.scan(participant, 1), cohort.ideal(participant)
    assert image.shape == ideal.shape
    assert np.all(np.isfinite(image) & (image >= 0))
    assert 0.002 < difference(image, ideal) < 1
    np.testing.assert_array_equal(image, cohort.scan(participant, 1))


def test_ideal_is_the_perfect_scan():
    cohort, participant = imperfect()
    np.testing.assert_array_equal(cohort.ideal(participant), cohort.scan(participant, 1))
    np.testing.assert_array_equal(cohort.ideal(participant)[..., 0], cohort.unweighted(participant))


def test_noise_is_the_same_with_and_without_imperfections():
    """What noise adds to volumes that nothing happened to."""
    (clean, participant), (raw, _) = imperfect(snr=20), imperfect(snr=20, outliers=1)
    untouched = np.setdiff1d(np.arange(len(raw.acquisition)), raw.truth(participant, 1).outlier_volumes)
    np.testing.assert_allclose(
        raw.scan(participant, 1)[..., untouched], clean.scan(participant, 1)[..., untouched], rtol=1e-5
    )


def test_sessions_differ_in_what_happens():
    cohort, participant = imperfect(motion=1.0, off_resonance=20.0)
    first, again, second = (cohort.truth(participant, session) for session in (1, 1, 2))
    np.testing.assert_array_equal(first.motion, again.motion)
    assert np.any(first.motion != second.motion)
    assert np.any(first.field != second.field)


def test_one_imperfection_does_not_change_another():
    alone, participant = imperfect(motion=1.0)
    together = Cohort("adc", shape=(32, 32, 3), imperfections=Imperfections(True, 1.0, 1.0, 20.0, 1, 1.0))
    np.testing.assert_array_equal(
        alone.truth(participant, 1).motion[:, :3], together.truth(participant, 1).motion[:, :3]
    )


def test_the_head_moves_as_the_truth_says():
    """A whole head, in thick air: its centre of mass at b = 0 follows the transforms."""
    cohort = Cohort("adc", shape=(32, 32, 28), snr=np.inf, b_values=(0, 0, 0, 0, 0, 1000.0), n_directions=1,
                    imperfections=Imperfections(motion=3.0, rotation=4.0))  # fmt: skip
    participant = next(cohort.participants())
    truth, image = cohort.truth(participant, 1), cohort.scan(participant, 1).astype(float)
    world = np.moveaxis(np.indices(image.shape[:3]), 0, -1) @ truth.affine[:3, :3].T + truth.affine[:3, 3]
    centres = [(world * v[..., None]).sum((0, 1, 2)) / v.sum() for v in np.moveaxis(image, -1, 0)[:5]]
    moved = [t[:3, :3] @ centres[0] + t[:3, 3] for t in truth.transforms[:5]]
    assert np.linalg.norm(np.subtract(moved, centres[0]), axis=1).max() > 1
    np.testing.assert_allclose(centres, moved, atol=0.2)  # of voxels of 7.5 mm


def test_pair_of_opposite_phase_encoding():
    cohort, participant = imperfect(off_resonance=30.0, motion=2.0)
    pair = cohort.reversed_phase(participant, 1)
    assert set(pair) == {-1, 1}
    assert pair[1].shape == (32, 32, 3, 2)
    # the first volume has not moved and has the same polarity
    np.testing.assert_allclose(pair[-1][..., 0], cohort.scan(participant, 1)[..., 0], rtol=1e-5, atol=1e-3)
    front = cohort.truth(participant, 1).field > 10

    def height(image):
        return np.average(np.indices(image.shape)[1][front], weights=image[front])

    assert height(pair[1][..., 0]) > height(pair[-1][..., 0])


def test_displacement_is_field_times_readout_time_with_the_sign_of_the_phase_encoding():
    cohort, participant = imperfect(off_resonance=30.0)
    truth = cohort.truth(participant, 1)
    np.testing.assert_allclose(truth.displacement(), -0.05 * truth.field)
    np.testing.assert_allclose(truth.displacement(polarity=1), 0.05 * truth.field)
    assert np.abs(truth.field).max() == pytest.approx(30)


def test_eddy_currents_scale_shear_and_leave_b_zero_alone():
    cohort, participant = imperfect(eddy=2.0)
    truth = cohort.truth(participant, 1)
    weighted = cohort.acquisition.b_values > 0
    assert not truth.displacement(0).any()
    assert np.all(truth.eddy[~weighted] == 0)
    last = len(cohort.acquisition) - 1
    assert np.linalg.norm(truth.eddy[last]) == pytest.approx(0.02)
    # b-vectors are flipped along x in a right-handed image, as FSL has it
    np.testing.assert_allclose(truth.eddy[last] / 0.02, cohort.acquisition.directions[last] * (-1, 1, 1), atol=1e-12)
    for axis in range(3):  # mm are voxels times voxel size on every axis
        slope = np.diff(truth.displacement(last), axis=axis)
        np.testing.assert_allclose(slope, -truth.eddy[last, axis], atol=1e-12)


def test_drop_out_is_what_the_truth_says():
    cohort, participant = imperfect(outliers=3)
    truth, image, ideal = cohort.truth(participant, 1), cohort.scan(participant, 1), cohort.ideal(participant)
    assert truth.outliers.shape == (3, len(cohort.acquisition))
    assert len(truth.outlier_volumes) == 3
    assert np.all(cohort.acquisition.b_values[truth.outlier_volumes] > 0)
    np.testing.assert_allclose(image, ideal * truth.outliers, rtol=1e-6)
    left = truth.outliers[:, truth.outlier_volumes]
    assert left.min() >= 0.3
    assert sorted((left < 1).all(axis=0)) == [False, False, True]  # parts of a volume, and a whole one


def test_everything_at_once():
    cohort = Cohort("smt2", shape=(48, 48, 3), n_directions=6, imperfections=RAW)
    participant = next(cohort.participants())
    image = cohort.scan(participant, 1)
    assert np.all(np.isfinite(image) & (image > 0))
    assert len(cohort.truth(participant, 1).outlier_volumes) == 2


def test_a_field_that_folds_the_image_is_refused():
    cohort, participant = imperfect(off_resonance=500.0)
    with pytest.raises(UsageError, match=r"off-resonance of 500 Hz .* fold"):
        cohort.scan(participant, 1)


def test_t1w():
    """Found again in the position that the truth says; its contrast; and it differs between sessions."""
    cohort, participant = imperfect((32, 32, 20))
    t1w = cohort.t1w_image(participant, 1)
    head = participant.head
    assert t1w.voxel_size == head.voxel_size / 2
    means = [t1w.image[t1w.tissue == number].mean() for number in (1, 2, 3)]
    assert means[0] > means[1] + 100 > means[2] + 200
    assert t1w.image[t1w.tissue == 0].mean() < 100
    assert np.any(t1w.transform != cohort.t1w_image(participant, 2).transform)

    def centre(mask, voxel_size):
        middle = (np.array(mask.shape) - 1) / 2
        return (np.argwhere(mask).mean(0) - middle) * voxel_size

    there = t1w.transform[:3, :3] @ centre(head.mask, head.voxel_size) + t1w.transform[:3, 3]
    np.testing.assert_allclose(centre(t1w.tissue > 0, t1w.voxel_size), there, atol=1.0)


def checksum(array):
    """A number that any change of the array changes."""
    return float(np.cos(np.arange(array.size)) @ array.ravel().astype(float))


def test_cohorts_without_a_study_stay_as_they_are():
    """Numbers of an earlier version: the same seed gives the same arrays, whatever is added to studies."""
    cohort = Cohort("ivim", n_healthy=1, n_patients=1, n_sessions=2, shape=(16, 16, 1), seed=7)
    healthy, patient = cohort.participants()
    assert (healthy.sigma, patient.sigma) == pytest.approx((11.222775815853423, 11.055288186751747))
    expected = {
        "01": (
            -7.108874,
            (-2235.3304197037, -6.236171496977, -1.143288922126, -116.667743569651),
            (2416.4466, 2605.9004),
        ),
        "02": (1.658406, (137.557288145, 0.048316383182, -0.020875373183, -22.636996499035), (-499.6797, -1935.9847)),
    }
    for participant in (healthy, patient):
        tissue, parameters, scans = expected[participant.label]
        assert checksum(participant.head.tissue) == pytest.approx(tissue, abs=1e-6)
        found = [checksum(participant.head.parameters[name]) for name in ("S0", "D", "f", "Dstar")]
        assert found == pytest.approx(parameters, abs=1e-9)
        assert [checksum(cohort.scan(participant, s)) for s in (1, 2)] == pytest.approx(scans, abs=0.01)
    assert cohort.head_at(healthy, 2) is healthy.head
    assert cohort.factors(healthy, 2) == {}


def medians(cohort, name, participants=None):
    """True medians in the region, by participant and session."""
    return {
        (p.label, session): np.median(cohort.head_at(p, session).parameters[name][p.head.region])
        for p in participants or cohort.participants()
        for session in cohort.sessions(p.group)
    }


def test_groups_of_a_study():
    cohort = Cohort("adc", 1, 1, **SMALL, study=Study(n_retest=2, n_treated=1))
    people = list(cohort.participants())
    assert [(p.label, p.group, bool(p.head.lesion.any())) for p in people] == [
        ("01", "healthy", False),
        ("02", "patient", True),
        ("03", "retest", True),
        ("04", "retest", True),
        ("05", "treated", True),
    ]
    assert [len(cohort.sessions(p.group)) for p in people] == [1, 1, 2, 2, 2]
    assert cohort.n_participants == 5
    assert cohort.has_sessions
    assert all(p.head.region.any() for p in people)


def test_has_sessions():
    assert not Cohort("adc", **SMALL).has_sessions
    assert not Cohort("adc", **SMALL, study=Study(between={"D": 0.1})).has_sessions
    assert Cohort("adc", **SMALL, n_sessions=2).has_sessions
    assert not Cohort("adc", 0, 0, **SMALL, n_sessions=1, study=Study(n_retest=1)).sessions("healthy")[1:]


def test_treatment_changes_the_region_of_the_treated_by_the_effect():
    effect = {"D": 0.15, "f": -0.3}
    cohort = Cohort("ivim", 0, 0, **SMALL, study=Study(n_retest=1, n_treated=2, between={"D": 0.1}, effect=effect))
    retest, *treated = cohort.participants()
    for name, factor in {"D": 1.15, "f": 0.7, "Dstar": 1.0}.items():
        found = medians(cohort, name, [retest, *treated])
        assert found["01", 2] == found["01", 1]
        for label in ("02", "03"):
            assert found[label, 2] / found[label, 1] == pytest.approx(factor)
    for participant in treated:
        first, second = (cohort.head_at(participant, session) for session in (1, 2))
        outside = first.mask & ~first.region
        np.testing.assert_array_equal(first.parameters["D"][outside], second.parameters["D"][outside])


def test_medians_of_the_region_are_the_middle_of_the_lesion_times_the_factors():
    study = Study(n_treated=3, between={"D": 0.2, "f": 0.2}, within={"D": 0.1, "Dstar": 0.2}, effect={"D": 0.2})
    cohort = Cohort("ivim", 1, 0, **SMALL, study=study)
    for participant in cohort.participants():
        healthy = participant.group == "healthy"
        middles = {"D": 0.8, "Dstar": 10.0} if healthy else {"D": 1.15, "f": 0.2, "Dstar": 26.0}
        for session in cohort.sessions(participant.group):
            factors = cohort.factors(participant, session).values()
            head = cohort.head_at(participant, session)
            for name, middle in middles.items():
                planted = middle * np.prod([factor[name] for factor in factors])
                np.testing.assert_allclose(head.parameters[name][head.region], planted)


def test_variation_between_and_within_participants_is_recovered():
    """Of 1000 participants: the within-subject standard deviation from their pairs, and what is left between them."""
    study = Study(n_retest=1000, between={"D": 0.2}, within={"D": 0.05, "f": 0.1})
    cohort = Cohort("ivim", 0, 0, shape=(16, 16, 1), study=study)
    first = next(cohort.participants())
    people = [replace(first, label=f"{i + 1:04d}") for i in range(1000)]  # their anatomy does not matter here

    def values(name):
        own = [[cohort.factors(p, session).values() for session in (1, 2)] for p in people]
        return np.array([[np.prod([factor[name] for factor in factors]) for factors in pair] for pair in own])

    d, f, dstar = (values(name) for name in ("D", "f", "Dstar"))
    wsd = np.sqrt(np.mean(np.diff(d) ** 2) / 2)
    error = 1 / np.sqrt(2 * 1000)  # of a standard deviation
    assert wsd == pytest.approx(0.05 * np.sqrt(1 + 0.2**2), rel=4 * error)
    between = np.sqrt(d.mean(1).var(ddof=1) - wsd**2 / 2)
    assert between == pytest.approx(0.2, rel=4 * error)
    assert d.mean() == pytest.approx(1, abs=4 * 0.2 / np.sqrt(1000))
    assert np.sqrt(np.mean(np.diff(f) ** 2) / 2) == pytest.approx(0.1, rel=4 * error)
    assert abs(np.corrcoef(d[:, 0], f[:, 0])[0, 1]) < 4 / np.sqrt(1000)
    assert abs(np.corrcoef(f.T)[0, 1]) < 4 / np.sqrt(1000)  # sessions are independent of one another
    np.testing.assert_array_equal(dstar, 1)


def test_images_are_of_the_truth_of_their_session():
    study = Study(n_treated=1, between={"D": 0.1}, within={"D": 0.1, "f": 0.1}, effect={"D": 0.5})
    for imperfections in (Imperfections(), Imperfections(outliers=1)):
        cohort = Cohort("ivim", 0, 0, **SMALL, snr=np.inf, study=study, imperfections=imperfections)
        participant = next(cohort.participants())
        volumes = np.arange(len(cohort.acquisition))
        if imperfections.any:
            volumes = np.setdiff1d(volumes, cohort.truth(participant, 2).outlier_volumes)
        head = cohort.head_at(participant, 2)
        expected = cohort.signal_model.signal(head.parameters, cohort.acquisition)[head.mask]
        np.testing.assert_allclose(cohort.scan(participant, 2)[head.mask][:, volumes], expected[:, volumes], rtol=1e-5)
        assert np.any(cohort.ideal(participant, 1) != cohort.ideal(participant, 2))


def test_studies_follow_from_their_seed_and_participants_from_their_number():
    settings = {"model": "adc", "n_healthy": 0, "n_patients": 0, **SMALL}
    study = Study(n_retest=3, between={"D": 0.2}, within={"D": 0.1})
    first, again = (medians(Cohort(**settings, seed=2, study=study), "D") for _ in range(2))
    assert first == again
    assert first != medians(Cohort(**settings, seed=3, study=study), "D")
    assert len(set(first.values())) == 6
    fewer = medians(Cohort(**settings, seed=2, study=Study(n_retest=2, between={"D": 0.2}, within={"D": 0.1})), "D")
    assert fewer == {key: value for key, value in first.items() if key[0] != "03"}
    still = medians(Cohort(**settings, seed=2, study=Study(n_retest=3, between={"D": 0.2})), "D")
    factors = Cohort(**settings, seed=2, study=study)
    for participant in factors.participants():
        drawn = factors.factors(participant, 2)
        assert first[participant.label, 2] == pytest.approx(still[participant.label, 1] * drawn["session"]["D"])


@pytest.mark.parametrize("model", [model for model in RECIPES if not RECIPES[model].made])
def test_named_study_holds_for_every_model(model):
    names = varying(Cohort(model).signal_model)
    for seed in range(5):
        Cohort(model, 5, 0, **SMALL, seed=seed, study=repeatability(names))


@pytest.mark.parametrize(
    ("study", "error", "message"),
    [
        (Study(n_retest=1, between={"S0": 0.1}), UnknownNameError, "parameter that can vary 'S0'"),
        (Study(n_retest=1, within={"vcyl": 0.1}), UnknownNameError, "Valid: D, Dstar, f"),
        (Study(n_treated=1, effect={"f": 9.0}), UsageError, r"sub-01 \(treated\) would have f = 2, .* in session 2"),
        (Study(n_treated=1, effect={"Dstar": -0.9}), UsageError, "Dstar = 2.6, outside its bounds 5 to 200"),
        (Study(n_treated=1, effect={"D": 3.0}), UsageError, "D = 4.6, outside its bounds 0 to 3.5"),
    ],
)
def test_studies_whose_truth_cannot_be_are_refused(study, error, message):
    with pytest.raises(error, match=message):
        Cohort("ivim", 0, 0, **SMALL, study=study)


def test_nobody_in_a_study_is_refused():
    with pytest.raises(UsageError, match="at least one participant"):
        Cohort("ivim", 0, 0, study=Study(between={"D": 0.1}))
