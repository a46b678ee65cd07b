"""A simulated study as a BIDS dataset, with its truth as a derivative dataset beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bidsfit import __version__
from bidsfit.bids.files import write_json
from bidsfit.bids.units import FILE_UNITS
from bidsfit.exceptions import UsageError
from bidsfit.models.signal_model import Parameter
from bidsfit.phantom.cohort import Cohort, Participant
from bidsfit.phantom.tissue import TISSUE_NAMES, TISSUES

BIDS_VERSION = "1.10.0"

#: Where the truth lies in the dataset.
TRUTH = Path("derivatives", "truth")

#: A plausible scan; the signals do not depend on it.
SIDECAR = {
    "Manufacturer": "Simulation",
    "ManufacturersModelName": "bidsfit phantom",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.085,
    "RepetitionTime": 6.0,
    "FlipAngle": 90,
    "PhaseEncodingDirection": "j-",
    "EffectiveEchoSpacing": 0.0005,
    "TotalReadoutTime": 0.05,
}

TRUTH_IN_WORDS = "brain mask, tissues, lesion mask, and the map of every parameter, with the noise in its sidecar."

SNR_DEFINITION = "Mean true S0 over the brain mask / standard deviation of the noise of a single measurement"


def write_phantom(cohort: Cohort, out: Path) -> None:
    """Write a study: the whole dataset, or nothing.

    Parameters
    ----------
    cohort : Cohort
    out : Path
        A folder that does not exist yet, or is empty.

    Raises
    ------
    UsageError
        Where ``out`` holds something already.
    """
    with whole_folder(out) as folder:
        write_json(folder / "dataset_description.json", describe_dataset(cohort))
        (folder / "README").write_text(describe_in_words(cohort))
        truth = folder / TRUTH
        write_json(truth / "dataset_description.json", describe_truth(cohort))
        (truth / "README").write_text(f"The truth of the simulated images in ../..: {TRUTH_IN_WORDS}\n")
        (truth / ".bidsignore").write_text("*_dwimap.*\n")
        write_table(
            truth / "dseg.tsv",
            ("index", "name", "abbreviation"),
            [(number, TISSUE_NAMES[tissue], tissue) for tissue, number in TISSUES.items()],
        )
        groups = []
        for participant in cohort.participants():
            groups.append((f"sub-{participant.label}", participant.group))
            for session in range(1, cohort.n_sessions + 1):
                stem = image_stem(participant, session if cohort.n_sessions > 1 else None)
                write_scan(folder / stem, cohort, participant, session)
                write_truth(truth / stem, cohort, participant, f"bids:raw:{stem}_dwi.nii.gz")
        write_table(folder / "participants.tsv", ("participant_id", "group"), groups)
        levels = {"healthy": "No lesion", "patient": f"A lesion ({cohort.lesion_name}) in white matter"}
        write_json(folder / "participants.json", {"group": {"Description": "Group of the study", "Levels": levels}})


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name when the block ends without an error."""
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder. Nothing is overwritten: choose another one.")
    temporary = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}. Choose another folder.") from error
    try:
        yield temporary
        os.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def image_stem(participant: Participant, session: int | None) -> Path:
    """Path of an image relative to its dataset, without its suffix."""
    subject = f"sub-{participant.label}"
    if session is None:
        return Path(subject, "dwi", subject)
    return Path(subject, f"ses-{session:02d}", "dwi", f"{subject}_ses-{session:02d}")


def write_scan(stem: Path, cohort: Cohort, participant: Participant, session: int) -> None:
    """Write one image with its b-values, directions and sidecar."""
    acquisition = cohort.acquisition
    write_image(f"{stem}_dwi.nii.gz", cohort.scan(participant, session), participant.head.voxel_size, np.int16)
    b_values = " ".join(f"{b:g}" for b in acquisition.b_values)
    Path(f"{stem}_dwi.bval").write_text(b_values + "\n")
    assert acquisition.directions is not None
    np.savetxt(f"{stem}_dwi.bvec", acquisition.directions.T, fmt="%.8f")
    write_json(Path(f"{stem}_dwi.json"), SIDECAR)


def write_truth(stem: Path, cohort: Cohort, participant: Participant, source: str) -> None:
    """Write the true maps, tissues and masks of one image."""
    head = participant.head
    common = {"Sources": [source], "SpatialReference": source}

    def write_labels(name: str, labels: NDArray, **fields: str) -> None:
        write_image(f"{stem}_{name}.nii.gz", labels, head.voxel_size, np.uint8)
        write_json(Path(f"{stem}_{name}.json"), fields | common)

    write_labels("desc-brain_mask", head.mask, Type="Brain", Description="Every voxel that is not air")
    write_labels("dseg", head.tissue, Description="True tissue; dseg.tsv names the numbers")
    if participant.group == "patient":
        write_labels("label-lesion_mask", head.lesion, Type="Lesion", Description=cohort.lesion_name)

    model = cohort.signal_model
    about = {
        "Model": {
            "Description": f"{model.title}. {model.description}",
            "Parameters": {"FitMethod": "none: the truth of a simulation"},
        },
        "SkullStripped": True,
        "Simulation": describe_simulation(cohort, participant),
    }
    for parameter in model.parameters:
        unit, factor = FILE_UNITS[parameter.unit]
        name = f"{stem}_model-{model.name}_desc-truth_param-{parameter.label}_dwimap"
        write_image(f"{name}.nii.gz", head.parameters[parameter.name] * factor, head.voxel_size, np.float32)
        write_json(Path(f"{name}.json"), describe_parameter(parameter, unit) | about | common)


def write_image(path: str | Path, data: NDArray, voxel_size: float, dtype: DTypeLike) -> None:
    """Write an array of shape (x, y, z) or (x, y, z, n) as NIfTI, its middle at the origin of the world (RAS+).

    Integers are scaled to the whole range of the data, as NIfTI's slope and intercept say.
    """
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = -voxel_size * (np.array(data.shape[:3]) - 1) / 2
    image = nib.Nifti1Image(np.asarray(data, dtype=np.uint8 if dtype is np.uint8 else np.float32), affine)
    image.header.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header["pixdim"][4] = SIDECAR["RepetitionTime"]
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Write a tab-separated table."""
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [columns, *rows]))


def describe_parameter(parameter: Parameter, unit: str) -> dict[str, Any]:
    """Sidecar fields of a true map."""
    return {"Description": f"True value (simulated). {parameter.description}", "Units": unit}


def describe_simulation(cohort: Cohort, participant: Participant) -> dict[str, Any]:
    """How a participant was simulated, for sidecars."""
    return {
        "Seed": cohort.seed,
        "SNR": cohort.snr if np.isfinite(cohort.snr) else None,
        "SNRDefinition": SNR_DEFINITION,
        "NoiseSigma": participant.sigma,
        "NoiseDistribution": cohort.noise if participant.sigma > 0 else "none",
        "Lesion": cohort.lesion_name if participant.group == "patient" else None,
        "TissueSource": cohort.recipe.source,
    }


def describe_dataset(cohort: Cohort) -> dict[str, Any]:
    """``dataset_description.json`` of the images."""
    return {
        "Name": f"Phantom: {cohort.signal_model.title}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
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
        "Description": f"Simulated with the model {cohort.model}, seed {cohort.seed}, SNR {cohort.snr:g}, "
        f"{cohort.noise} noise.",
    }


def describe_in_words(cohort: Cohort) -> str:
    """The README of the dataset."""
    model, acquisition = cohort.signal_model, cohort.acquisition
    shells = ", ".join(
        f"{shell.b_value:g} ({shell.n_measurements} in {shell.n_directions})" for shell in acquisition.shells
    )
    return f"""# Phantom: {model.title}

Simulated diffusion-weighted images with known truth, written by `bidsfit-lab phantom`. {model.description}

- Participants: {cohort.n_healthy} healthy, {cohort.n_patients} with a lesion ({cohort.lesion_name}) in white matter;
  sessions of each: {cohort.n_sessions}, with the same truth and fresh noise.
- b-values in s/mm^2 (how many measurements in how many directions): {shells}.
- Noise: {cohort.noise}, SNR {cohort.snr:g}. SNR is the mean true S0 over the brain mask divided by the standard
  deviation of the noise of a single measurement (for Rician noise, of one of its two channels).
- Tissue: fractal maps of every parameter in white matter, grey matter and cerebrospinal fluid.
  {cohort.recipe.source}
- Seed: {cohort.seed}.

The truth is the derivative dataset `{TRUTH}`: {TRUTH_IN_WORDS}
"""
