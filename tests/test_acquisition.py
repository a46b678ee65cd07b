"""What was measured: shells, repeats, directions, averages, weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import least_squares

from bidsfit import models
from bidsfit.acquisition import Acquisition, DirectionAverage, count_directions, protocol_in_words
from bidsfit.exceptions import UnusableInputError


def shell_values(b_values: object) -> list[float]:
    return [shell.b_value for shell in Acquisition(b_values).shells]


def directions(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


protocols = st.lists(
    st.one_of(st.integers(0, 60), st.integers(0, 6000), st.floats(0, 6000)).map(float), min_size=1, max_size=40
)


class TestShells:
    @pytest.mark.parametrize(
        "b_values",
        [
            [0, 5, 10],
            [90, 100, 110],
            [0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800],
            [5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800],
            [0, 1000, 2000, 3500, 5000],
        ],
    )
    def test_values_of_real_protocols_stay_apart(self, b_values):
        assert shell_values(b_values) == b_values

    def test_jitter_makes_no_shells(self):
        rng = np.random.default_rng(0)
        nominal = np.repeat([0, 1000, 2000, 3000], [8, 30, 60, 60])
        b_values = np.where(nominal > 0, nominal + rng.integers(-25, 26, nominal.size), 0)
        shells = Acquisition(b_values).shells
        assert [shell.n_measurements for shell in shells] == [8, 30, 60, 60]
        assert [shell.b_value for shell in shells] == pytest.approx([0, 1000, 2000, 3000], abs=10)
        assert len(shell_values(np.arange(970, 1031, 5))) == 1

    def test_b_value_is_the_mean_of_those_acquired_not_a_rounded_one(self):
        assert shell_values([995, 1000, 1020]) == [1005]

    @given(b_values=protocols, seed=st.integers(0, 2**32 - 1))
    def test_shells_do_not_depend_on_the_order_of_acquisition(self, b_values, seed):
        order = np.random.default_rng(seed).permutation(len(b_values))
        before = Acquisition(b_values).shells
        after = Acquisition(np.array(b_values)[order]).shells
        assert [shell.n_measurements for shell in before] == [shell.n_measurements for shell in after]
        assert [shell.b_value for shell in before] == pytest.approx([shell.b_value for shell in after])

    @given(b_values=protocols)
    def test_every_measurement_is_in_one_shell_of_near_values(self, b_values):
        shells = Acquisition(b_values).shells
        assert sorted(np.concatenate([shell.indices for shell in shells])) == list(range(len(b_values)))
        for shell in shells:
            inside = np.array(b_values)[shell.indices]
            assert np.ptp(inside) <= max(0.08 * inside.max(), 1) + 1e-9
            assert inside.min() - 1e-9 <= shell.b_value <= inside.max() + 1e-9
        lowest = [min(np.array(b_values)[shell.indices]) for shell in shells]
        assert lowest == sorted(lowest)

    def test_counts_weight_the_mean_and_add_up(self):
        (shell,) = Acquisition([1000, 1010], counts=[3, 1]).shells
        assert shell.b_value == pytest.approx(1002.5)
        assert shell.n_measurements == 4

    def test_selection_keeps_what_belongs_to_each_measurement(self):
        acquisition = Acquisition(
            [0, 500, 1000], directions(3), counts=[1, 2, 3], n_directions=[1, 6, 12], TE=[50, 60, 70]
        )
        chosen = acquisition.select([2, 0])
        assert chosen.b_values.tolist() == [1000, 0]
        assert chosen.directions == pytest.approx(directions(3)[[2, 0]])
        assert chosen.weights.tolist() == [3, 1]
        assert chosen.n_directions.tolist() == [12, 1]
        assert chosen.variable("TE").tolist() == [70, 50]


class TestEchoTimes:
    def test_one_echo_time_changes_no_shell(self):
        b_values = [0, 995, 1005, 2000, 0]
        without, with_ = Acquisition(b_values).shells, Acquisition(b_values, TE=np.full(5, 89.1)).shells
        assert [shell.indices.tolist() for shell in with_] == [shell.indices.tolist() for shell in without]
        assert [shell.b_value for shell in with_] == [shell.b_value for shell in without]
        assert [shell.values.get("TE") for shell in with_] == pytest.approx([89.1] * 3)
        assert [shell.values.get("TE") for shell in without] == [None] * 3

    def test_shells_of_several_are_sorted_by_b_then_echo_time(self):
        shells = Acquisition([1000, 0, 1000, 0, 1010], TE=[80, 80, 60, 60, 60]).shells
        assert [(shell.b_value, shell.values.get("TE")) for shell in shells] == [
            (0, 60), (0, 80), (pytest.approx(1003.333, abs=1e-3), 60), (pytest.approx(1003.333, abs=1e-3), 80)
        ]  # fmt: skip
        assert [shell.indices.tolist() for shell in shells] == [[3], [1], [2, 4], [0]]

    def test_a_b_value_is_the_same_number_at_each(self):
        shells = Acquisition([995, 1005, 1000], TE=[60, 80, 110]).shells
        assert {shell.b_value for shell in shells} == {1000}

    def test_rounded_echo_times_are_one(self):
        assert len(Acquisition([0, 0, 0], TE=[89.1, 89.14, 89.06]).shells) == 1

    def test_impossible_ones_are_named(self):
        with pytest.raises(ValueError, match=r"Echo times must be finite.*found \[nan\]"):
            Acquisition([0, 1000], TE=[60, np.nan])


class TestColumns:
    def test_measurements_are_alike_where_every_column_is(self):
        """But for their direction: three diffusion times at one b-value are three shells."""
        acquisition = Acquisition([0, 800, 800, 800, 810], directions(5), diffusion_time=[20, 20, 30, 40, 20])
        shells = acquisition.shells
        assert [shell.indices.tolist() for shell in shells] == [[0], [1, 4], [2], [3]]
        averaged = DirectionAverage(acquisition).acquisition
        assert averaged.variable("diffusion_time").tolist() == [20, 20, 30, 40]

    def test_a_model_that_does_not_know_a_column_that_varies_is_refused(self):
        support = models.get("adc").support(Acquisition([0, 800, 800], diffusion_time=[20, 20, 40]))
        (missing,) = support.missing
        assert missing.startswith("one diffusion time (the model does not describe its influence)")
        assert missing.endswith("the protocol has 20, 40 ms")
        assert models.get("adc").support(Acquisition([0, 800, 800], diffusion_time=[20, 20, 20]))

    def test_any_name_is_a_column(self):
        acquisition = Acquisition(voltage=[-3.5, 2.0, 2.0])
        assert len(acquisition) == 3
        assert [shell.values for shell in acquisition.shells] == [{"voltage": -3.5}, {"voltage": 2.0}]
        assert acquisition.select([2]).columns["voltage"].tolist() == [2.0]

    def test_none_at_all_is_refused(self):
        with pytest.raises(ValueError, match="needs at least one column"):
            Acquisition()

    def test_frames_have_names(self):
        assert Acquisition([0], frame="xyz").select([0]).frame == "xyz"
        with pytest.raises(ValueError, match="is bvec or xyz, found 'ras'"):
            Acquisition([0], frame="ras")

    @pytest.mark.parametrize(
        ("acquisition", "words"),
        [
            (Acquisition([0, 0, 1000], counts=[1, 2, 30]), "b = 0 (x3), 1000 (x30) s/mm²"),
            (Acquisition([0, 1000, 1000], TE=[60, 60, 80]), "b = 0 at TE = 60 ms (x1), 1000 at TE = 60 ms (x1), "
             "1000 at TE = 80 ms (x1) s/mm²"),
            (Acquisition(TI=[50, 400]), "TI = 50 (x1), 400 (x1) ms"),
            (Acquisition(flip_angle=np.arange(1, 101), TR=np.full(100, 9.0)),
             "100 measurements: flip angle = 1 to 100 degrees"),
        ],
    )  # fmt: skip
    def test_protocols_in_words(self, acquisition, words):
        assert protocol_in_words(acquisition) == words


class TestDirections:
    def test_antipodes_and_repeats_are_one_direction(self):
        vectors = directions(12)
        assert count_directions(np.concatenate([vectors, -vectors, vectors])) == 12

    def test_length_does_not_matter(self):
        vectors = directions(6)
        assert count_directions(np.concatenate([vectors, 3 * vectors])) == 6

    def test_a_degree_is_the_limit(self):
        def pair(degrees):
            angle = np.deg2rad(degrees)
            return np.array([[1, 0, 0], [np.cos(angle), np.sin(angle), 0]])

        assert count_directions(pair(0.5)) == 1
        assert count_directions(pair(2)) == 2

    def test_no_direction_counts_as_one(self):
        assert count_directions(np.zeros((4, 3))) == 1

    def test_shells_count_their_own(self):
        vectors = np.concatenate([np.zeros((2, 3)), directions(6), directions(10, seed=1)])
        shells = Acquisition(np.repeat([0, 1000, 2000], [2, 6, 10]), vectors).shells
        assert [shell.n_directions for shell in shells] == [1, 6, 10]

    def test_averaged_data_say_how_many(self):
        assert [s.n_directions for s in Acquisition([0, 1000], n_directions=[1, 32]).shells] == [1, 32]

    def test_unknown_directions_count_as_one(self):
        assert [s.n_directions for s in Acquisition([1000] * 8).shells] == [1]


class TestAverage:
    b_values = (1000, 0, 1000, 500, 0, 1000)
    shells = ((1, 4), (3,), (0, 2, 5))

    @pytest.fixture
    def signals(self):
        return np.random.default_rng(3).uniform(1, 2, (7, 6))

    @pytest.mark.parametrize("kind", ["arithmetic", "geometric"])
    def test_mean_of_each_shell(self, signals, kind):
        average = DirectionAverage(Acquisition(self.b_values), kind)
        mean = np.mean if kind == "arithmetic" else lambda x, axis: np.prod(x, axis) ** (1 / x.shape[axis])
        expected = np.stack([mean(signals[:, list(index)], axis=1) for index in self.shells], axis=1)
        assert average(signals) == pytest.approx(expected, rel=1e-14)
        assert average.acquisition.b_values.tolist() == [0, 500, 1000]
        assert average.acquisition.weights.tolist() == [2, 1, 3]

    @pytest.mark.parametrize("kind", ["arithmetic", "geometric"])
    def test_averages_of_averages_are_averages(self, signals, kind):
        acquisition = Acquisition(self.b_values)
        once = DirectionAverage(acquisition, kind)
        part = DirectionAverage(acquisition.select([0, 1, 2, 3]), kind)  # then the rest, unaveraged
        joined = Acquisition(
            np.concatenate([part.acquisition.b_values, [0, 1000]]),
            counts=np.concatenate([part.acquisition.counts, [1, 1]]),
        )
        twice = DirectionAverage(joined, kind)
        both = np.concatenate([part(signals[:, :4]), signals[:, 4:]], axis=1)
        assert twice(both) == pytest.approx(once(signals), rel=1e-14)
        assert twice.acquisition.weights.tolist() == once.acquisition.weights.tolist()

    def test_none_changes_nothing(self, signals):
        acquisition = Acquisition(self.b_values)
        average = DirectionAverage(acquisition, "none")
        assert average(signals) is signals
        assert average.acquisition is acquisition

    def test_any_leading_shape(self, signals):
        average = DirectionAverage(Acquisition(self.b_values))
        assert average(signals.reshape(7, 1, 6)).shape == (7, 1, 3)
        assert average(signals[0]) == pytest.approx(average(signals)[0], rel=1e-14)

    def test_different_echo_times_are_not_averaged(self):
        average = DirectionAverage(Acquisition([0, 1000, 0, 0], TE=[60, 70, 50, 60]))
        assert average.acquisition.b_values.tolist() == [0, 0, 1000]
        assert average.acquisition.variable("TE").tolist() == [50, 60, 70]
        assert average.acquisition.weights.tolist() == [1, 2, 1]
        assert average(np.array([[1.0, 2.0, 5.0, 3.0]])).tolist() == [[5, 2, 2]]

    def test_input_is_not_written_to(self, signals):
        signals.setflags(write=False)
        for kind in ("arithmetic", "geometric"):
            DirectionAverage(Acquisition(self.b_values), kind)(signals)

    def test_negative_signals_enter_the_arithmetic_mean(self):
        assert DirectionAverage(Acquisition([0, 0]))(np.array([[-1.0, 3.0]])).tolist() == [[1.0]]

    @pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
    def test_the_geometric_mean_is_nan_where_a_signal_is_not_positive(self, value):
        average = DirectionAverage(Acquisition([0, 0, 1000, 1000]), "geometric")
        found = average(np.array([[value, 3.0, 2.0, 2.0], [3.0, 3.0, 2.0, 2.0]]))
        assert np.isnan(found[0, 0])
        assert found[1] == pytest.approx([3, 2])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_stays_so_without_a_warning(self, value):
        found = DirectionAverage(Acquisition([0, 0, 1000]))(np.array([[value, 1.0, 1.0], [1.0, 1.0, 1.0]]))
        assert not np.isfinite(found[0, 0])
        assert found[1].tolist() == [1.0, 1.0]

    @given(
        signals=arrays(float, (4, 9), elements=st.floats(0.1, 1e6)),
        b_values=st.permutations([0, 0, 0, 50, 50, 1000, 1000, 1000, 1000]),
    )
    def test_geometric_never_exceeds_arithmetic(self, signals, b_values):
        acquisition = Acquisition(b_values)
        geometric, arithmetic = (DirectionAverage(acquisition, k)(signals) for k in ("geometric", "arithmetic"))
        assert np.all(geometric <= arithmetic * (1 + 1e-12))

    def test_a_weighted_fit_of_averages_is_the_fit_of_all_measurements(self):
        rng = np.random.default_rng(1)
        acquisition = Acquisition(np.repeat([0.0, 300, 1000, 2000], [2, 5, 11, 30]))
        b = acquisition.variable("b")
        signals = 2 * np.exp(-b * 0.8) + 0.05 * rng.standard_normal(b.size)
        average = DirectionAverage(acquisition)
        y, shells = average(signals), average.acquisition
        everything = least_squares(lambda x: x[0] * np.exp(-b * x[1]) - signals, [1, 1], xtol=1e-14)
        weighted = least_squares(
            lambda x: np.sqrt(shells.weights) * (x[0] * np.exp(-shells.variable("b") * x[1]) - y), [1, 1], xtol=1e-14
        )
        assert weighted.x == pytest.approx(everything.x, rel=1e-6)
        unweighted = least_squares(lambda x: x[0] * np.exp(-shells.variable("b") * x[1]) - y, [1, 1])
        assert abs(unweighted.x[1] / everything.x[1] - 1) > 1e-4  # the weights matter here


def test_directions_of_any_length_count():
    """Squares of very small numbers are 0, and so would be the lengths."""
    assert count_directions(np.array([[1e-200, 0, 0], [5, 0, 0], [0, 1e5, 0], [0, 0, 0]])) == 2


class TestErrors:
    @pytest.mark.parametrize("value", [-5, np.nan, np.inf])
    def test_impossible_b_values_are_named(self, value):
        with pytest.raises(ValueError, match=rf"at most 1e\+06 s/mm², found \[ ?{value}"):
            Acquisition([0, value])

    @pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (1e308, r"1\.e\+308")])
    def test_impossible_directions_are_named(self, value, said):
        with pytest.raises(ValueError, match=rf"Directions must be finite .* found \[ ?{said}"):
            Acquisition([0, 1000], directions=[[0, 0, 0], [0, value, 1]])

    @pytest.mark.parametrize("b_values", [[], [[0, 1000]]])
    def test_not_a_list(self, b_values):
        with pytest.raises(ValueError, match="list of numbers"):
            Acquisition(b_values)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("Directions", {"directions": np.zeros((2, 3))}),
            ("Directions", {"directions": np.zeros((3, 2))}),
            ("Counts", {"counts": [1, 1]}),
            ("Numbers of directions", {"n_directions": [[1, 1, 1]]}),
            ("Echo times", {"TE": 50}),
        ],
    )
    def test_shapes_that_disagree(self, name, values):
        with pytest.raises(ValueError, match=f"^{name} must have shape"):
            Acquisition([0, 500, 1000], **values)

    def test_variables(self):
        acquisition = Acquisition([0, 1000])
        assert acquisition.variable("b").tolist() == [0, 1]
        with pytest.raises(ValueError, match="needs echo times"):
            acquisition.variable("TE")
        with pytest.raises(ValueError, match=r"needs inversion times \(TI\)"):
            acquisition.variable("TI")

    def test_unknown_average(self):
        with pytest.raises(ValueError, match="'median'; valid: arithmetic, geometric, none"):
            DirectionAverage(Acquisition([0]), "median")


class TestFromFiles:
    @pytest.fixture
    def beside(self, tmp_path):
        (tmp_path / "dwi.bval").write_text("0 500 1000\n")
        (tmp_path / "dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
        (tmp_path / "dwi.json").write_text('{"EchoTime": 0.08}')
        return tmp_path

    def test_all_of_them(self, beside):
        files = (beside / "dwi.bval", beside / "dwi.bvec", beside / "dwi.json")
        for found in (Acquisition.from_files(*files), Acquisition.from_files(*map(str, files))):
            assert found.b_values.tolist() == [0, 500, 1000]
            assert found.directions[1].tolist() == [1, 0, 0]
            assert found.variable("TE") == pytest.approx(80)

    def test_b_values_alone(self, beside):
        found = Acquisition.from_files(beside / "dwi.bval")
        assert found.directions is None
        assert "TE" not in found.columns

    def test_files_that_disagree_or_are_not_there(self, beside):
        (beside / "dwi.bvec").write_text("0 1\n0 0\n0 0\n")
        with pytest.raises(UnusableInputError, match=r"dwi\.bvec"):
            Acquisition.from_files(beside / "dwi.bval", beside / "dwi.bvec")
        with pytest.raises(UnusableInputError, match=r"none\.json"):
            Acquisition.from_files(beside / "dwi.bval", sidecar=beside / "none.json")
