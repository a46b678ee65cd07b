"""Whether an image was interpolated, by its noise."""

import numpy as np
import pytest
from scipy.ndimage import zoom

from bidsfit.acquisition import Acquisition
from bidsfit.preprocessing.interpolation import INTERPOLATED, fine_detail

B0 = Acquisition([0, 0, 0, 0])


@pytest.mark.parametrize("sigma", [10, 30, 100])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"partial_fourier": 7 / 8},
        {"partial_fourier": 6 / 8},
        {"partial_fourier": 5 / 8},
        {"moves": 0.3},
        {"moves": 2},
        {"moves": 2, "partial_fourier": 6 / 8},
    ],
)
def test_acquired_voxels(scanned, how, sigma):
    shares = fine_detail(*_of(scanned(sigma=sigma, **how)))
    assert (shares > 1.25 * INTERPOLATED).all()
    if not how:
        np.testing.assert_allclose(shares, 1, atol=0.1)


@pytest.mark.parametrize("sigma", [10, 30, 100])
@pytest.mark.parametrize("moves", [0, 0.3, 2])
@pytest.mark.parametrize("factor", [(1, 1.5), (1.5, 1), (1.5, 1.5), (2, 1), (2, 2)])
def test_zero_filling(scanned, factor, moves, sigma):
    """Along the axis that was filled alone, whatever moves."""
    shares = fine_detail(*_of(scanned(sigma=sigma, zero_filling=factor, moves=moves)))
    np.testing.assert_array_equal(shares < INTERPOLATED, np.array(factor) > 1)


def test_little_zero_filling_leaves_less_detail(scanned):
    shares = [fine_detail(*_of(scanned(zero_filling=(1, factor))))[1] for factor in (1, 1.125, 1.25, 1.5)]
    assert (np.diff(shares) < -0.1).all()
    assert shares[2] > INTERPOLATED > shares[3]


def test_interpolation_of_magnitudes(scanned):
    data, inside = scanned()
    shares = fine_detail(zoom(data, (2, 2, 1, 1), order=1), B0, zoom(inside, (2, 2, 1), order=0))
    assert (shares < 0.5 * INTERPOLATED).all()


def test_directions_of_a_shell_tell_it_where_nothing_was_repeated(scanned):
    directions = np.random.default_rng(0).normal(size=(6, 3))
    acquisition = Acquisition([0, 1000, 1000, 1000, 1000, 1000], directions)
    for factor in (1, 2):
        data, inside = scanned(zero_filling=(factor, factor), b_values=acquisition.b_values)
        assert ((fine_detail(data, acquisition, inside) < INTERPOLATED) == (factor > 1)).all()


def test_what_cannot_be_told(scanned):
    data, inside = scanned(b_values=(0, 500, 1000))
    assert np.isnan(fine_detail(data, Acquisition([0, 500, 1000]), inside)).all()  # no two volumes of one b-value
    data, inside = scanned()
    assert np.isnan(fine_detail(data[:, :7], B0, inside[:, :7])[1])  # too short an axis
    assert np.isnan(fine_detail(data, B0, np.zeros_like(inside))).all()
    assert np.isnan(fine_detail(np.ones_like(data), B0, inside)).all()  # no noise


def _of(scan):
    data, inside = scan
    return data, B0, inside
