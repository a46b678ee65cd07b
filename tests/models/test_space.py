"""The plausible space: a cube that covers it, and points that are uniform over it."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bidsfit import models
from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter
from bidsfit.models.space import ParameterSpace, fill
from bidsfit.models.symbolic import SymbolicModel

NAMES = ("adc", "ivim", "ivimlebihan", "smt2", "smt3", "smt3normalised")
SPACES = {name: ParameterSpace(models.get(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_inside_the_cube_nothing_is_lost(name, data):
    space = SPACES[name]
    inside = st.floats(1e-3, 1 - 1e-3)
    cube = np.array([[data.draw(inside) for _ in space.names] for _ in range(4)])
    parameters = space.from_cube(cube)
    assert space.contains(parameters).all()
    np.testing.assert_allclose(space.to_cube(parameters), cube, atol=1e-9)
    np.testing.assert_allclose(space.from_cube(space.to_cube(parameters)), parameters, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_cube_is_plausible_and_covers_the_whole_space(name):
    space = SPACES[name]
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * len(space.names), indexing="ij"), axis=-1)
    parameters = space.from_cube(corners)
    assert parameters.shape == corners.shape
    assert space.contains(parameters.reshape(-1, len(space.names))).all()
    np.testing.assert_array_equal(parameters.min(axis=tuple(range(parameters.ndim - 1))), space.bounds[:, 0])
    np.testing.assert_array_equal(parameters.max(axis=tuple(range(parameters.ndim - 1))), space.bounds[:, 1])
    drawn = space.sample(5000, np.random.default_rng(0))
    np.testing.assert_allclose(space.from_cube(space.to_cube(drawn)), drawn, atol=1e-9)


def test_the_cube_of_three_compartments_is_the_output_of_the_paper():
    """vcyl + vcsf, vcyl / (vcyl + vcsf), lambda / 3."""
    space = SPACES["smt3"]
    assert space.names == ("vcyl", "vcsf", "lambda")
    np.testing.assert_allclose(space.to_cube(np.array([0.3, 0.2, 1.5])), [0.5, 0.6, 0.5])
    np.testing.assert_allclose(space.from_cube(np.array([0.5, 0.6, 0.5])), [0.3, 0.2, 1.5])
    v, w, diffusivity = space.sample(1000, np.random.default_rng(0)).T
    expected = np.stack([v + w, v / (v + w), diffusivity / 3], axis=1)
    np.testing.assert_allclose(space.to_cube(np.stack([v, w, diffusivity], axis=1)), expected, atol=1e-12)


def test_where_any_place_would_do_it_is_the_middle():
    np.testing.assert_array_equal(SPACES["smt3"].to_cube(np.array([0.0, 0.0, 3.0])), [0.0, 0.5, 1.0])


def test_fractions_are_uniform_over_their_simplex():
    """Moments of Dirichlet(1, 1, 1), and of what is left over; the diffusivity is independent."""
    n = 200_000
    v, w, diffusivity = SPACES["smt3"].sample(n, np.random.default_rng(1)).T
    parts = np.stack([v, w, 1 - v - w])
    assert parts.min() >= 0
    np.testing.assert_allclose(parts.mean(axis=1), 1 / 3, atol=4 * np.sqrt(1 / 18 / n))
    expected = np.full((3, 3), -1 / 36) + np.eye(3) * (1 / 18 + 1 / 36)
    np.testing.assert_allclose(np.cov(parts), expected, atol=5e-4)
    assert stats.kstest(diffusivity / 3, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(v, diffusivity)[0, 1]) < 4 / np.sqrt(n)


def test_an_ordered_pair_is_uniform_as_by_plain_rejection():
    bounds = {"D": (0.0, 5.0), "Dstar": (0.5, 6.0)}
    space = ParameterSpace(models.get("ivim"), bounds)
    rng = np.random.default_rng(2)
    plain = space.bounds[:, 0] + space.span * rng.random((120_000, 3))
    plain = plain[plain[:, 1] <= plain[:, 2]][:60_000]
    drawn = space.sample(60_000, rng)
    assert np.all(drawn[:, 1] <= drawn[:, 2])
    for j in range(3):
        assert stats.ks_2samp(drawn[:, j], plain[:, j]).pvalue > 1e-3
    assert stats.ks_2samp(drawn[:, 2] - drawn[:, 1], plain[:, 2] - plain[:, 1]).pvalue > 1e-3


def test_a_share_of_the_bounds_that_the_constraint_allows_is_what_fill_expects():
    """Exactly as many as asked for, however few proposals are kept."""
    rng = np.random.default_rng(3)
    drawn = fill(5000, lambda k, r: r.random((k, 1)), lambda x: x[:, 0] < 0.01, rng)
    assert drawn.shape == (5000, 1)
    assert stats.kstest(drawn[:, 0] * 100, "uniform").pvalue > 1e-3
    with pytest.raises(ValueError, match="widen the bounds"):
        fill(10, lambda k, r: r.random((k, 1)), lambda x: x[:, 0] < 0, rng)


@pytest.mark.parametrize("name", NAMES)
def test_torch_tensors_give_the_same(name):
    torch = pytest.importorskip("torch")
    space = SPACES[name]
    cube = np.random.default_rng(4).random((500, len(space.names)))
    columns = space.columns(list(torch.from_numpy(cube).unbind(dim=1)))
    np.testing.assert_allclose(torch.stack(columns, dim=1).numpy(), space.from_cube(cube), rtol=1e-14)


def test_points_outside_are_outside():
    space = SPACES["smt3"]
    points = np.array([[0.6, 0.5, 1.0], [-0.1, 0.5, 1.0], [0.1, 0.5, 3.1], [np.nan, 0.5, 1.0], [0.5, 0.5, 1.0]])
    assert space.contains(points).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("name", ["smt3", "ivim"])
def test_values_of_a_map_are_judged_at_their_precision(name):
    """Rounded to the 32 bits of an image, a point on a bound or a constraint is still inside."""
    rng = np.random.default_rng(5)
    if name == "smt3":
        space = ParameterSpace(models.get("smt3"), {"lambda": (0.1, 2.9)})
        v = rng.random(2000)
        points = np.stack([v, 1 - v, np.where(v < 0.5, 0.1, 2.9)], axis=1)
    else:
        space = ParameterSpace(models.get("ivim"), {"D": (0.1, 4.9), "Dstar": (3.0, 200.0)})
        d = rng.uniform(3, 4.9, 2000)
        points = np.stack([rng.random(2000), np.where(d < 4, 4.9, d), np.where(d < 4, 4.9, d)], axis=1)
    assert space.contains(points).all()
    assert space.contains(points.astype(np.float32)).all()
    assert not space.contains((points * 1.001).astype(np.float32)).all()


def test_a_held_parameter_has_no_coordinate_and_leaves_the_rest_to_the_others():
    """Of fractions whose sum is at most 1, and of a pair in order."""
    space, rng = ParameterSpace(models.get("smt3"), {"vcsf": (0.3, 0.3)}), np.random.default_rng(6)
    assert space.names == ("vcyl", "lambda")
    assert space.facts["vcsf"] == [0.3, 0.3]
    drawn = space.sample(20_000, rng)
    assert stats.kstest(drawn[:, 0] / 0.7, "uniform").pvalue > 1e-3
    whole = space.with_scale(drawn[:1])[0]
    np.testing.assert_array_equal(whole, [1.0, drawn[0, 0], 0.3, drawn[0, 1]])
    np.testing.assert_allclose(space.from_cube(space.to_cube(drawn)), drawn, rtol=1e-12)

    pair = ParameterSpace(models.get("ivim"), {"D": (3.0, 3.0), "Dstar": (1.0, 100.0)})
    np.testing.assert_array_equal(pair.bounds, [pair.bounds[0], [3.0, 100.0]])
    assert pair.contains(pair.sample(1000, rng)).all()


def test_the_scale_is_put_in_its_place():
    np.testing.assert_array_equal(SPACES["smt2"].with_scale(np.array([[0.2, 1.5]])), [[1.0, 0.2, 1.5]])


@pytest.mark.parametrize(
    ("name", "bounds", "message"),
    [
        ("adc", {"D": (0.0, np.inf)}, "finite bounds of D"),
        ("adc", {"D": (1.0, 1.0)}, "hold all of its parameters"),
        ("smt3", {"vcsf": (0.5, 0.5), "vcyl": (0.6, 1.0)}, "leave no room"),
        ("smt3", {"vcyl": (0.0, 0.5)}, "sum is at most 1"),
        ("adc", {"K": (0.0, 1.0)}, "no parameter"),
    ],
)
def test_what_cannot_be_is_refused(name, bounds, message):
    with pytest.raises(ValueError, match=message):
        ParameterSpace(models.get(name), bounds)


def test_a_constraint_of_another_form_is_refused():
    s0, x, y, b = sp.symbols("S0 x y b", real=True)
    rows = [
        Parameter(name=n, label=n, unit="1", bounds=(0.0, 1.0), latex=n, description=n, start=(0.2, 0.6))
        for n in ("x", "y")
    ]
    model = SymbolicModel(
        name="odd",
        title="Odd",
        description="A test.",
        parameters=(signal_scale(), *rows),
        expression=s0 * (x * sp.exp(-b) + y),
        constraints=(sp.Le(x + 2 * y, 1),),
    )
    with pytest.raises(ValueError, match="its constraints are x \\+ 2\\*y <= 1"):
        ParameterSpace(model)
