"""Fits in an output folder: finding them, reading how they were made, and reading their voxels."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.images import open_image, read_data, read_on_grid
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import FOLDERS, fault_of, parse_name, participant_labels
from bidsfit.bids.outputs import label_of, map_path, quality_quantities
from bidsfit.bids.units import FILE_UNITS
from bidsfit.estimators.estimator import INSIDE, estimator_label
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.signal_model import SignalModel
from bidsfit.trust.flags import FLAGS

#: What may differ between the trainings of one estimator for several images.
TRAININGS = IMAGES_OF_TRAINING, SNR_OF_TRAINING, DISTRIBUTION_OF_TRAINING, TRAINED_ESTIMATOR = (
    "Images of the training",
    "SNR of the training",
    "Distribution of the training",
    "Trained estimator",
)

#: Settings that differ between images that were fitted alike: what the mask is called, and who was left out of a pool.
OWN_SETTINGS = ("Mask", "TrainingPool")


@dataclass(frozen=True)
class FittedImage:
    """The fit of one image, identified by its status map.

    Attributes
    ----------
    image : str
        Entities of the image (sub-01_ses-1_acq-ap).
    estimator : str
        Label in file names: "netuniform" for "net-uniform".
    labels : tuple of str
        Labels of the parameters that have a map.
    """

    status: Path
    image: str
    model: str
    estimator: str = "lsq"
    labels: tuple[str, ...] = ()

    @property
    def participant(self) -> str:
        """Label without ``sub-``."""
        return parse_name(self.image).entities["sub"]

    @property
    def session(self) -> str:
        """Label without ``ses-``; empty if the image has none."""
        return session_of(self.image)

    @property
    def series(self) -> str:
        """Entities other than participant and session (acq-ap_run-1); images that share it are comparable."""
        return series_of(self.image)

    def parameter(self, label: str) -> Path:
        """Path of the map of a parameter."""
        return self._map(label)

    def statistic(self, label: str, key: str) -> Path:
        """Path of the map of a statistic of a parameter, which need not exist."""
        return self._map(label, key)

    def _map(self, label: str, statistic: str = "") -> Path:
        folder, suffix = str(self.status.parent), parse_name(self.status.name).suffix
        return map_path(folder, self.image, self.model, label, self.estimator, suffix, statistic)

    def paths(self, model: SignalModel) -> list[Path]:
        """All maps that `voxels` reads."""
        return [*dict.fromkeys(path for path, _ in self.columns(model)), self.status]

    def columns(self, model: SignalModel) -> list[tuple[Path, int | None]]:
        """Map of every parameter but the scale, and for an element of a tensor which of its volumes."""
        found: list[tuple[Path, int | None]] = []
        for parameter in model.parameters:
            if model.tensor is not None and parameter.name in model.tensor.elements:
                found.append((self.parameter(model.tensor.label), model.tensor.elements.index(parameter.name)))
            elif parameter.name != model.scale:
                found.append((self.parameter(parameter.label), None))
        return found


def session_of(image: str) -> str:
    """Session label of an image, without ``ses-``; empty if it has none."""
    return parse_name(image).entities.get("ses", "")


def series_of(image: str) -> str:
    """Entities of an image other than participant and session."""
    return parse_name(image).without(*FOLDERS)


def find_fitted(
    folder: Path, participants: Sequence[str] | None = None, estimators: Collection[str] | None = ("lsq",)
) -> list[FittedImage]:
    """Find fits by file names, of some participants (labels without ``sub-``) or all, sorted by name.

    A fit counts if it has a status map, which is written last.

    Parameters
    ----------
    folder : Path
        Output folder.
    estimators : collection of str, optional
        Names, or labels in file names; None means all.

    Raises
    ------
    UnusableInputError
        If the name of a map contradicts its folder.
    """
    if participants is None:
        participants = participant_labels(folder)
    wanted = None if estimators is None else {estimator_label(name) for name in estimators}
    found = [
        fitted
        for label in participants
        for kind in ("dwi", "anat")
        for place in (folder / f"sub-{label}" / kind, *sorted((folder / f"sub-{label}").glob(f"ses-*/{kind}")))
        for fitted in _in_folder(place)
        if wanted is None or fitted.estimator in wanted
    ]
    for fitted in found:
        if fault := fault_of(fitted.status, folder):
            raise UnusableInputError(fault)
    return found


def _in_folder(folder: Path) -> Iterator[FittedImage]:
    """Fits whose maps are in a folder."""
    fits: dict[tuple[str, str, str], set[str]] = {}
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        parsed = parse_name(name)
        if (label := label_of(parsed)) and name.startswith("sub-"):
            model, estimator = (parsed.entities[key] for key in ("model", "desc"))
            fits.setdefault((name.partition("_model-")[0], model, estimator), set()).add(label)
    fits_own = {quantity.key for quantity in (*quality_quantities(), FLAGS)}
    for (image, model, estimator), labels in sorted(fits.items()):
        if "status" in labels:
            status = map_path(str(folder), image, model, "status", estimator, f"{folder.name}map")
            yield FittedImage(status, image, model, estimator, tuple(sorted(labels - fits_own)))


def scanned_sessions(fits: Iterable[FittedImage]) -> dict[str, tuple[str, ...]]:
    """Sorted labels of the sessions with maps, by participant; all without prefix."""
    found: dict[str, set[str]] = {}
    for fitted in fits:
        found.setdefault(fitted.participant, set()).add(fitted.session)
    return {label: tuple(sorted(sessions)) for label, sessions in sorted(found.items())}


@dataclass(frozen=True)
class FitTraining:
    """Training data of a trained estimator.

    Attributes
    ----------
    distribution : str
        Kind: "prior", "uniform", "healthy", "mixed", "wm" or "gm"; empty if unknown.
    digest : str
        Digest of the distribution.
    participants : tuple of str
        Participants (with ``sub-``) whose fits are part of it.
    left_out : str
        Participant (with ``sub-``) left out of the pool, because the estimator was trained for their images.
    converged : bool
    pool : str
        Digest of the pool of all participants; empty if there is none.
    snr : float or None
        Of the signals of the training; None without noise.
    checksum : str
        Of the file of the trained estimator; empty if unknown.
    images : tuple of str
        Names of the images whose voxels the training took.
    """

    distribution: str
    digest: str
    participants: tuple[str, ...]
    left_out: str
    converged: bool
    pool: str = ""
    snr: float | None = None
    checksum: str = ""
    images: tuple[str, ...] = ()

    def holds(self, participant: str) -> bool:
        """Whether fits of a participant (label without ``sub-``) are part of the training data."""
        return f"sub-{participant}" in self.participants


@dataclass(frozen=True)
class FitFacts:
    """How a fit was made, from the sidecar of its status map.

    Attributes
    ----------
    estimator : str
        Name, such as "net-uniform".
    title : str
        Full name.
    settings : mapping
        ``Model.Parameters`` of the sidecar; diffusivities in mm^2/s.
    version : str
        Version of bidsfit.
    training : FitTraining, optional
        None for estimators that are not trained.
    """

    estimator: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    training: FitTraining | None = None

    @cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds by parameter name (not label) in the units of files; infinite if there is none."""
        found = self.settings.get("Bounds")
        return {
            name: (-np.inf if low is None else float(low), np.inf if high is None else float(high))
            for name, (low, high) in (found.items() if isinstance(found, dict) else ())
        }


def read_facts(fitted: FittedImage) -> FitFacts:
    """Read how a fit was made.

    Raises
    ------
    UnusableInputError
        If its sidecar cannot be read or lacks fields.
    """
    path = fitted.status.with_name(fitted.status.name.removesuffix(".nii.gz") + ".json")
    content = read_sidecar(path)
    try:
        settings = content["Model"]["Parameters"]
        return FitFacts(
            estimator=str(settings["Estimator"]),
            title=str(content.get("EstimationAlgorithm", "")),
            settings=settings,
            version=str((content.get("GeneratedBy") or [{}])[0].get("Version", "")),
            training=_training(settings, (content.get("EstimationNotes") or {}).get("TrainedEstimator")),
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise UnusableInputError(
            f"{path} does not say how the fit was made (it lacks {error}). Run the participant level again."
        ) from error


def _training(settings: Mapping[str, Any], notes: Mapping[str, Any] | None) -> FitTraining | None:
    """Training data as described in a sidecar."""
    if not notes:
        return None
    pool, _, left_out = str(settings.get("TrainingPool", "")).partition(" without ")
    return FitTraining(
        distribution=str(settings.get("TrainingDistribution", "")),
        digest=str(notes.get("DistributionDigest", "")),
        participants=tuple(notes.get("Participants", ())),
        left_out=left_out,
        pool=pool,
        converged=bool((notes.get("Training") or {}).get("Converged", True)),
        snr=(notes.get("Noise") or {}).get("SNR"),
        checksum=str(notes.get("Checksum", "")),
        images=tuple((notes.get("Images") or {}).get("Voxels", ())),
    )


def settings_that_differ(facts: Sequence[FitFacts]) -> list[str]:
    """Names of the settings that differ between fits of one model by one estimator; such maps are not comparable.

    Of trained estimators also those of the training that was chosen for the image: the images that it took voxels of,
    or its SNR, or its distribution (but for the participant who was left out of a pool), or else the trained estimator
    itself (as of another protocol).
    """
    names = sorted({name for one in facts for name in one.settings if name not in OWN_SETTINGS})
    differing = [name for name in names if any(one.settings.get(name) != facts[0].settings.get(name) for one in facts)]
    trained = [one.training for one in facts if one.training is not None]
    alike: dict[str, list[FitTraining]] = {}
    for training in trained:
        alike.setdefault(training.left_out, []).append(training)
    if len({training.images for training in trained}) > 1:
        differing.append(IMAGES_OF_TRAINING)
    elif len({training.snr for training in trained}) > 1:
        differing.append(SNR_OF_TRAINING)
    elif len({training.pool for training in trained}) > 1 or any(
        len({training.digest for training in group}) > 1 for group in alike.values()
    ):
        differing.append(DISTRIBUTION_OF_TRAINING)
    elif any(len({training.checksum for training in group}) > 1 for group in alike.values()):
        differing.append(TRAINED_ESTIMATOR)
    return differing


def converged_voxels(fitted: FittedImage) -> tuple[nib.spatialimages.SpatialImage, NDArray[np.bool_]]:
    """The status map, and the voxels whose fit ended inside the bounds."""
    image = open_image(fitted.status)
    return image, np.isin(read_data(image, fitted.status), INSIDE)


def voxels(fitted: FittedImage, model: SignalModel, where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Parameters of some voxels in internal units, shape (n_voxels, n_parameters), without the scale.

    Raises
    ------
    UnusableInputError
        If a map is missing or on another grid.
    """
    like = open_image(fitted.status)
    parameters = [parameter for parameter in model.parameters if parameter.name != model.scale]
    columns = []
    for parameter, (path, volume) in zip(parameters, fitted.columns(model), strict=True):
        if not path.exists():
            raise UnusableInputError(f"{path} is missing beside {fitted.status.name}. Run the participant level again.")
        data = read_on_grid(path, like, fitted.status, "map", volume)
        columns.append(data[where] / FILE_UNITS[parameter.unit].factor)
    return np.stack(columns, axis=1).astype(np.float32)
