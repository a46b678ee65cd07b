"""Over 500 simulated cohorts the statistics are what they say: bias, coverage, false positives, power."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):  # the benchmark sets them for good
            patch.setenv(f"{library}_NUM_THREADS", os.environ.get(f"{library}_NUM_THREADS", "1"))
        spec = importlib.util.spec_from_file_location("benchmark_of_repeatability", FOLDER / "repeatability.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.pop("_common", None)
    return module.simulate(module.Study(), 500, np.random.default_rng(2024))


def test_within_subject_sd_is_unbiased(results):
    assert abs(results["bias of wSD, unbiased"].mean) < 0.02
    assert abs(results["bias of wSD²"].mean) < 0.04
    root = results["bias of wSD, root mean square"]
    assert abs(root.mean - root.expected) < 0.02


@pytest.mark.parametrize(
    "name",
    [
        "wSD",
        "ICC(1,1)",
        "wCV, scatter constant",
        "wCV, scatter in proportion",
        "mean change",
        "per cent change",
        "effect size",
        "percentile of a newcomer",
    ],
)
def test_intervals_hold_the_truth(results, name):
    assert 0.93 <= results[f"{name} in its interval"].mean <= 0.97


def test_unchanged_participants_called_changed(results):
    """5 % with the corrected limits; 7 % with limits that take the within-subject standard deviation as known."""
    corrected = results["unchanged called changed, Student's t"]
    assert 0.04 <= corrected.mean <= 0.06
    uncorrected = results["unchanged called changed, 1.96"]
    assert uncorrected.expected == pytest.approx(0.0702, abs=1e-4)
    assert abs(uncorrected.mean - uncorrected.expected) < 0.01
    assert uncorrected.mean > 0.06


@pytest.mark.parametrize(
    "name",
    ["treated called changed, Student's t", "treated called changed, 1.96", "cohort response found, paired t-test"],
)
def test_power_is_as_predicted(results, name):
    assert abs(results[name].mean - results[name].expected) < 3 * results[name].error
    assert results[name].error < 0.025


@pytest.mark.parametrize(
    "name",
    [
        "session effect found where there is none",
        "healthy newcomers found, modified t",
        "healthy newcomers beyond z = 1.96",
    ],
)
def test_tests_hold_their_level(results, name):
    assert abs(results[name].mean - results[name].expected) < 3 * results[name].error
