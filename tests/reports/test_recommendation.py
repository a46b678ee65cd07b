"""Which estimator a report recommends, by the errors that are to be expected of each."""

import numpy as np
import pytest

from bidsfit import models
from bidsfit.reports.trust import expected_errors, own_error, recommendation
from bidsfit.trust.summary import ParameterTrust, TrustSummary

MODEL = models.get("ivim")


def row(name, rmse, response, biased=0.1):
    return ParameterTrust(name, response, biased, np.nan, np.nan, 0.2, rmse / 2, rmse / 2, rmse)


def summary(outside=0.0, **rows):
    flags = {"outside_training": outside}
    return TrustSummary([row(name, *values) for name, values in rows.items()], flags, [], 20.0, {}, [])


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (
            {"bayes": (0.03, 0.8), "lsq": (0.05, 0.97)},
            "For f take bayes: its expected error of 0.03 is the least (lsq 0.05), and 80 % of a true change shows.",
        ),
        (
            {"bayes": (0.03, 0.8, 0.75), "lsq": (0.05, 0.97)},
            "For f take bayes: its expected error of 0.03 is the least (lsq 0.05), though in 75.0 % of the voxels it "
            "is drawn by more than half its own noise, and 80 % of a true change shows.",
        ),
        (
            {"net": (0.03, 0.3), "map": (0.04, 0.4), "lsq": (0.05, 0.97)},
            "For f take net: its expected error of 0.03 is the least (map 0.04, lsq 0.05); but it hides changes, of "
            "which 30 % shows. For questions of change take lsq, where 97 % shows.",
        ),
        (
            {"net": (0.03, -0.1), "lsq": (0.0301, 0.4)},
            "For f take net: its expected error of 0.03 is the least (lsq 0.0301), that of lsq hardly larger; but it "
            "hides changes, of which 0 % shows. With none of the estimators 70 % of a true change show.",
        ),
        ({"net": (np.nan, np.nan)}, ""),
    ],
)
def test_the_least_error_is_taken_unless_it_hides_changes(errors, expected):
    assert recommendation("f", {name: row("f", *values) for name, values in errors.items()}, "") == expected


def test_all_parameters_together_and_the_table():
    found = expected_errors(
        {
            "lsq": summary(f=(0.04, 0.9), D=(0.1, 0.9)),
            "net": summary(f=(0.02, 0.4), D=(0.1, 0.9)),
            "spatial": None,
        },
        MODEL,
    )
    assert found["sentences"][-1] == (
        "For all parameters together take net: its expected errors are 1 times the least of each parameter on average "
        "(lsq 1.41); but it hides changes of f. For questions of change take lsq, which hides none."
    )
    first = found["parameters"][0]
    assert (first["name"], [one["estimator"] for one in first["rows"]]) == ("f", ["net", "lsq"])
    assert found["parameters"][1]["unit"] == "10⁻³ mm²/s"


def test_voxels_unlike_the_training_of_an_estimator_are_told():
    found = expected_errors({"lsq": summary(f=(0.04, 0.9)), "net": summary(0.108, f=(0.02, 0.9))}, MODEL)
    assert found["sentences"][-1] == (
        "10.8 % of the voxels are flagged as outside the training of net: what is said of its errors does not hold "
        "there."
    )
    found = expected_errors({"lsq": summary(f=(0.04, 0.9)), "net": summary(0.04, f=(0.02, 0.9))}, MODEL)
    assert len(found["sentences"]) == 1


def test_the_error_of_the_simulation_itself_is_told():
    facts = {"Truths": 9, "ErrorOfBias": {"f": 0.13, "D": 0.2}, "ErrorOfSD": {"f": 0.042, "D": 0.1}}
    assert own_error(facts) == (
        "At tissues left out of the simulation its bias was off by so many SD, and its SD by so much: f 0.13 and "
        "4.2 %; D 0.2 and 10.0 %."
    )


def test_one_estimator_alone_is_not_ranked():
    assert expected_errors({"lsq": summary(f=(0.04, 0.9)), "spatial": None}, MODEL) == {}


@pytest.mark.parametrize("others", [("lsq",), ("lsq", "net")])
def test_an_estimator_that_reads_neighbours_is_not_recommended(others):
    """However small its errors in homogeneous regions are; it is in the table."""
    errors = {"lsq": 0.04, "net": 0.03, "conv-prior": 0.001}
    known = {name: summary(f=(errors[name], 0.9), D=(errors[name], 0.9)) for name in (*others, "conv-prior")}
    found = expected_errors(known, MODEL, ["conv-prior"])
    *recommended, last = found["sentences"]
    assert last.startswith("conv-prior is not compared: it reads the neighbours of a voxel")
    assert len(recommended) == (3 if len(others) > 1 else 0)
    assert not any("conv-prior" in sentence for sentence in recommended)
    assert found["parameters"][0]["rows"][0]["estimator"] == "conv-prior"
