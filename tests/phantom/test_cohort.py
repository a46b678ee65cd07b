"""Cohorts: the same truth, fresh noise, the SNR that was asked for."""

import numpy as np
import pytest

from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError, UsageError
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.tissue import RECIPES

SMALL = {"shape": (20, 20, 2)}


@pytest.mark.parametrize("model", RECIPES)
def test_without_noise_the_image_is_the_model_at_the_truth(model):
    cohort = Cohort(model, **SMALL, snr=np.inf)
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
        ({"b_values": (0.0, 500.0, 1000.0)}, UnsupportedProtocolError, "Missing"),
    ],
)
def test_refusals(settings, error, message):
    with pytest.raises(error, match=message):
        Cohort(**({"model": "ivim"} | settings))
