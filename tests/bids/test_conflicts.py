"""What is there already and was made otherwise is refused, or moved; nothing of it is lost."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids import conflicts
from bidsfit.bids.conflicts import (
    conflicts_of_fit,
    conflicts_of_image,
    conflicts_of_preprocessing,
    dated_folder,
    files_of_image,
    move,
    refuse,
)
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.outputs import file_output, fit_settings, map_outputs, sidecar, sources_of
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.exceptions import ConflictError
from bidsfit.fitting import FitNumbers

ADC, IVIM = models.get("adc"), models.get("ivim")
NOISE = {"NoiseKind": "rician", "NoiseLevel": "auto"}
MASK = "bids:masks:mask.nii.gz"
MOMENT = datetime(2026, 11, 29, 12, 0, 7)


def image_called(entities, **others):
    stem = "_".join(["sub-01", "ses-1", *(f"{key[:3]}-{label}" for key, label in entities.items())])
    return InputImage(
        path=Path(f"/data/{stem}_dwi.nii.gz"),
        bval=Path(f"/data/{stem}_dwi.bval"),
        bvec=None,
        sidecar={},
        entities={"subject": "01", "session": "1", **entities},
        uri=f"bids:raw:{stem}_dwi.nii.gz",
        preprocessed=False,
        mask=Path("/masks/mask.nii.gz"),
        mask_uri=MASK,
        **others,
    )


IMAGE = image_called({"acquisition": "ap"})


def write(folder, path, content):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(path.name)
    target.with_name(target.name.split(".")[0] + ".json").write_text(json.dumps(content))


def fit(folder, model=IVIM, image=IMAGE, mask=MASK, noise=NOISE, **options):
    """Leave a fit, of which nothing but the sidecars is real."""
    estimator = LeastSquares(model, **options)
    settings = fit_settings(model, estimator, mask, noise)
    for output in map_outputs(image, model, estimator).values():
        numbers = FitNumbers(9, 1, 1.0, {"b": [0, 800]}, [], {}, None)
        write(folder, output.path, sidecar(output, model, settings, numbers, sources_of(image), {}))


def found(folder, model=IVIM, image=IMAGE, mask=MASK, noise=NOISE, **options):
    """Conflicts of a fit that would be made now."""
    estimator = LeastSquares(model, **options)
    outputs = [output.path for output in map_outputs(image, model, estimator).values()]
    return list(conflicts_of_fit(folder, image, outputs, fit_settings(model, estimator, mask, noise)))


OTHER_IMAGES = {
    "mask": {"mask": "bids:masks:other.nii.gz", "image": replace(IMAGE, mask_uri="bids:masks:other.nii.gz")},
    "source": {"image": replace(IMAGE, uri="bids::sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz")},
    "noise": {"noise": {"NoiseKind": "rician", "NoiseLevel": "12"}},
    "noise map": {"image": replace(IMAGE, noise_uri="bids:other:noise.nii.gz")},
}


# --- what is refused ------------------------------------------------------------------------------------------------


def test_the_same_fit_and_other_fits_of_the_same_image_are_no_conflict(tmp_path):
    fit(tmp_path)
    assert found(tmp_path) == []
    assert found(tmp_path, ADC, averaging="geometric") == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"averaging": "geometric"}, "Averaging: found arithmetic, expected geometric"),
        ({"s0": "measured"}, "S0: found fitted, expected measured"),
        ({"bounds": {"D": (0.0, 3.0)}}, r"Bounds: found .*, expected .*0\.003\], .*"),
    ],
)
def test_other_options_of_a_fit_are_refused(tmp_path, options, named):
    fit(tmp_path)
    conflicts = found(tmp_path, **options)
    assert len(conflicts) == len(map_outputs(IMAGE, IVIM, LeastSquares(IVIM)))
    assert not any(conflict.whole for conflict in conflicts)
    with pytest.raises(
        ConflictError,
        match=rf"param-S0_desc-lsq_dwimap\.nii\.gz exists and was made with other settings \({named}\).*--overwrite",
    ):
        refuse(conflicts)


@pytest.mark.parametrize("change", OTHER_IMAGES.values(), ids=OTHER_IMAGES)
@pytest.mark.parametrize("model", [IVIM, ADC])
def test_fits_of_another_image_mask_or_noise_are_refused(tmp_path, change, model):
    """The same fit, and another one that would stand beside it."""
    fit(tmp_path)
    conflicts = found(tmp_path, model, **change)
    assert conflicts
    assert all(conflict.whole for conflict in conflicts)
    with pytest.raises(
        ConflictError,
        match=r"made from another image, or with another preprocessing, mask or noise .*--overwrite, which moves all",
    ):
        refuse(conflicts)


def test_other_images_of_the_participant_are_no_conflict(tmp_path):
    for entities in ({}, {"acquisition": "ap", "run": "1"}, {"acquisition": "apx"}):
        fit(tmp_path, image=image_called(entities), mask="bids:masks:other.nii.gz")
    assert found(tmp_path) == []
    assert list(conflicts_of_image(tmp_path, IMAGE, {"Mask": MASK, **NOISE})) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"Sources": 1}', None])
def test_maps_of_unknown_origin_are_refused(tmp_path, text):
    fit(tmp_path)
    for path in tmp_path.rglob("*.json"):
        path.unlink() if text is None else path.write_text(text)
    for model in (IVIM, ADC):
        with pytest.raises(ConflictError, match="no readable sidecar"):
            refuse(found(tmp_path, model))


def test_another_preprocessing_is_refused(tmp_path):
    steps = {"Denoise": "mppca", "Motion": "affine"}
    content = {"Preprocessing": steps, "Sources": [IMAGE.uri, MASK]}
    write(tmp_path, file_output("preproc", IMAGE), content)
    assert list(conflicts_of_preprocessing(tmp_path, IMAGE, steps)) == []
    none = dict.fromkeys(steps, "none")
    for raw, other in ((IMAGE, steps | {"Denoise": "none"}), (IMAGE, none), (replace(IMAGE, mask_uri=None), steps)):
        (conflict,) = conflicts_of_preprocessing(tmp_path, raw, other)
        assert conflict.whole


# --- what is moved --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two fits of an image with all that belongs to it, and files of other images."""
    out = tmp_path / "out"
    fit(out)
    fit(out, ADC)
    stems = (IMAGE.name, "sub-01_ses-1", f"{IMAGE.name}_run-1", "sub-01_ses-1_acq-apx")
    for stem in stems:
        for name in ("desc-preproc_dwi.nii.gz", "desc-preproc_dwi.bval", "desc-brain_mask.nii.gz"):
            write(out, Path(f"sub-01/ses-1/dwi/{stem}_{name}"), {"Preprocessing": {}, "Sources": [IMAGE.uri]})
        write(out, Path(f"sub-01/figures/{stem}_desc-image_record.json"), {})
        write(out, Path(f"sub-01/figures/{stem}_seg-aseg_record.json"), {})
        for name in (
            "atlas-x_seg-aseg_dseg.nii.gz",
            "seg-aseg_res-2mm_dseg.nii.gz",
            "seg-a_model-adc_desc-lsq_dwimap.tsv",
        ):
            write(out, Path(f"sub-01/ses-1/dwi/{stem}_{name}"), {})
        write(out, Path(f"sub-01/figures/{stem}_model-adc_desc-lsqmaps_dwi.png"), {})
    return out


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_an_image_are_its_own(folder):
    starts = tuple(f"{IMAGE.name}_{key}-" for key in ("desc", "model", "atlas", "seg"))
    own = {path for path in contents(folder) if path.name.startswith(starts) and "_res-" not in path.name}
    assert {path.relative_to(folder) for path in files_of_image(folder, IMAGE)} == own
    assert len(own) > 40


def test_moved_files_keep_their_paths_and_contents(folder):
    before, files = contents(folder), files_of_image(folder, IMAGE)
    target = dated_folder(folder, "01", MOMENT)
    assert target.name == "replaced-20261129T120007"
    move(files, folder, target)
    after = contents(folder)
    moved = {path.relative_to(folder) for path in files}
    assert {path: before[path] for path in moved} == contents(target)
    assert {path: before[path] for path in before if path not in moved} == {
        path: after[path] for path in after if path.parts[0] != target.name
    }


def test_a_dated_folder_is_never_used_twice_for_a_participant(tmp_path):
    first = dated_folder(tmp_path, "01", MOMENT)
    (first / "sub-01").mkdir(parents=True)
    assert dated_folder(tmp_path, "01", MOMENT).name == "replaced-20261129T120008"
    assert dated_folder(tmp_path, "02", MOMENT) == first


def test_a_move_that_was_interrupted_anywhere_is_seen_and_goes_on(folder, tmp_path, monkeypatch):
    """Until the last file has gone, a run that would make it otherwise finds a conflict; then all are moved."""
    change = OTHER_IMAGES["noise"]
    before = contents(folder)
    total = len(files_of_image(folder, IMAGE))
    for n in range(0, total, 3):
        copy = tmp_path / f"copy{n}"
        shutil.copytree(folder, copy)
        left = iter(range(n))

        def stopping(source, target, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            os.replace(source, target)

        monkeypatch.setattr(conflicts.os, "rename", stopping)
        with pytest.raises(KeyboardInterrupt):
            move(files_of_image(copy, IMAGE), copy, dated_folder(copy, "01", MOMENT))
        monkeypatch.undo()
        assert any(conflict.whole for model in (ADC, IVIM) for conflict in found(copy, model, **change))
        move(files_of_image(copy, IMAGE), copy, dated_folder(copy, "01", MOMENT))
        assert not found(copy, IVIM, **change)
        after = contents(copy)
        assert len(after) == len(before)
        assert {
            Path(*path.parts[1:]) if path.parts[0].startswith("replaced-") else path: after[path] for path in after
        } == before


def test_values_in_messages_are_short():
    conflict = conflicts.Conflict(Path("map"), {"Recipe": (list(np.arange(1000.0)), "quick")}, whole=False)
    assert len(conflict.in_words) < 300
    assert conflict.in_words.endswith(" ..., expected quick")
