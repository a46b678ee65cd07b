"""What `estimate` takes and returns: rows or maps, a mask, and a short table to print."""

import numpy as np
import pytest

from bidsfit import (
    Acquisition,
    Bayesian,
    LeastSquares,
    MaximumAPosteriori,
    MaximumLikelihood,
    Status,
    companions,
    models,
)

SHAPE = (6, 5, 4)
ACQUISITION = Acquisition([0, 10, 20, 40, 80, 150, 300, 500, 800])
IVIM = models.get("ivim")


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    truth = {"S0": 1000.0, "f": rng.uniform(0.05, 0.25, np.prod(SHAPE)), "D": 1.0, "Dstar": 20.0}
    clean = IVIM.signal(truth, ACQUISITION)
    return (clean + rng.normal(0, 10, clean.shape)).reshape(*SHAPE, len(ACQUISITION))


@pytest.fixture
def mask():
    found = np.zeros(SHAPE)
    found[1:5, 1:4] = 1
    found[0, 0, 0] = np.nan
    return found


def maps_of(estimate):
    named = {"status": estimate.status, "rmse": estimate.rmse, "r2": estimate.r2, "sigma": estimate.sigma}
    statistics = {f"{s}_{name}": v for s, maps in estimate.statistics.items() for name, v in maps.items()}
    return estimate.parameters | named | statistics


@pytest.mark.parametrize("estimator", [LeastSquares(IVIM), Bayesian(IVIM)], ids=["lsq", "bayes"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_image_gives_maps_of_its_shape(signals, estimator, order):
    level = np.linspace(8, 12, np.prod(SHAPE)).reshape(SHAPE)
    found = maps_of(estimator.estimate(np.asarray(signals, order=order), ACQUISITION, level))
    rows = maps_of(estimator.estimate(signals.reshape(-1, len(ACQUISITION)), ACQUISITION, level.ravel()))
    for name, values in found.items():
        assert values.shape == SHAPE
        np.testing.assert_array_equal(values, rows[name].reshape(SHAPE))


def test_outside_the_mask_nothing_is_fitted(signals, mask):
    level = np.full(SHAPE, 10.0)
    level[mask != 1] = np.nan
    estimate = LeastSquares(IVIM).estimate(signals, ACQUISITION, level, mask=mask)
    inside = mask == 1
    expected = maps_of(LeastSquares(IVIM).estimate(signals[inside], ACQUISITION, 10.0))
    for name, values in maps_of(estimate).items():
        np.testing.assert_array_equal(values[inside], expected[name])
        assert np.all(values[~inside] == Status.NOT_FITTED if name == "status" else np.isnan(values[~inside]))
    assert estimate.count() == {Status.NOT_FITTED: 72, Status.CONVERGED: 48}


def test_a_mask_of_rows_a_slice_and_lists(signals, mask):
    rows, inside = signals.reshape(-1, len(ACQUISITION)), (mask == 1).ravel()
    found = LeastSquares(IVIM).estimate(rows, ACQUISITION, mask=inside)
    assert found.parameters["f"].shape == inside.shape
    assert np.array_equal(np.isfinite(found.parameters["f"]), inside)
    assert LeastSquares(IVIM).estimate(signals[:, :, 0], ACQUISITION).status.shape == SHAPE[:2]
    assert LeastSquares(IVIM).estimate(rows[:2].tolist(), ACQUISITION).status.tolist() == [1, 1]


def test_what_is_learned_of_the_data_is_learned_inside_the_mask(signals):
    twice = np.concatenate([signals, signals[::-1] * 0.01])
    inside = np.arange(12)[:, None, None] * np.ones(SHAPE[1:]) < 6
    found = MaximumAPosteriori(IVIM).estimate(twice, ACQUISITION, mask=inside)
    expected = MaximumAPosteriori(IVIM).estimate(signals, ACQUISITION)
    assert found.notes == expected.notes
    np.testing.assert_array_equal(found.parameters["D"][:6], expected.parameters["D"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": np.ones((6, 5))}, r"mask must have shape \(6, 5, 4\)"),
        ({"mask": np.zeros(SHAPE)}, "found 0 of"),
        ({"mask": np.full(SHAPE, np.nan)}, "found 0 of"),
        ({"noise": np.ones((4, 5, 6))}, r"noise must be one number, or of shape \(6, 5, 4\)"),
        ({"noise": np.ones(48), "mask": np.ones(SHAPE)}, "noise must be one number"),
    ],
)
def test_shapes_that_disagree(signals, options, words):
    with pytest.raises(ValueError, match=words):
        LeastSquares(IVIM).estimate(signals, ACQUISITION, **options)


@pytest.mark.parametrize("shape", [(9,), (3, 8), (9, 3), (2, 2, 2, 3)])
def test_signals_of_another_acquisition(shape):
    with pytest.raises(ValueError, match=r"must have shape \(n_voxels, 9\) or \(x, y, z, 9\)"):
        LeastSquares(IVIM).estimate(np.ones(shape), ACQUISITION)


def test_it_prints_as_a_short_table(signals, mask):
    estimate = Bayesian(IVIM).estimate(signals, ACQUISITION, 10.0, mask=mask)
    lines = str(estimate).splitlines()
    assert lines[0] == "Estimate of 6 x 5 x 4 voxels; percentiles over the fitted ones"
    assert lines[1].split() == ["parameter", "unit", "median", "5", "%", "95", "%", "median", "sd"]
    name, unit, median, low, high, sd = lines[4].split()
    assert (name, unit) == ("D", "um^2/ms")
    values = estimate.parameters["D"][mask == 1]
    assert float(median) == pytest.approx(np.median(values), rel=1e-3)
    assert [float(low), float(high)] == pytest.approx(np.percentile(values, (5, 95)), rel=1e-3)
    assert float(sd) == pytest.approx(np.median(estimate.statistics["sd"]["D"][mask == 1]), rel=1e-3)
    assert lines[6] == "72 voxels: outside the mask: not fitted"
    assert sum(int(line.split()[0]) for line in lines[6:]) == 120
    assert len(set(map(len, lines[1:6]))) == 1


def test_what_states_no_spread_prints_none(signals):
    lines = str(LeastSquares(IVIM).estimate(signals, ACQUISITION, 10.0)).splitlines()
    assert lines[1].split() == ["parameter", "unit", "median", "5", "%", "95", "%"]
    assert lines[6:] == ["120 voxels: fitted inside the bounds"]


def test_it_prints_where_nothing_was_fitted():
    text = repr(LeastSquares(IVIM).estimate(np.zeros((1, 9)), ACQUISITION))
    assert "nan" in text
    assert text.endswith("1 voxel: " + Status.NO_SIGNAL.message)


#: 16 different b-values, the IVIM of a liver, and a measurement that another program left as 0.
EDGE = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])


@pytest.mark.parametrize("estimator", [LeastSquares(IVIM), MaximumLikelihood(IVIM)], ids=["lsq", "mle"])
def test_a_zero_among_positive_signals_is_no_datum(estimator):
    """Zeros that other programs leave at the edge of the image gave D = .27 for 1.0, as converged."""
    clean = IVIM.signal({"S0": 1000.0, "f": 0.12, "D": 1.0, "Dstar": 15.0}, EDGE)
    signals = np.tile(clean, (3, 1))
    signals[1, 9] = 0
    found = estimator.estimate(signals, EDGE, 1.0)
    assert found.status.tolist() == [Status.CONVERGED, Status.MISSING, Status.CONVERGED]
    assert np.isnan(found.parameters["D"][1])
    np.testing.assert_allclose(found.parameters["D"][[0, 2]], 1.0, rtol=1e-3)


def test_a_shell_is_averaged_without_its_zeros():
    acquisition = Acquisition([0, *[1000] * 4], np.vstack([np.zeros((1, 3)), np.eye(3), np.ones((1, 3)) / np.sqrt(3)]))
    signals = np.array([[100.0, 40, 40, 0, 40], [100.0, 40, 40, 40, 40]])
    found = LeastSquares(models.get("adc")).estimate(signals, acquisition)
    assert found.status.tolist() == [Status.CONVERGED] * 2
    assert found.parameters["D"][0] == pytest.approx(np.log(2.5), rel=1e-6)


@pytest.mark.parametrize("noise", [-1.0, np.inf, np.nan])
def test_a_noise_level_that_cannot_be_is_refused(signals, noise):
    for estimator in (LeastSquares(IVIM), MaximumLikelihood(IVIM)):
        with pytest.raises(ValueError, match="must be a positive number, found"):
            estimator.estimate(signals, ACQUISITION, noise)


def test_where_the_noise_level_cannot_be_it_is_not_known(signals):
    """An infinite level gave the start of the descent as converged, and a negative one was taken for its size."""
    rows = signals.reshape(-1, len(ACQUISITION))[:3]
    level = np.array([10.0, np.inf, -10.0])
    found = MaximumLikelihood(IVIM).estimate(rows, ACQUISITION, level)
    assert found.status.tolist()[1:] == [Status.NO_NOISE] * 2
    estimator = LeastSquares(IVIM)
    spread = companions(estimator, estimator.estimate(rows, ACQUISITION, level), level)["sd"]["D"]
    unknown = companions(estimator, estimator.estimate(rows, ACQUISITION))["sd"]["D"]
    np.testing.assert_allclose(spread[1:], unknown[1:])


def test_a_signal_too_faint_to_compute_with_is_none():
    """Its square is 0: a posterior was NaN, as converged."""
    found = Bayesian(IVIM).estimate(np.full((1, len(ACQUISITION)), 1e-300), ACQUISITION)
    assert found.status.tolist() == [Status.NO_SIGNAL]
