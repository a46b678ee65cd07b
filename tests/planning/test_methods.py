"""The methods text says what was done, once."""

import pytest

from bidsfit import models
from bidsfit.bids.inputs import choose_participants, find_images, open_dataset
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.planning.methods import fit_methods, methods_of, methods_text
from bidsfit.planning.plan import FOUND_BODY, FOUND_MASK
from bidsfit.reports.bibliography import cited, entries
from bidsfit.reports.records import FitRecord, ImageRecord, PreprocessingRecord

GIVEN = "bids:masks:sub-01/dwi/sub-01_desc-brain_mask.nii.gz"


def text(*names, masks=(GIVEN,), **options):
    return methods_text(masks, [fit_methods(LeastSquares(models.get(name), **options)) for name in names])


@pytest.mark.parametrize("name", models.available())
def test_every_model_with_its_equation_and_references(name):
    model = models.get(name)
    said = text(name)
    assert f"$${model.latex}$$" in said
    assert set(model.references) <= set(cited(said))
    assert model.title in said


def test_every_reference_is_in_the_bibliography():
    assert set(cited(text(*models.available(), masks=(GIVEN, FOUND_MASK)))) <= set(entries())


def test_what_two_fits_share_is_said_once():
    said = text("adc", "ivim", "adc")
    assert said.count("Levenberg-Marquardt") == 1
    assert said.count(models.get("adc").latex) == said.count(models.get("ivim").latex) == 1


def test_bounds_are_in_the_units_of_reports():
    said = text("ivim", bounds={"Dstar": (5.0, 250.0)})
    assert "$D^{*}$ 5 to 250 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s" in said
    assert "Measurements up to b = 1000 s/mm² were fitted." in said


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([GIVEN, GIVEN], "restricted to masks that came with the data."),
        ([FOUND_MASK], "restricted to masks found by Otsu's threshold"),
        ([FOUND_BODY], "restricted to voxels whose mean signal"),
        ([GIVEN, FOUND_MASK], "masks that came with the data and to masks found by Otsu's threshold"),
    ],
)
def test_where_the_masks_came_from(masks, said):
    assert said in text("adc", masks=masks)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "The signal without diffusion weighting was fitted"),
        ({"s0": "measured"}, "was fixed at the mean of the images at b = 0"),
        ({"averaging": "geometric"}, "The geometric mean of the measurements of each shell"),
        ({"averaging": "none"}, "Every measurement was fitted by itself"),
    ],
)
def test_choices_are_said(options, said):
    assert said in text("adc", **options)


def test_the_workflow_says_it_of_its_fits(pair):
    """What the report of a run is made of."""
    from bidsfit.planning.fits import make_fits
    from bidsfit.planning.plan import make_plan

    tiny, masks = pair
    inputs = find_images(open_dataset(tiny.root, "raw"), [open_dataset(masks.root, "masks", derivative=True)], ["01"])
    plans = make_plan(inputs, choose_participants(tiny.root, ()), make_fits(["adc"]), output_dir=tiny / "none")
    (fit,) = plans[0].images[0].fits
    assert fit_methods(fit.built) == fit_methods(LeastSquares(models.get("adc"), intervals="conformal"))


def test_what_was_done_to_images_without_a_fit_is_left_out():
    def records(name, mask, *sentences):
        image = ImageRecord(name, "bids:raw:x", [], [], mask, 1, [], {}, {}, [])
        return [image, PreprocessingRecord(name, "bids:raw:x", methods=list(sentences))]

    methods = fit_methods(LeastSquares(models.get("adc")))
    fit = FitRecord("sub-01_dwi", "adc", "", "", "", "lsq", "", 1, 1.0, [], [], methods=methods)
    fitted = records("sub-01_dwi", GIVEN, "Noise was reduced.", "No volume was moved.")
    failed = records("sub-02_dwi", FOUND_MASK, "Motion was corrected.")
    said = methods_of([*fitted, *failed, fit])
    assert said == methods_text([GIVEN], [methods], ["Noise was reduced.", "No volume was moved."])
    assert methods_of([*fitted, *failed]) == ""
