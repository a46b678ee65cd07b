"""The nodes that write maps, masks, figures and records."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.outputs import map_outputs
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.interfaces.derivatives import WriteVolume
from bidsfit.interfaces.figures import PlotImage
from bidsfit.interfaces.fit import FitImage
from bidsfit.interfaces.image import PrepareImage
from bidsfit.reports.measured import MeasuredVoxels
from bidsfit.reports.records import FitRecord, ImageRecord, read_record, thumbnail_of


class Fitted:
    """An image that was prepared and fitted, and the inputs of the nodes that come after."""

    def __init__(self, tiny, masks, run_in, out, data=None, b_values=None):
        b_values = tiny.B_VALUES if b_values is None else b_values
        tiny.add("sub-01/dwi/sub-01_dwi", data=data, b_values=b_values)
        masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
        derivatives = [open_dataset(masks.root, "masks", derivative=True)]
        (self.image,) = find_images(open_dataset(tiny.root, "raw"), derivatives, ["01"]).images
        files = {"in_file": str(self.image.path), "bval": str(self.image.bval), "bvec": str(self.image.bvec)}
        prepared = run_in(PrepareImage(**files, in_mask=str(self.image.mask), models=["adc"]))
        self.out = out
        self.image_inputs = {
            "image": self.image.to_dict(),
            "mask": prepared.mask,
            "mask_name": self.image.mask_uri,
            "output_dir": str(out),
            "facts": prepared.facts,
        }
        self.reference, self.voxels = prepared.reference, prepared.voxels
        self.files = files

    def fit(self, run_in, methods=("", ""), **options):
        """What the node of a fit leaves: its outputs, and the record."""
        fit = FitImage(
            **self.files, **self.image_inputs, **options, model="adc", estimator="lsq", options={}, methods=[*methods]
        )
        outputs = run_in(fit)
        return outputs, read_record(self.out / outputs.record)


@pytest.fixture
def fitted(tiny, masks, run_in, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    return lambda **options: Fitted(tiny, masks, run_in, out, **options)


def test_maps_are_written_in_the_units_of_files(fitted, run_in):
    f = fitted()
    f.fit(run_in)
    model = models.get("adc")
    outputs = map_outputs(f.image, model, LeastSquares(model))
    written = sorted(path.relative_to(f.out) for path in f.out.rglob("*_dwimap.nii.gz"))
    assert written == sorted(output.path for output in outputs.values())
    values = nib.load(f.out / outputs["D"].path).get_fdata()
    np.testing.assert_allclose(values[2, 2], 1e-3, rtol=1e-4)
    description = str(f.out / outputs["D"].path).replace(".nii.gz", ".json")
    assert json.loads(Path(description).read_text())["Units"] == "mm^2/s"


def test_a_found_mask_is_written(fitted, run_in):
    f = fitted()
    mask = f.image_inputs["mask"]
    write = WriteVolume(kind="mask", in_file=mask, image=f.image.to_dict(), output_dir=str(f.out))
    path = run_in(write).out_file
    assert path == str(f.out / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz")
    assert nib.load(path).get_fdata().sum() == 60


def test_the_record_of_an_image(fitted, run_in):
    f = fitted()
    rows = [{"name": "adc", "title": "ADC", "fitted": True, "reason": "has b = 0"}]
    found = {"reference": f.reference, "voxels": f.voxels}
    interface = PlotImage(**found, bval=str(f.image.bval), models=rows, warnings=["Take care."], **f.image_inputs)
    record = read_record(f.out / run_in(interface).record)
    assert isinstance(record, ImageRecord)
    assert record.shells[0] == {"b_value": 0, "n_measurements": 2, "n_directions": 1}
    assert record.warnings == ["Take care."]
    assert record.models == rows
    assert set(record.figures) == {"mask", "shells"}
    assert all((f.out / path).stat().st_size > 1000 for path in record.figures.values())
    voxels = MeasuredVoxels.load(f.out / record.voxels)
    assert voxels.mean.shape == (len(record.shells), 60)
    assert voxels.mask.sum() == 60


def test_the_record_of_a_fit(fitted, run_in):
    f = fitted()
    _, record = f.fit(run_in, ["model", "estimator"])
    assert isinstance(record, FitRecord)
    (d,) = (row for row in record.parameters if row["name"] == "D")
    assert d["median"] == pytest.approx(1, rel=1e-3)
    assert d["unit"] == "10⁻³ mm²/s"
    assert [(row["name"], row["count"]) for row in record.status] == [("converged", 60)]
    assert record.methods == ["model", "estimator"]
    assert record.options["Bounds of D"] == "0 to 5 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"
    thumbnails = {thumbnail_of("S0"), thumbnail_of("D")}
    assert set(record.figures) == {"maps", "uncertainty", "histograms", "curves", "quality"} | thumbnails
    assert all((f.out / path).stat().st_size > 80 for path in record.figures.values())
    assert len(record.maps) == 2 + 2 * 4 + 3  # parameters, their standard deviation, interval and bound, quality
    assert d["crb"] == pytest.approx(d["sd"], rel=0.1)
    assert record.warnings == []


def test_a_device_is_told_and_no_reason_to_fit_again(fitted, run_in, blank_figures):
    """The text and the sidecars of a second run, on the processor, still say what fitted these maps."""
    f = fitted()
    for device in ("cpu:0", "cpu"):
        _, record = f.fit(run_in, ["model", "estimator"], device=device)
        assert record.methods == [
            "model",
            "estimator All voxels were fitted together with PyTorch [@pytorch] (device cpu:0).",
        ]
        for row in record.maps:
            sidecar = json.loads((f.out / row["path"].replace(".nii.gz", ".json")).read_text())
            assert sidecar["EstimationNotes"] == {"Device": "cpu:0"}


def warnings_of(f, run_in):
    return " ".join(f.fit(run_in)[1].warnings)


def test_a_fit_without_freedom_is_said(fitted, run_in):
    assert "where no parameter lies at a bound, the curve passes" in warnings_of(fitted(b_values=(0, 0, 1000)), run_in)


def test_voxels_that_failed_are_said(fitted, run_in, tiny):
    data = tiny.signals()
    data[2, 2] = 0
    assert "3 of 60 voxels could not be fitted" in warnings_of(fitted(data=data), run_in)


def test_parameters_at_a_bound_are_said(fitted, run_in, tiny):
    data = tiny.signals()[..., ::-1]  # grows with b
    assert "D lies at a bound in " in warnings_of(fitted(data=data), run_in)
