"""Directions are unit vectors, spread as well as theory allows."""

import numpy as np
import pytest

from bidsfit.phantom.directions import spread_directions


def smallest_angle(directions):
    cosines = np.abs(directions @ directions.T)[np.triu_indices(len(directions), 1)]
    return np.degrees(np.arccos(min(cosines.max(), 1)))


@pytest.mark.parametrize(("n", "angle"), [(2, 90.0), (3, 90.0), (6, np.degrees(np.arctan(2)))])
def test_known_optima(n, angle):
    """Orthogonal axes, and the diagonals of the icosahedron."""
    assert smallest_angle(spread_directions(n)) == pytest.approx(angle, abs=1e-3)


@pytest.mark.parametrize("n", [1, 12, 32, 64])
def test_unit_and_evenly_spread(n):
    directions = spread_directions(n)
    assert directions.shape == (n, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_array_equal(directions, spread_directions(n))
    if n > 1:
        # Share of the sphere under caps of half the smallest angle: at most 0.91, about 0.1 where drawn at random.
        half = np.radians(smallest_angle(directions)) / 2
        assert n * (1 - np.cos(half)) > 0.65
        np.testing.assert_allclose(directions.T @ directions / n, np.eye(3) / 3, atol=0.01)


def test_none_is_refused():
    with pytest.raises(ValueError, match="At least one"):
        spread_directions(0)
