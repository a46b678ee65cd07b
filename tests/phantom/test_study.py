"""Studies of repeatability: amounts that make sense."""

import subprocess
import sys

import numpy as np
import pytest

from bidsfit import models
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.phantom.study import MAXIMUM_VARIATION, Study, repeatability
from bidsfit.phantom.tissue import RECIPES
from bidsfit.phantom.variation import varying


@pytest.mark.parametrize("model", [model for model in RECIPES if not RECIPES[model].made])
def test_named_study_is_as_large_as_the_published_one_and_covers_every_model(model):
    names = [name for name in varying(models.get(model)) if models.get(model)[name].kind == "scalar"]
    study = repeatability(names)
    assert (study.n_retest, study.n_treated) == (14, 9)
    assert list(study.between) == list(study.within) == list(study.effect) == names
    assert any(study.effect.values())
    study.require_parameters(names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_retest": -1}, "negative"),
        ({"n_treated": -1}, "negative"),
        ({"between": {"D": -0.1}}, r"D between participants must be 0 to 50 %, found -10 %"),
        ({"within": {"f": 2 * MAXIMUM_VARIATION}}, r"f within participants must be 0 to 50 %, found 100 %"),
        ({"within": {"f": np.nan}}, "found nan"),
        ({"n_treated": 1, "effect": {"D": -1.0}}, r"D must be above -100 %, found -100 %"),
        ({"n_treated": 1, "effect": {"D": np.inf}}, "found inf"),
        ({"n_retest": 5, "effect": {"D": 0.1}}, "needs treated participants"),
    ],
)
def test_amounts_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Study(**settings)


def test_who_repeats():
    assert not Study(between={"D": 0.1}).repeats
    assert Study(n_retest=1).repeats
    assert Study(n_treated=1).repeats


@pytest.mark.parametrize("kind", ["between", "within", "effect"])
def test_unknown_parameters_are_refused(kind):
    with pytest.raises(UnknownNameError, match=r"'Dstr'. Did you mean 'Dstar'"):
        Study(n_treated=1, **{kind: {"Dstr": 0.1}}).require_parameters(["D", "f", "Dstar"])


def test_imports_nothing_slow():
    code = "import sys, bidsfit.phantom.study; assert not {'numpy', 'scipy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
