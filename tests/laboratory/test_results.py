"""Results that are kept."""

import numpy as np
import pytest

from bidsfit.laboratory.results import Results


def test_what_was_computed_is_kept_and_found_again(tmp_path):
    results, calls = Results(tmp_path), []

    def compute():
        calls.append(1)
        return {"a": np.arange(6.0).reshape(2, 3)[:, ::-1]}

    first = results.obtain("x", {"seed": 1}, compute)
    second = Results(tmp_path).obtain("x", {"seed": 1}, compute)
    np.testing.assert_array_equal(first["a"], second["a"])
    assert len(calls) == 1
    results.obtain("x", {"seed": 2}, compute)
    assert len(calls) == 2


def test_a_damaged_result_is_computed_again(tmp_path):
    results = Results(tmp_path)
    results.obtain("x", {}, lambda: {"a": np.ones(3)})
    (path,) = tmp_path.glob("x_*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    np.testing.assert_array_equal(results.obtain("x", {}, lambda: {"a": np.zeros(3)})["a"], 0)


def test_nothing_is_kept_of_a_computation_that_failed(tmp_path):
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Results(tmp_path).obtain("x", {}, fail)
    assert not list(tmp_path.iterdir())
