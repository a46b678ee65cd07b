"""Values arranged for the statistics, and who lacks some."""

import numpy as np

from bidsfit.bids.inputs import InputProblem
from bidsfit.cohort.design import Design, Pair, Repeats
from bidsfit.cohort.region_values import RegionValues
from bidsfit.cohort.values import CohortValues, missing_values

DESIGN = Design(
    repeatability=(Repeats("01", ("1", "2")), Repeats("02", ("1", "2", "3"))),
    treatment=(Pair("03", "2", "1"),),
    healthy=("01",),
    patients=("03",),
    baseline={"01": "1", "03": "2"},
)


def value(participant, session, median, region="tumour", parameter="D", series=""):
    image = "_".join(filter(None, [f"sub-{participant}", f"ses-{session}", series]))
    counts, numbers = [9] * 7, [median] * 8
    what = ("ivim", "lsq", region, parameter, "um^2/ms")
    return RegionValues(participant, session, image, *what, *counts, *numbers, "", False)


def arranged(rows):
    values = CohortValues(DESIGN)
    assert list(values.watch(rows)) == rows
    return values.arranged


def test_values_in_the_order_of_the_design():
    rows = [value(p, s, 10 * int(p) + int(s)) for p in ("01", "02", "03", "04") for s in "123"]
    (found,) = arranged(rows)
    assert found.what[:4] == ("ivim", "lsq", "tumour", "D")
    np.testing.assert_array_equal(found.repeats, [[11, 12, np.nan], [21, 22, 23]])
    np.testing.assert_array_equal(found.change, [[32, 31]])
    np.testing.assert_array_equal([*found.healthy, *found.patients], [11, 32])
    assert missing_values([found], DESIGN) == []


def test_like_images_only_and_what_is_missing_is_listed():
    rows = [value("01", "1", 1, series="acq-ap"), value("01", "2", 2, series="acq-pa"), value("03", "2", 3)]
    found = {one.what.series: one for one in arranged(rows)}
    np.testing.assert_array_equal(found["acq-ap"].repeats[0], [1, np.nan, np.nan])
    np.testing.assert_array_equal(found["acq-pa"].repeats[0], [np.nan, 2, np.nan])
    problems = missing_values(list(found.values()), DESIGN)
    assert InputProblem("01", "no values in the region tumour in ses-2 (acq-ap)") in problems
    assert InputProblem("03", "no values in the region tumour in ses-1") in problems
    no_region = InputProblem("02", "no values in the region tumour in ses-1")
    assert no_region not in problems  # nobody of that cohort has some


def test_a_parameter_may_be_missing_alone():
    rows = [value(p, s, 1.0) for p in ("01", "02", "03") for s in "123"]
    rows += [
        value(p, s, np.nan if (p, s) == ("03", "1") else 1, parameter="Dstar")
        for p in ("01", "02", "03")
        for s in "123"
    ]
    problems = missing_values(arranged(rows), DESIGN)
    assert problems == [InputProblem("03", "no values of Dstar by lsq (ivim) in the region tumour in ses-1")]
