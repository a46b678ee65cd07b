"""The names of the package: shown before they are imported, and imported when first asked for."""

import subprocess
import sys

import pytest

import bidsfit


@pytest.mark.parametrize("name", bidsfit.__all__)
def test_every_name_is_there(name):
    assert name in dir(bidsfit)
    assert getattr(bidsfit, name) is not None


def test_what_there_is_is_shown_without_being_imported():
    code = (
        "import sys, bidsfit\n"
        "names = dir(bidsfit)\n"
        "assert {'Acquisition', 'LeastSquares', 'cramer_rao_bound', 'models', 'estimators'} <= set(names), names\n"
        "assert not {'numpy', 'scipy', 'sympy', 'numba', 'nibabel'} & set(sys.modules)\n"
        "bidsfit.models.get('adc'), bidsfit.estimators.available()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_and_star():
    from rlcompleter import Completer

    complete = Completer({"bidsfit": bidsfit}).complete
    assert complete("bidsfit.LeastSq", 0).startswith("bidsfit.LeastSquares")
    names = {}
    exec("from bidsfit import *", names)
    assert set(bidsfit.__all__) <= set(names)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="'bidsfit' has no attribute 'LeastSquare'"):
        bidsfit.LeastSquare  # noqa: B018
