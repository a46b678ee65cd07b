"""How much of each imperfection: amounts that make sense, none by default."""

import subprocess
import sys
from dataclasses import astuple, replace

import numpy as np
import pytest

from bidsfit.exceptions import UsageError
from bidsfit.phantom.imperfections import NONE, RAW, RAW_ABDOMEN, Imperfections


def test_none_by_default_and_all_in_a_raw_scan():
    assert Imperfections() == NONE
    assert not any(astuple(NONE))
    assert all(astuple(replace(RAW, breathing=1)))  # heads do not breathe
    assert all(astuple(replace(RAW_ABDOMEN, motion=1, rotation=1)))
    assert not NONE.any
    assert Imperfections(outliers=1).any


@pytest.mark.parametrize(
    ("settings", "moves"), [({"motion": 1.0}, True), ({"rotation": 1.0}, True), ({"eddy": 1.0}, False)]
)
def test_what_moves(settings, moves):
    assert Imperfections(**settings).moves == moves


@pytest.mark.parametrize("name", ["motion", "rotation", "off_resonance", "outliers", "eddy"])
@pytest.mark.parametrize("amount", [-1, np.nan, np.inf])
def test_amounts_that_mean_nothing_are_refused(name, amount):
    with pytest.raises(UsageError, match=name):
        Imperfections(**{name: amount})


def test_eddy_currents_that_turn_the_image_inside_out_are_refused():
    with pytest.raises(UsageError, match="at most 20 %"):
        Imperfections(eddy=150)


def test_imports_nothing_slow():
    code = "import sys, bidsfit.phantom.imperfections; assert not {'numpy', 'scipy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
