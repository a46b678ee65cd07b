"""What is recorded of results: which run made them, of what."""

import hashlib
import json
import os
from datetime import UTC, datetime

import pytest

from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.provenance import RECORDS, provenance_path, write_provenance

MAP = "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def record(pair, tmp_path):
    """``record(run)``: records a run in ``tmp_path/out``, and returns the records by kind and identifier."""
    tiny, masks = pair
    raw, derivatives = open_dataset(tiny.root, "raw"), [open_dataset(masks.root, "masks", derivative=True)]
    images = find_images(raw, derivatives, ["01"]).images
    out = tmp_path / "out"
    (out / "sub-01" / "dwi").mkdir(parents=True)

    def write(run="1", others=None):
        write_provenance(out, images, run, "bidsfit ds out participant", NOW, NOW, others or {})
        content = {suffix: json.loads(provenance_path(out, images[0], suffix).read_text()) for suffix in RECORDS}
        return {suffix: {one["Id"]: one for one in content[suffix][key]} for suffix, key in RECORDS.items()}

    write.out, write.images = out, images
    return write


def sha256(path):
    return {"SHA-256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_inputs_results_and_the_run(record, pair):
    tiny, masks = pair
    (record.out / f"{MAP}.nii.gz").write_text("a map")
    (record.out / f"{MAP}.json").write_text("{}")
    found = record()
    stem, mask = "sub-01/dwi/sub-01_dwi", "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    inputs = {f"bids:raw:{stem}.{end}": tiny / f"{stem}.{end}" for end in ("nii.gz", "bval", "bvec")}
    inputs[f"bids:masks:{mask}"] = masks / mask
    result = f"bids::{MAP}.nii.gz"
    assert {uri: one["Digest"] for uri, one in found["ent"].items()} == {
        **{uri: sha256(path) for uri, path in inputs.items()},
        result: sha256(record.out / f"{MAP}.nii.gz"),
    }
    (run,) = found["act"].values()
    assert found["ent"][result]["GeneratedBy"] == run["Id"] == "bids::prov#run-1"
    assert run["Used"] == sorted(inputs)
    assert run["StartedAtTime"] == "2026-01-02T03:04:05+00:00"
    assert [run["AssociatedWith"]] == list(found["soft"])


def test_every_result_keeps_the_run_that_made_it(record, unchanged):
    one, other = (record.out / MAP.replace("adc_desc", f"{name}_desc") for name in ("adc", "S0"))
    one, other = one.with_suffix(".nii.gz"), other.with_suffix(".nii.gz")
    one.write_text("a")
    record("1")
    with unchanged(record.out):  # nothing new, nothing to record
        record("2")
    other.write_text("b")
    os.utime(one)  # written again, and the same
    found = record("3")
    makers = {uri: entity["GeneratedBy"] for uri, entity in found["ent"].items() if "GeneratedBy" in entity}
    assert makers == {
        f"bids::{one.relative_to(record.out)}": "bids::prov#run-1",
        f"bids::{other.relative_to(record.out)}": "bids::prov#run-3",
    }
    assert set(found["act"]) == {"bids::prov#run-1", "bids::prov#run-3"}
    one.unlink()
    other.write_text("c")
    found = record("4")
    assert set(found["act"]) == {"bids::prov#run-4"}  # what made nothing that is there is forgotten


def test_a_damaged_record_stops_nothing(record):
    (record.out / f"{MAP}.nii.gz").write_text("a map")
    record()
    provenance_path(record.out, record.images[0], "act").write_text("{")
    (record.out / f"{MAP}.nii.gz").write_text("another")
    assert set(record("2")["act"]) == {"bids::prov#run-2"}


def test_other_files_that_were_used_and_whose_records_there_are(record, pair):
    """Field maps, anatomical images and atlases; the table has a row for every participant with records."""
    (record.out / f"{MAP}.nii.gz").write_text("a map")
    t1w = pair[0].write("sub-01/anat/sub-01_T1w.nii.gz", "a head")
    table = record.out / "prov" / "provenance.tsv"
    table.parent.mkdir()
    (record.out / "prov" / "prov-sub02_ent.json").write_text("{}")
    uri = "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    found = record(others={uri: t1w})
    assert found["ent"][uri]["Digest"] == sha256(t1w)
    assert uri in next(iter(found["act"].values()))["Used"]
    lines = table.read_text().splitlines()
    assert lines[0] == "provenance_id\tdescription"
    assert [line.partition("\t")[0] for line in lines[1:]] == ["prov-sub01", "prov-sub02"]
