"""Writing of a simulated study as a BIDS dataset, with its truth as a derivative dataset."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bidsfit import __version__
from bidsfit.acquisition import column_of, protocol_in_words
from bidsfit.bids.acquisitions import write_b_values, write_directions
from bidsfit.bids.images import write_nifti
from bidsfit.bids.names import parse_name
from bidsfit.bids.outputs import json_path, map_path, orientation_encoding
from bidsfit.bids.phantom_study import (
    REGION,
    SESSION_COLUMNS,
    TABLE,
    describe_factors,
    describe_groups,
    planted,
    region_rows,
    study_in_words,
    visits,
    write_region_truth,
)
from bidsfit.bids.series import AMPLITUDE, BASIS, OFFSET, SERIES, SHOTS, STATE, endings
from bidsfit.bids.tables import write_rows
from bidsfit.bids.units import FILE_UNITS
from bidsfit.exceptions import CannotCreateError
from bidsfit.files import write_json
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.phantom.cohort import Cohort, Participant
from bidsfit.phantom.grid import centred_affine
from bidsfit.phantom.movement import MOTION_PARAMETERS
from bidsfit.phantom.scanner import PHASE_ENCODING_POLARITY, TOTAL_READOUT_TIME

BIDS_VERSION = "1.11.0"

#: Where the truth lies in the dataset.
TRUTH = Path("derivatives", "truth")

#: s.
REPETITION_TIME = 6.0

#: A plausible scan; the signals do not depend on it.
SIDECAR = {
    "Manufacturer": "Simulation",
    "ManufacturersModelName": "bidsfit phantom",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.085,
    "RepetitionTime": REPETITION_TIME,
    "FlipAngle": 90,
    "PhaseEncodingDirection": {1: "j", -1: "j-"}[PHASE_ENCODING_POLARITY],
    "EffectiveEchoSpacing": 0.0005,
    "TotalReadoutTime": TOTAL_READOUT_TIME,
}

#: Of every file of a series, beside what it measures.
SERIES_SIDECAR = {
    "Manufacturer": "Simulation",
    "ManufacturersModelName": "bidsfit phantom",
    "MagneticFieldStrength": 3,
}

#: Kinds of sequences that BIDS wants named, by suffix.
SEQUENCES = {"VFA": {"PulseSequenceType": "Spoiled gradient echo"}}

#: Of the T1-weighted images.
T1W_SIDECAR = {
    "Manufacturer": "Simulation",
    "ManufacturersModelName": "bidsfit phantom",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.003,
    "RepetitionTime": 2.3,
    "InversionTime": 0.9,
    "FlipAngle": 9,
}

#: Entity and field of each polarity of the phase encoding, along the front-back axis of the image (RAS+).
POLARITIES = {-1: ("AP", "j-"), 1: ("PA", "j")}

#: How transforms are to be read, wherever they are written.
TRANSFORM_IN_WORDS = (
    "Transforms act on world coordinates (mm, RAS+) and lead from where tissue lies in the {reference} to where it "
    "lies in {moved}."
)

TRUTH_IN_WORDS = (
    "mask, tissues, {mask}, and the map of every parameter and of what is "
    "derived from them, with the noise in its sidecar."
)

SNR_DEFINITION = "Mean true S0 over all that is not air / standard deviation of the noise of a single measurement"


def write_phantom(cohort: Cohort, out: Path) -> None:
    """Write a study completely or not at all.

    Raises
    ------
    CannotCreateError
        If the folder ``out`` exists and is not empty.
    """
    with whole_folder(out) as folder:
        write_json(folder / "dataset_description.json", describe_dataset(cohort))
        if _is_train(cohort):
            (folder / ".bidsignore").write_text(f"*_{cohort.signal_model.suffixes[0]}.*\n")
        (folder / "README").write_text(describe_in_words(cohort))
        truth = folder / TRUTH
        write_json(truth / "dataset_description.json", describe_truth(cohort))
        (truth / "README").write_text(f"The truth of the simulated images in ../..: {truth_in_words(cohort)}\n")
        if patterns := ignored(cohort):
            (truth / ".bidsignore").write_text("".join(f"{pattern}\n" for pattern in patterns))
        write_rows(
            truth / "dseg.tsv",
            ("index", "name", "abbreviation"),
            [(number, name, tissue) for tissue, (number, name) in cohort.tissues.items()],
        )
        groups: list[tuple[str, str]] = []
        true_medians: list[dict[str, Any]] = []
        for participant in cohort.participants():
            groups.append((f"sub-{participant.label}", participant.group))
            if cohort.study is not None and cohort.has_sessions:
                write_sessions(folder, cohort, participant)
            for session in cohort.sessions(participant.group):
                kind = "anat" if cohort.recipe.columns else "dwi"
                stem = image_stem(participant, session if cohort.has_sessions else None, kind)
                source = f"bids:raw:{stem}_{measurements(cohort)[0]}.nii.gz"
                if cohort.recipe.columns:
                    write_series(folder / stem, cohort, participant, session)
                else:
                    write_scan(folder / stem, cohort, participant, session)
                write_truth(truth / stem, cohort, participant, session, source)
                if cohort.imperfections.any:
                    write_scan_truth(truth / stem, cohort, participant, session, source)
                if cohort.imperfections.off_resonance > 0:
                    write_reversed_phase(folder, stem, cohort, participant, session)
                if cohort.t1w:
                    write_t1w(folder, stem, cohort, participant, session)
                if cohort.study is not None:
                    true_medians += region_rows(cohort, participant, session)
        write_rows(folder / "participants.tsv", ("participant_id", "group"), groups)
        levels = describe_groups(cohort)
        write_json(folder / "participants.json", {"group": {"Description": "Group of the study", "Levels": levels}})
        if cohort.study is not None:
            write_region_truth(truth / TABLE, cohort, true_medians)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that is renamed to it when the block ends without an error."""
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CannotCreateError(f"{out} exists and is not an empty folder. Nothing is overwritten: choose another one.")
    temporary = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise CannotCreateError(f"{out} cannot be written: {error.strerror}. Choose another folder.") from error
    try:
        yield temporary
        os.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def image_stem(participant: Participant, session: int | None, datatype: str = "dwi") -> Path:
    """Path of an image relative to its dataset, without its suffix."""
    subject = f"sub-{participant.label}"
    if session is None:
        return Path(subject, datatype, subject)
    return Path(subject, f"ses-{session:02d}", datatype, f"{subject}_ses-{session:02d}")


def beside(stem: Path, folder: str) -> Path:
    """The stem of an image, moved to another folder of the same session."""
    return stem.parent.with_name(folder) / stem.name


def write_sessions(folder: Path, cohort: Cohort, participant: Participant) -> None:
    """Write the sessions table of a participant, with dates and conditions."""
    path = folder / f"sub-{participant.label}" / f"sub-{participant.label}_sessions.tsv"
    path.parent.mkdir(exist_ok=True)
    rows = [(visit.session_id, visit.acq_time, visit.condition) for visit in visits(cohort, participant)]
    write_rows(path, ("session_id", *SESSION_COLUMNS), rows)
    write_json(path.with_suffix(".json"), SESSION_COLUMNS)


def write_scan(stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write one image with its b-values, directions and sidecar."""
    acquisition = cohort.acquisition
    size = participant.head.voxel_size
    source = {"B0FieldSource": field_identifier(stem)} if cohort.imperfections.off_resonance > 0 else {}
    part = {"BodyPart": cohort.anatomy.upper()} if cohort.anatomy == "abdomen" else {}
    (ending,) = measurements(cohort)
    if cohort.phase:
        scan = cohort.complex_scan(participant, session)
        write_image(f"{stem}_{ending}.nii.gz", np.abs(scan), size, np.int16)
        write_image(f"{stem}_part-phase_dwi.nii.gz", np.angle(scan), size, np.float32)
        write_json(Path(f"{stem}_part-phase_dwi.json"), SIDECAR | part | {"Units": "rad"})
    else:
        write_image(f"{stem}_{ending}.nii.gz", cohort.scan(participant, session), size, np.int16)
    for name in (ending, *(["part-phase_dwi"] if cohort.phase else [])):
        write_b_values(Path(f"{stem}_{name}.bval"), acquisition.b_values)
        assert acquisition.directions is not None
        write_directions(Path(f"{stem}_{name}.bvec"), acquisition.directions)
    write_json(Path(f"{stem}_{ending}.json"), SIDECAR | part | source)


def measurements(cohort: Cohort) -> list[str]:
    """What the names of the files of an image end with: ``dwi``, ``part-mag_dwi``, or ``echo-1_MESE`` and so on."""
    suffix = cohort.signal_model.suffixes[0]
    if not cohort.recipe.columns:
        return [f"part-mag_{suffix}" if cohort.phase else suffix]
    return endings(suffix, cohort.acquisition)


def _is_train(cohort: Cohort) -> bool:
    """Whether its images are coefficients of a train of pulses."""
    suffix = cohort.signal_model.suffixes[0]
    return suffix in SERIES and SERIES[suffix].train


def write_series(stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write the files of a series with their sidecars, and the image of fmap/ that helps to fit it."""
    write = _write_train if _is_train(cohort) else _write_single_files
    write(stem, cohort, participant, session)
    if covariate := cohort.signal_model.covariate:
        path = f"{beside(stem, 'fmap')}_{covariate.suffix}"
        values = 100 * participant.head.parameters[covariate.parameter]
        write_image(f"{path}.nii.gz", values, participant.head.voxel_size, np.float32)
        about = {"Description": "Flip angle, per cent of the nominal one", "SkullStripped": False}
        write_json(Path(f"{path}.json"), SERIES_SIDECAR | about)


def _write_single_files(stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write a file for each measurement of a series, with a sidecar of its own."""
    suffix, size = cohort.signal_model.suffixes[0], participant.head.voxel_size
    if SERIES[suffix].signed:
        scan = cohort.complex_scan(participant, session)
        image = np.abs(scan)
        unit = (scan[..., 0] * scan[..., 1].conj()).real / np.maximum((image**2).sum(axis=-1), 1e-12)
        write_image(f"{stem}_UNIT1.nii.gz", unit, size, np.float32)
        write_json(Path(f"{stem}_UNIT1.json"), SERIES_SIDECAR)
    else:
        image = cohort.scan(participant, session)
    for k, ending in enumerate(measurements(cohort)):
        write_image(f"{stem}_{ending}.nii.gz", image[..., k], size, np.int16)
        own = {
            column_of(name).field: round(values[k] / column_of(name).field_factor, 6)
            for name, values in cohort.acquisition.columns.items()
        }
        if SHOTS in SERIES[suffix].fields:
            own[SHOTS] = [own.pop(f"{SHOTS}{part}") for part in ("Before", "After")]
        if STATE in SERIES[suffix].fields:
            own[STATE] = bool(own[AMPLITUDE] > 0)
            own = own if own[STATE] else {key: value for key, value in own.items() if key not in (OFFSET, AMPLITUDE)}
        write_json(Path(f"{stem}_{ending}.json"), SERIES_SIDECAR | SEQUENCES.get(ending.split("_")[-1], {}) | own)


def _write_train(stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write real and imaginary parts of the coefficients of a train of pulses, with one sidecar for all."""
    image = cohort.scan(participant, session)
    for k, ending in enumerate(measurements(cohort)):
        for part, values in (("real", image.real), ("imag", image.imag)):
            path = f"{stem}_{ending.replace('part-real', f'part-{part}')}.nii.gz"
            write_image(path, values[..., k], participant.head.voxel_size, np.float32)
    frames, basis = cohort.acquisition.frames, cohort.acquisition.basis
    assert frames is not None
    train = {BASIS: basis.real.T.round(8).tolist()}  # those of models are real
    for name, told in frames.columns.items():
        column = column_of(name)
        train[column.field] = (told > 0 if column.flag else (told / column.field_factor).round(7)).tolist()
    write_json(Path(f"{stem}_{cohort.signal_model.suffixes[0]}.json"), SERIES_SIDECAR | train)


def field_identifier(stem: Path) -> str:
    """Identifier that links an image to the pair for its field, one per session."""
    session = parse_name(stem.name).entities.get("ses")
    return f"pepolar_ses{session}" if session else "pepolar"


def write_reversed_phase(folder: Path, stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write b = 0 images of both phase-encoding polarities."""
    for polarity, image in cohort.reversed_phase(participant, session).items():
        label, direction = POLARITIES[polarity]
        path = f"{folder / beside(stem, 'fmap')}_dir-{label}_epi"
        write_image(f"{path}.nii.gz", image, participant.head.voxel_size, np.int16)
        fields = {
            "PhaseEncodingDirection": direction,
            "B0FieldIdentifier": field_identifier(stem),
            "IntendedFor": [f"bids::{stem.as_posix()}_{measurements(cohort)[0]}.nii.gz"],
        }
        write_json(Path(f"{path}.json"), SIDECAR | fields)


def write_t1w(folder: Path, stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write a T1-weighted image, with its tissues and position as truth."""
    t1w = cohort.t1w_image(participant, session)
    name = beside(stem, "anat")
    write_image(f"{folder / name}_T1w.nii.gz", t1w.image, t1w.voxel_size, np.int16)
    write_json(Path(f"{folder / name}_T1w.json"), T1W_SIDECAR)

    source = f"bids:raw:{name.as_posix()}_T1w.nii.gz"
    truth = folder / TRUTH / name
    write_image(f"{truth}_dseg.nii.gz", t1w.tissue, t1w.voxel_size, np.uint8)
    about = {"Description": "True tissue in the voxels of the T1-weighted image; dseg.tsv names the numbers"}
    write_json(Path(f"{truth}_dseg.json"), about | {"Sources": [source], "SpatialReference": source})
    transform = Path(f"{truth}_from-dwi_to-T1w_mode-image_xfm")
    np.savetxt(transform.with_suffix(".txt"), t1w.transform, fmt="%.10g")
    words = TRANSFORM_IN_WORDS.format(reference="diffusion-weighted images", moved="the T1-weighted image")
    write_json(transform.with_suffix(".json"), {"Description": f"True rigid transform. {words}", "Sources": [source]})


def write_scan_truth(stem: Path, cohort: Cohort, participant: Participant, session: int, source: str) -> None:
    """Write the truth of one session: breathing, motion, field, drop-out, eddy currents."""
    truth, imperfections = cohort.truth(participant, session), cohort.imperfections
    sources = {"Sources": [source]}

    def write_series(name: str, columns: dict[str, dict[str, str]], rows: NDArray, description: str) -> None:
        values = [tuple(f"{value:.8g}" for value in row) for row in rows]
        write_rows(Path(f"{stem}_desc-{name}_timeseries.tsv"), tuple(columns), values)
        fields = {"Description": description, **columns} | sources
        write_json(Path(f"{stem}_desc-{name}_timeseries.json"), fields)

    if imperfections.moves:
        words = TRANSFORM_IN_WORDS.format(reference="first volume", moved="each volume")
        write_series(
            "motion",
            {
                name: {
                    "Description": f"{'Translation along' if name.startswith('trans') else 'Rotation about'} the "
                    f"{name[-1]} axis of the world",
                    "Units": "mm" if name.startswith("trans") else "rad",
                }
                for name in MOTION_PARAMETERS
            },
            truth.motion,
            f"True motion of the head, one row a volume. {words} The rotations are about the fixed axes through the "
            "origin, about x first, then y, then z; the translation follows.",
        )
    if imperfections.breathing > 0:
        write_series(
            "breathing",
            {"depth": {"Description": "Movement of the middle of the liver to the feet", "Units": "mm"}},
            truth.breathing[:, None],
            "True depth of the breath, one row a volume, from the mean of all volumes, which is what the true maps "
            "show. Organs move by a fraction of it and to the front, the wall and the spine hardly at all.",
        )
    if imperfections.eddy > 0:
        write_series(
            "eddy",
            {
                f"shift_{axis}": {
                    "Description": f"Displacement along +{axis} of the world a mm from the origin, "
                    "times the sign of the phase encoding",
                    "Units": "mm/mm",
                }
                for axis in "xyz"
            },
            truth.eddy,
            "True displacement by eddy currents along the phase-encoding axis, one row a volume.",
        )
    if imperfections.outliers > 0:
        write_series(
            "outliers",
            {
                f"slice_{z}": {"Description": f"Signal left in slice {z}, counted from 0", "Units": "1"}
                for z in range(len(truth.outliers))
            },
            truth.outliers.T,
            "True signal drop-out, one row a volume: the fraction of the signal that is left, 1 where all is.",
        )
    if imperfections.off_resonance > 0:
        name = beside(stem, "fmap")
        write_image(f"{name}_fieldmap.nii.gz", truth.field, participant.head.voxel_size, np.float32)
        about = {
            "Description": "True off-resonance. It stays where the scanner is when the head moves. Signal is displaced "
            "by its product with TotalReadoutTime, in voxels, along PhaseEncodingDirection.",
            "Units": "Hz",
            "SpatialReference": source,
            "SkullStripped": False,
        }
        write_json(Path(f"{name}_fieldmap.json"), about | sources)
        # BIDS wants an image beside a field: here the b = 0 image that no field has distorted
        write_image(f"{name}_magnitude.nii.gz", cohort.unweighted(participant), participant.head.voxel_size, np.float32)
        about = {"Description": "True signal without diffusion weighting, distortion and noise", "SkullStripped": True}
        write_json(Path(f"{name}_magnitude.json"), about | sources | {"SpatialReference": source})


def write_truth(stem: Path, cohort: Cohort, participant: Participant, session: int, source: str) -> None:
    """Write the true maps, tissues and masks of one image."""
    head = cohort.head_at(participant, session)
    common = {"Sources": [source], "SpatialReference": source}

    def write_labels(name: str, labels: NDArray, **fields: str) -> None:
        write_image(f"{stem}_{name}.nii.gz", labels, head.voxel_size, np.uint8)
        write_json(Path(f"{stem}_{name}.json"), fields | common)

    part, kind = ("body", "ROI") if cohort.anatomy == "abdomen" else ("brain", "Brain")
    write_labels(f"desc-{part}_mask", head.mask, Type=kind, Description="Every voxel that is not air")
    write_labels("dseg", head.tissue, Description="True tissue; dseg.tsv names the numbers")
    if cohort.study is not None:
        description = cohort.lesion_name if head.lesion.any() else f"{cohort.host} where patients have their lesion"
        write_labels(f"label-{REGION}_mask", head.region, Type="ROI", Description=f"Homogeneous region. {description}")
    elif participant.group == "patient":
        write_labels("label-lesion_mask", head.lesion, Type="Lesion", Description=cohort.lesion_name)

    model = cohort.signal_model
    about = {
        "Model": {
            "Description": f"{model.title}. {model.description}",
        },
        "SkullStripped": True,
        "Simulation": describe_simulation(cohort, participant, session),
    }
    rows = np.stack([head.parameters[name][head.mask] for name in model.names], axis=1)
    truth = dict(zip(model.names, rows.T, strict=True)) | model.derivation.values(rows)
    for quantity in model.mapped:
        unit, factor = FILE_UNITS[quantity.unit]
        suffix = f"{stem.parent.name}map"
        path = map_path(str(stem.parent), stem.name, model.name, quantity.label, "truth", suffix)
        values = truth[quantity.name]
        image = np.zeros((*head.mask.shape, *values.shape[1:]))
        image[head.mask] = values * factor
        write_image(path, image, head.voxel_size, np.float32, step=1)
        write_json(json_path(path), describe_quantity(quantity, unit) | about | common)


def write_image(
    path: str | Path, data: NDArray, voxel_size: float, dtype: DTypeLike, *, step: float = REPETITION_TIME
) -> None:
    """Write an array (x, y, z) or (x, y, z, n) as NIfTI with its centre at the world origin (RAS+).

    Integer types use slope and intercept to cover the range of the data. ``step`` is that of the fourth axis.
    """
    affine = centred_affine(data.shape, voxel_size)
    grid = nib.Nifti1Image(np.empty((1,) * data.ndim, dtype=np.uint8), affine)
    if data.ndim == 4:
        grid.header["pixdim"][4] = step
    grid.set_qform(affine, code="scanner")
    grid.set_sform(affine, code="scanner")
    write_nifti(Path(path), data, grid, dtype)


def describe_quantity(quantity: Parameter | Derived, unit: str) -> dict[str, Any]:
    """Sidecar fields of a true map."""
    about = {"Description": f"True value (simulated). {quantity.description}", "Units": unit}
    return about | orientation_encoding(quantity, "bvec")


def describe_simulation(cohort: Cohort, participant: Participant, session: int) -> dict[str, Any]:
    """How a participant was simulated, for sidecars."""
    return {
        "Seed": cohort.seed,
        "SNR": cohort.level if np.isfinite(cohort.level) else None,
        "SNRDefinition": SNR_DEFINITION,
        "NoiseSigma": participant.sigma,
        "NoiseDistribution": cohort.noise if participant.sigma > 0 else "none",
        "Lesion": cohort.lesion_name if participant.group != "healthy" else None,
        "TissueSource": cohort.recipe.source,
        **({"Imperfections": asdict(cohort.imperfections)} if cohort.imperfections.any else {}),
        **describe_variation(cohort, participant, session),
    }


def describe_variation(cohort: Cohort, participant: Participant, session: int) -> dict[str, Any]:
    """How the truth of a session varies, for sidecars; empty where it does not."""
    if cohort.study is None:
        return {}
    factors = {"Factors": describe_factors(cohort, participant, session)}
    return {"Study": planted(cohort.study, cohort.signal_model) | factors}


def describe_dataset(cohort: Cohort) -> dict[str, Any]:
    """``dataset_description.json`` of the images."""
    return {
        "Name": f"Phantom: {cohort.signal_model.title}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative" if _is_train(cohort) else "raw",
        "License": "CC0",
        "Authors": ["bidsfit"],
        "GeneratedBy": [generated_by(cohort)],
    }


def describe_truth(cohort: Cohort) -> dict[str, Any]:
    """``dataset_description.json`` of the truth."""
    return {
        "Name": f"Truth of the phantom: {cohort.signal_model.title}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "CC0",
        "GeneratedBy": [generated_by(cohort)],
        "SourceDatasets": [{"URL": "../.."}],
        "DatasetLinks": {"raw": "../.."},
    }


def generated_by(cohort: Cohort) -> dict[str, str]:
    """What made the dataset, with what it takes to make it again."""
    return {
        "Name": "bidsfit-lab phantom",
        "Version": __version__,
        "CodeURL": "https://github.com/bidsfit/bidsfit",
        "Description": f"Simulated with the model {cohort.model}, seed {cohort.seed}, SNR {cohort.level:g}, "
        f"{cohort.noise} noise." + (f" {imperfections_in_words(cohort)}." if cohort.imperfections.any else ""),
    }


def imperfections_in_words(cohort: Cohort) -> str:
    """What the images have besides noise."""
    amounts = cohort.imperfections
    words = {
        f"breathing of {amounts.breathing:g} mm": amounts.breathing > 0,
        f"motion of up to {amounts.motion:g} mm": amounts.motion > 0,
        f"rotation of up to {amounts.rotation:g} degrees": amounts.rotation > 0,
        f"off-resonance of up to {amounts.off_resonance:g} Hz": amounts.off_resonance > 0,
        f"eddy currents that displace by up to {amounts.eddy:g} %": amounts.eddy > 0,
        "Gibbs ringing": amounts.gibbs,
        f"signal drop-out in {amounts.outliers} volumes": amounts.outliers > 0,
    }
    return "Imperfections: " + ", ".join(text for text, present in words.items() if present)


def truth_in_words(cohort: Cohort) -> str:
    """What the derivative dataset holds."""
    more = {
        "breathing, motion, field, eddy currents and drop-out of each session, where there are any": (
            cohort.imperfections.any
        ),
        "tissues and position of the T1-weighted images": cohort.t1w,
        f"the true medians of regions ({TABLE})": cohort.study is not None,
    }
    mask = "lesion mask" if cohort.study is None else "mask of the region"
    words = TRUTH_IN_WORDS.format(mask=mask).removesuffix(".")
    return words + "".join(f"; {text}" for text, present in more.items() if present) + "."


def ignored(cohort: Cohort) -> list[str]:
    """Names in the truth that are not part of BIDS."""
    amounts = cohort.imperfections
    series = amounts.moves or amounts.outliers > 0 or amounts.eddy > 0 or amounts.breathing > 0
    patterns = {"*_timeseries.*": series, "*_xfm.*": cohort.t1w}
    patterns[f"{Path(TABLE).stem}.*"] = cohort.study is not None
    return [pattern for pattern, present in patterns.items() if present]


def describe_in_words(cohort: Cohort) -> str:
    """The README of the dataset."""
    model, acquisition = cohort.signal_model, cohort.acquisition
    shells = ", ".join(
        f"{shell.b_value:g} ({shell.n_measurements} in {shell.n_directions})" for shell in acquisition.shells
    )
    protocol = f"b-values in s/mm^2 (how many measurements in how many directions): {shells}"
    if cohort.recipe.columns:
        protocol = f"Measurements: {protocol_in_words(acquisition)}"
    more = f"- {imperfections_in_words(cohort)}.\n" if cohort.imperfections.any else ""
    more += "- A T1-weighted image in every session, taken in another position.\n" if cohort.t1w else ""
    host = cohort.host.lower()
    people = f"""\
- Participants: {cohort.n_healthy} healthy, {cohort.n_patients} with a lesion ({cohort.lesion_name}) in {host};
  sessions of each: {cohort.n_sessions}, with the same truth and fresh noise."""
    if cohort.study is not None:
        people = study_in_words(cohort)
    tissues = ", ".join(name.lower() for tissue, (_, name) in cohort.tissues.items() if tissue != "lesion")
    kind = "series of images" if cohort.recipe.columns else "diffusion-weighted images"
    return f"""# Phantom: {model.title}

Simulated {kind} with known truth, written by `bidsfit-lab phantom`. {model.description}

{people}
- {protocol}.
- Noise: {cohort.noise}, SNR {cohort.level:g}. SNR is the mean true S0 over all that is not air divided by the standard
  deviation of the noise of a single measurement (for Rician noise, of one of its two channels).
{more}- Tissue: fractal maps of every parameter in {tissues}.
  {cohort.recipe.source}
- Seed: {cohort.seed}.

The truth is the derivative dataset `{TRUTH}`: {truth_in_words(cohort)}
"""
