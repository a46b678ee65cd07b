"""Bounded least squares: the truth without noise, SciPy's solutions with it, and what must hold in every voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from bidsfit import Acquisition, Estimate, LeastSquares, Status, estimators, models
from bidsfit.estimators import estimator as base
from bidsfit.estimators.solver import starting_points
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError
from bidsfit.noise import add_noise

ACQUISITIONS = {
    "adc": Acquisition([0, 100, 300, 500, 800, 1000]),
    "ivim": Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]),
    "smt2": Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32]),
}
RANGES = {
    "adc": {"D": (0.2, 3.0)},
    "ivim": {"f": (0.05, 0.5), "D": (0.3, 2.5), "Dstar": (8.0, 80.0)},
    "smt2": {"vcyl": (0.05, 0.95), "lambda": (0.3, 2.9)},
}
NAMES = tuple(ACQUISITIONS)


def truth_of(name: str, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"S0": rng.uniform(50, 2000, n)} | {k: rng.uniform(*v, n) for k, v in RANGES[name].items()}


def simulated(name: str, n: int, snr: float, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Gaussian noise: its least-squares fits are the most likely ones."""
    truth, acquisition = truth_of(name, n, seed), ACQUISITIONS[name]
    sigma = truth["S0"][:, None] / snr / np.sqrt(acquisition.weights)
    clean = models.get(name).signal(truth, acquisition)
    return add_noise(clean, sigma, "gaussian", np.random.default_rng(seed + 1)), truth


def fit(name: str, signals: np.ndarray, **options: object) -> Estimate:
    return LeastSquares(models.get(name), **options).estimate(signals, ACQUISITIONS[name])


def as_array(name: str, estimate: Estimate) -> np.ndarray:
    return np.stack([estimate.parameters[n] for n in models.get(name).names], axis=1)


class TestSolutions:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_truth_is_found_without_noise(self, name):
        signals, truth = simulated(name, 2000, np.inf)
        estimate = fit(name, signals)
        assert np.max(estimate.rmse / truth["S0"]) < 1e-6
        for parameter, expected in truth.items():
            error = np.abs(estimate.parameters[parameter] / expected - 1)
            assert np.mean(error < 1e-4) > 0.995, parameter
            assert error.max() < 0.02, parameter  # flat valleys: the signals agree to a millionth there
        assert set(estimate.count()) <= {Status.CONVERGED, Status.AT_BOUND}
        assert estimate.r2 == pytest.approx(np.ones(2000), abs=1e-9)

    @pytest.mark.parametrize(("name", "snr"), [("adc", 10), ("ivim", 50), ("ivim", 12), ("smt2", 10)])
    def test_sums_of_squares_are_those_of_scipy(self, name, snr):
        """SciPy's bounded solver with our Jacobian and our starting points, every voxel."""
        model, acquisition, n = models.get(name), ACQUISITIONS[name], 600
        signals, _ = simulated(name, n, snr)
        signals = signals / signals[:, :1]
        estimator, root = LeastSquares(model), np.sqrt(acquisition.weights)
        ours = estimator.estimate(signals, acquisition).rmse ** 2 * acquisition.weights.sum()

        nodes = starting_points(model, estimator.bounds)
        unit = model.signal(nodes, acquisition) * root
        norms = np.linalg.norm(unit, axis=1)
        scores = (signals * root) @ (unit / norms[:, None]).T
        best = scores.argmax(axis=1)
        starts = nodes[best]
        starts[:, 0] = scores.max(axis=1) / norms[best]

        def solve(y: np.ndarray, start: np.ndarray) -> tuple[float, bool]:
            solution = least_squares(
                lambda x: root * (model.signal(x, acquisition) - y),
                start,
                lambda x: root[:, None] * model.signal_and_jacobian(x, acquisition)[1],
                bounds=tuple(estimator.bounds.T),
            )
            matrix, limits = model.linear_constraints
            return 2 * solution.cost, bool(np.all(matrix @ solution.x <= limits))

        theirs, feasible = np.array([solve(y, x) for y, x in zip(signals, starts, strict=True)]).T
        worse = (ours > 1.001 * theirs) & (feasible > 0)
        assert worse.mean() <= 0.005
        assert np.median(ours / theirs) == pytest.approx(1, abs=1e-6)

    def test_a_step_that_bounds_spoil_does_not_end_the_descent(self):
        """Two shells of real protocols put several parameters on their bounds at once."""
        model, acquisition = models.get("smt2"), Acquisition([0, 1000, 2000], n_directions=[1, 30, 60])
        rng = np.random.default_rng(0)
        truth = {"S0": 1.0, "vcyl": rng.uniform(0.3, 1, 400), "lambda": rng.uniform(2.5, 3, 400)}
        signals = model.signal(truth, acquisition) + rng.normal(0, 0.05, (400, 3))
        estimator = LeastSquares(model)
        estimate = estimator.estimate(signals, acquisition)
        nodes = starting_points(model, estimator.bounds)
        found = np.stack([estimate.parameters["vcyl"], estimate.parameters["lambda"]], axis=1)
        stuck = (found[:, None] == nodes[None, :, 1:]).all(axis=2).any(axis=1)
        free = np.abs(found[:, 0] - 0.5) < 0.5  # not in a corner of the box
        assert not np.any(stuck & free)

    def test_weights_are_those_of_the_acquisition(self):
        model, b = models.get("adc"), [0.0, 300.0, 1000.0]
        rng = np.random.default_rng(0)
        y = model.signal({"S0": 1.0, "D": 1.0}, Acquisition(b)) + rng.normal(0, 0.05, (50, 3))
        counts = np.array([1, 4, 25])
        weighted = LeastSquares(model).estimate(y, Acquisition(b, counts=counts))
        repeated = LeastSquares(model).estimate(np.repeat(y, counts, axis=1), Acquisition(np.repeat(b, counts)))
        assert weighted.parameters["D"] == pytest.approx(repeated.parameters["D"], rel=1e-9)
        unweighted = LeastSquares(model).estimate(y, Acquisition(b))
        assert np.abs(weighted.parameters["D"] - unweighted.parameters["D"]).max() > 1e-3

    def test_averages_fit_as_all_their_measurements_do(self):
        model = models.get("ivim")
        acquisition = Acquisition(np.repeat(ACQUISITIONS["ivim"].b_values, 3))
        rng = np.random.default_rng(0)
        truth = truth_of("ivim", 200)
        signals = model.signal(truth, acquisition) * (1 + rng.normal(0, 0.01, (200, len(acquisition))))
        averaged = LeastSquares(model).estimate(signals, acquisition)
        single = LeastSquares(model, averaging="none").estimate(signals, acquisition)
        assert len(averaged.acquisition) == 16
        assert len(single.acquisition) == 48
        difference = np.abs(as_array("ivim", averaged) / as_array("ivim", single) - 1)
        assert np.quantile(difference, 0.99) < 0.01  # far below the noise; the stopping rule sees other sums

    def test_geometric_average(self):
        acquisition = Acquisition([0, 1000, 1000, 1000])
        diffusivities = np.array([0.5, 1.0, 1.5])  # of three directions
        signals = np.array([[100.0, *100 * np.exp(-diffusivities)]])
        model = models.get("adc")
        trace = LeastSquares(model, averaging="geometric").estimate(signals, acquisition)
        assert trace.parameters["D"] == pytest.approx([1.0], rel=1e-9)
        arithmetic = LeastSquares(model).estimate(signals, acquisition)
        assert arithmetic.parameters["D"][0] < 0.97

    def test_measurements_beyond_the_model_are_left_out(self):
        model = models.get("adc")
        acquisition = Acquisition([0, 500, 1000, 3000])
        signals = model.signal({"S0": [10.0], "D": [1.0]}, acquisition)
        signals[:, 3] = np.nan
        estimate = LeastSquares(model).estimate(signals, acquisition)
        assert estimate.parameters["D"] == pytest.approx([1.0], rel=1e-8)
        assert estimate.acquisition.b_values.tolist() == [0, 500, 1000]

    def test_data_without_b_0(self):
        model, acquisition = models.get("ivim"), Acquisition([5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800])
        truth = truth_of("ivim", 200)
        estimate = LeastSquares(model).estimate(model.signal(truth, acquisition), acquisition)
        assert np.median(np.abs(estimate.parameters["S0"] / truth["S0"] - 1)) < 1e-6
        assert np.median(np.abs(estimate.parameters["Dstar"] / truth["Dstar"] - 1)) < 1e-4


class TestConstraints:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("snr", [1.0, 5.0])
    def test_bounds_hold_in_every_voxel(self, name, snr):
        signals, _ = simulated(name, 3000, snr)
        estimate = fit(name, signals)
        fitted = np.isin(estimate.status, base.FITTED)
        assert fitted.mean() > 0.7
        for parameter in models.get(name).parameters:
            values = estimate.parameters[parameter.name][fitted]
            assert values.min() >= parameter.bounds[0]
            assert values.max() <= parameter.bounds[1]

    @pytest.mark.parametrize("dstar", [(3.0, 200.0), (0.0, 200.0)])
    def test_d_never_exceeds_dstar(self, dstar):
        model, acquisition, n = models.get("ivim"), ACQUISITIONS["ivim"], 4000
        rng = np.random.default_rng(0)
        truth = {"S0": 1.0, "f": rng.uniform(0, 1, n), "D": rng.uniform(1, 5, n), "Dstar": rng.uniform(3, 6, n)}
        signals = model.signal(truth, acquisition) + rng.normal(0, 0.1, (n, len(acquisition)))
        estimate = LeastSquares(model, bounds={"Dstar": dstar}).estimate(signals, acquisition)
        fitted = np.isin(estimate.status, base.FITTED)
        d, fast = estimate.parameters["D"][fitted], estimate.parameters["Dstar"][fitted]
        assert np.all(d <= fast)
        ordered = d >= fast - 1e-9
        assert ordered.any(), "the constraint must be met somewhere for this test to say anything"
        assert np.all(estimate.status[fitted][ordered] == Status.AT_BOUND)

    def test_two_compartments_never_fit_worse_than_one(self):
        """Models are nested: f = 0, or D = D*, is one exponential. Many of these fits end on the constraint."""
        acquisition, n = ACQUISITIONS["ivim"], 2000
        b, rng = acquisition.variable("b"), np.random.default_rng(0)
        signals = np.exp(-b * rng.uniform(1, 5, (n, 1))) + rng.normal(0, 0.05, (n, 16))
        meeting = {"D": (0.0, 5.0), "Dstar": (3.0, 200.0)}
        two = LeastSquares(models.get("ivim"), bounds=meeting).estimate(signals, acquisition)
        one = LeastSquares(models.get("adc")).estimate(signals, acquisition)
        both = np.isfinite(one.rmse) & np.isfinite(two.rmse)
        assert both.mean() > 0.99
        assert np.mean(two.rmse[both] > one.rmse[both] * (1 + 1e-6)) <= 0.002

    def test_own_bounds(self):
        signals, _ = simulated("ivim", 500, 10)
        bounds = {"D": (0.5, 1.0), "f": (0.1, 0.2)}
        estimate = fit("ivim", signals, bounds=bounds)
        for name, (lower, upper) in bounds.items():
            assert np.nanmin(estimate.parameters[name]) >= lower
            assert np.nanmax(estimate.parameters[name]) <= upper
        estimator = LeastSquares(models.get("ivim"), bounds=bounds)
        assert estimator.options["bounds"]["D"] == (0.5, 1.0)
        assert "S0" not in estimator.options["bounds"]

    def test_equal_bounds_fix_a_parameter(self):
        signals, truth = simulated("ivim", 300, np.inf)
        signals = models.get("ivim").signal(truth | {"Dstar": 20.0}, ACQUISITIONS["ivim"])
        estimate = fit("ivim", signals, bounds={"Dstar": (20, 20)})
        assert np.all(estimate.parameters["Dstar"] == 20)
        assert estimate.parameters["f"] == pytest.approx(truth["f"], rel=1e-5)
        assert estimate.freedom == 16 - 3
        assert set(estimate.count()) == {Status.CONVERGED}, "a fixed parameter is not at its bound"


class TestScale:
    def test_measured_s0_is_the_mean_at_b_0(self):
        acquisition = Acquisition([0, 0, 0, 200, 600, 1000])
        rng = np.random.default_rng(0)
        model = models.get("adc")
        signals = model.signal({"S0": np.full(100, 500.0), "D": 1.0}, acquisition) + rng.normal(0, 20, (100, 6))
        estimate = LeastSquares(model, s0="measured").estimate(signals, acquisition)
        assert estimate.parameters["S0"] == pytest.approx(signals[:, :3].mean(axis=1), rel=1e-14)
        assert np.std(estimate.parameters["D"]) > 0
        assert estimate.freedom == 4 - 2, "a measured S0 uses up the measurement at b = 0"
        assert LeastSquares(model, s0="measured").options["s0"] == "measured"

    def test_what_the_imaging_gradients_weight_is_b_0(self):
        b = np.array([1.29, 200, 400, 800])
        model = models.get("adc")
        estimate = LeastSquares(model, s0="measured").estimate(100 * np.exp(-b * 1e-3)[None], Acquisition(b))
        assert estimate.parameters["D"] == pytest.approx(1.0, rel=0.005)

    def test_measured_s0_needs_b_0(self):
        signals = np.ones((1, 5))
        with pytest.raises(UnsupportedProtocolError, match="an image at b = 0"):
            LeastSquares(models.get("adc"), s0="measured").estimate(signals, Acquisition([5, 100, 200, 400, 800]))

    @pytest.mark.parametrize("scale", [1e-3, 2.0**-40, 7.0, 1e6])
    def test_signals_may_have_any_scale(self, scale):
        signals, _ = simulated("ivim", 1000, 20)
        one, other = fit("ivim", signals), fit("ivim", signals * scale)
        assert other.rmse == pytest.approx(one.rmse * scale, rel=1e-6)
        assert np.mean(other.status == one.status) > 0.998
        close = np.isclose(as_array("ivim", other), as_array("ivim", one) * [scale, 1, 1, 1], rtol=1e-6)
        assert close.all(axis=1).mean() > 0.99


class TestStatus:
    def test_voxels_that_cannot_be_fitted(self):
        acquisition = ACQUISITIONS["adc"]
        good = models.get("adc").signal({"S0": 100.0, "D": 1.0}, acquisition)
        signals = np.tile(good, (8, 1))
        signals[1, 2] = np.nan
        signals[2, 0] = np.inf
        signals[3, 4] = -np.inf
        signals[4] = 0
        signals[5] *= -1
        signals[6, 0] = 0
        estimate = fit("adc", signals)
        assert estimate.status.tolist() == [1, 4, 4, 4, 5, 5, 5, 1]
        assert estimate.status.dtype == np.uint8
        unusable = estimate.status > 3
        for values in (*estimate.parameters.values(), estimate.rmse, estimate.r2, estimate.sigma):
            assert np.isnan(values[unusable]).all()
            assert np.isfinite(values[~unusable]).all()
        assert estimate.count() == {Status.CONVERGED: 2, Status.NOT_FINITE: 3, Status.NO_SIGNAL: 3}

    def test_a_few_negative_signals_do_not_stop_a_fit(self):
        signals = np.array([[100.0, 60, 20, -3, 2, -1]])
        estimate = fit("adc", signals)
        assert estimate.status[0] in base.FITTED
        assert fit("adc", signals, averaging="geometric").status.tolist() == [Status.NOT_FINITE]

    def test_parameters_at_a_bound_are_flagged(self):
        b = ACQUISITIONS["adc"].variable("b")
        signals = np.stack([np.exp(-b), np.exp(-8 * b), np.exp(0.1 * b)])
        estimate = fit("adc", signals)
        assert estimate.status.tolist() == [Status.CONVERGED, Status.AT_BOUND, Status.AT_BOUND]
        assert estimate.parameters["D"][1:].tolist() == [5, 0]

    def test_every_code_says_what_happened(self):
        assert [int(status) for status in Status] == list(range(len(Status)))
        assert all(len(status.message) > 10 for status in Status)
        assert Status(4) is Status.NOT_FINITE

    @pytest.mark.parametrize("name", NAMES)
    def test_the_iteration_limit_is_hardly_ever_met(self, name):
        signals, _ = simulated(name, 5000, 15)
        assert fit(name, signals).count().get(Status.ITERATION_LIMIT, 0) <= 5


class Lazy:
    """Signals that are there by slice only, as those of an image on disk."""

    def __init__(self, signals: np.ndarray) -> None:
        self._signals = signals
        self.largest = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._signals.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self._signals[rows]
        self.largest = max(self.largest, len(found))
        return found


class TestSignals:
    def test_threads_change_nothing(self, monkeypatch):
        monkeypatch.setattr(base.Estimator, "chunk", 64)
        signals, _ = simulated("ivim", 1000, 10)
        estimator = LeastSquares(models.get("ivim"))
        one, many = (estimator.estimate(signals, ACQUISITIONS["ivim"], threads=n) for n in (1, 4))
        assert np.array_equal(as_array("ivim", one), as_array("ivim", many))
        assert np.array_equal(one.status, many.status)
        assert np.array_equal(one.sigma, many.sigma)

    @pytest.mark.parametrize("chunk", [1, 37])
    def test_chunks_change_nothing(self, monkeypatch, chunk):
        signals, _ = simulated("smt2", 200, 10)
        whole = fit("smt2", signals)
        monkeypatch.setattr(base.Estimator, "chunk", chunk)
        parts = fit("smt2", signals)
        assert as_array("smt2", parts) == pytest.approx(as_array("smt2", whole), rel=1e-6, abs=1e-9)
        assert parts.r2 == pytest.approx(whole.r2, rel=1e-9)

    def test_progress_counts_every_voxel_once(self, monkeypatch):
        monkeypatch.setattr(base.Estimator, "chunk", 64)
        signals, _ = simulated("adc", 1000, 10)
        finished: list[float] = []
        LeastSquares(models.get("adc")).estimate(signals, ACQUISITIONS["adc"], progress=finished.append, threads=2)
        assert finished[-1] == 1
        assert len(finished) == 16

    def test_signals_are_read_by_slice_and_never_whole(self, monkeypatch):
        monkeypatch.setattr(base.Estimator, "chunk", 100)
        signals, _ = simulated("adc", 950, 20)
        lazy = Lazy(signals)
        estimate = LeastSquares(models.get("adc")).estimate(lazy, ACQUISITIONS["adc"])
        assert np.array_equal(as_array("adc", estimate), as_array("adc", fit("adc", signals)))
        assert lazy.largest == 100

    @pytest.mark.parametrize("averaging", ["arithmetic", "geometric", "none"])
    def test_input_is_never_written_to(self, averaging):
        signals, _ = simulated("adc", 50, 5)
        signals[0, 0] = np.nan
        before = signals.copy()
        signals.setflags(write=False)
        fit("adc", signals, averaging=averaging)
        assert np.array_equal(signals, before, equal_nan=True)

    @pytest.mark.parametrize("dtype", ["int16", ">i2", "float32", ">f8"])
    def test_any_type_of_number(self, dtype):
        signals, _ = simulated("adc", 50, 50)
        stored = signals.astype(dtype)
        estimate = fit("adc", np.asfortranarray(stored))
        assert np.array_equal(as_array("adc", estimate), as_array("adc", fit("adc", stored.astype(float))))

    def test_no_voxels(self):
        estimate = fit("adc", np.empty((0, 6)))
        assert estimate.status.shape == (0,)
        assert estimate.count() == {}

    def test_errors_of_a_chunk_are_raised(self):
        class Broken(Lazy):
            def __getitem__(self, rows: slice) -> np.ndarray:
                raise OSError("disk is gone")

        with pytest.raises(OSError, match="disk is gone"):
            LeastSquares(models.get("adc")).estimate(Broken(np.ones((5, 6))), ACQUISITIONS["adc"])


class TestStatistics:
    def test_rmse_and_r2(self):
        acquisition = ACQUISITIONS["smt2"]
        signals, _ = simulated("smt2", 100, 20)
        estimate = fit("smt2", signals)
        w = acquisition.weights
        squares = (signals - models.get("smt2").signal(estimate.parameters, acquisition)) ** 2
        assert estimate.rmse == pytest.approx(np.sqrt(np.average(squares, axis=1, weights=w)), rel=1e-7)
        spread = (signals - np.average(signals, axis=1, weights=w)[:, None]) ** 2
        assert estimate.r2 == pytest.approx(1 - (squares @ w) / (spread @ w), rel=1e-7)

    @pytest.mark.parametrize("name", NAMES)
    def test_sigma_is_that_of_one_measurement(self, name):
        signals, truth = simulated(name, 4000, 25)
        estimate = fit(name, signals)
        inside = estimate.status == Status.CONVERGED
        relative = estimate.sigma[inside] * 25 / truth["S0"][inside]
        assert np.sqrt(np.mean(relative**2)) == pytest.approx(1, abs=0.05)
        assert estimate.freedom == len(ACQUISITIONS[name]) - len(models.get(name).names)

    def test_an_exact_fit_says_nothing_about_itself(self):
        acquisition = Acquisition([0, 1000])
        estimate = LeastSquares(models.get("adc")).estimate(np.array([[100.0, 40.0]]), acquisition)
        assert estimate.parameters["D"] == pytest.approx([np.log(2.5)], rel=1e-9)
        assert estimate.freedom == 0
        for values in (estimate.rmse, estimate.r2, estimate.sigma):
            assert np.isnan(values).all()

    def test_constant_signals_have_no_r2(self):
        estimate = fit("adc", np.full((1, 6), 5.0))
        assert estimate.parameters["D"] == pytest.approx([0], abs=1e-9)
        assert estimate.rmse == pytest.approx([0], abs=1e-9)
        assert np.isnan(estimate.r2).all()


class TestErrors:
    def test_unknown_options(self):
        ivim = models.get("ivim")
        with pytest.raises(ValueError, match="s0 must be 'fitted' or 'measured', found 'guess'"):
            LeastSquares(ivim, s0="guess")
        with pytest.raises(ValueError, match=r"has no parameter \['Dfast'\]; it has S0, f, D, Dstar"):
            LeastSquares(ivim, bounds={"Dfast": (0, 1)})
        with pytest.raises(ValueError, match="Bounds of 'S0'"):
            LeastSquares(ivim, bounds={"S0": (0, 1)})
        with pytest.raises(ValueError, match="Bounds of 'D' must be lower <= upper, found 2 and 1"):
            LeastSquares(ivim, bounds={"D": (2, 1)})
        with pytest.raises(ValueError, match="Bounds of 'D'"):
            LeastSquares(ivim, bounds={"D": (np.nan, 1)})
        with pytest.raises(ValueError, match="leave no room for D <= Dstar"):
            LeastSquares(ivim, bounds={"D": (4, 5), "Dstar": (1, 2)})

    def test_a_model_of_averages_cannot_do_without(self):
        with pytest.raises(ValueError, match="'smt2' describes direction averages"):
            LeastSquares(models.get("smt2"), averaging="none")

    @pytest.mark.parametrize("shape", [(5, 4), (6,), (2, 6, 3)])
    def test_signals_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"must have shape \(n_voxels, 6\)"):
            fit("adc", np.ones(shape))

    def test_protocols_that_do_not_support_the_model(self):
        with pytest.raises(UnsupportedProtocolError, match="200 and 1000"):
            LeastSquares(models.get("ivim")).estimate(np.ones((1, 5)), Acquisition([0, 5, 10, 20, 40]))

    def test_names(self):
        assert estimators.get("lsq") is LeastSquares
        with pytest.raises(UnknownNameError, match=r"Unknown estimator 'lsqr'. Did you mean 'lsq'\?"):
            estimators.get("lsqr")


def test_smt_is_as_accurate_as_the_traditional_fitting_of_the_paper():
    """Gyori et al. 2022: 21 x 21 grid, SNR 25, 32 directions a shell, S0 free of noise; mean RMSE over the grid."""
    model, repeats = models.get("smt2"), 100
    acquisition = Acquisition([0, 1000, 2000, 3500, 5000], counts=[1, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
    vcyl, diffusivity = (x.ravel() for x in np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 3, 21), indexing="ij"))
    clean = np.repeat(model.signal({"S0": 1.0, "vcyl": vcyl, "lambda": diffusivity}, acquisition), repeats, axis=0)
    noise = np.random.default_rng(0).normal(0, 1 / 25 / np.sqrt(32), clean.shape)
    noise[:, 0] = 0
    estimate = LeastSquares(model, s0="measured").estimate(clean + noise, acquisition)
    for name, truth, limit in (("vcyl", vcyl, 0.0883), ("lambda", diffusivity, 0.1106)):
        errors = estimate.parameters[name].reshape(-1, repeats) - truth[:, None]
        assert np.sqrt(np.mean(errors**2, axis=1)).mean() <= limit
