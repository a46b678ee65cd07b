"""Maps that earlier runs left in an output folder, as the fits of voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.images import open_image, read_data, read_on_grid
from bidsfit.bids.units import FILE_UNITS
from bidsfit.estimators.estimator import Status
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.signal_model import SignalModel

#: Name of a status map of least squares: entities of the image, and model.
STATUS_MAP = re.compile(r"(?P<image>sub-[^_]+.*)_model-(?P<model>[^_]+)_desc-lsq_param-status_dwimap\.nii\.gz")


@dataclass(frozen=True)
class FittedImage:
    """The least-squares fit of one image: its status map, beside which those of the parameters lie.

    ``image``: the entities of the image (sub-01_ses-1).
    """

    status: Path
    image: str
    model: str

    @property
    def participant(self) -> str:
        """Label without ``sub-``."""
        return self.image.split("_")[0].removeprefix("sub-")

    def parameter(self, label: str) -> Path:
        """The map of a parameter."""
        return self.status.with_name(self.status.name.replace("_param-status_", f"_param-{label}_"))

    def paths(self, model: SignalModel) -> list[Path]:
        """All maps that `voxels` reads."""
        return [*(self.parameter(p.label) for p in model.parameters if p.name != model.scale), self.status]


def find_fitted(folder: Path, participants: Sequence[str] | None = None) -> list[FittedImage]:
    """All least-squares fits of some participants (labels without ``sub-``), or of everyone, in the order of names."""
    chosen = ["*"] if participants is None else participants
    found = []
    for label in chosen:
        for path in sorted(folder.glob(f"sub-{label}/**/dwi/*_desc-lsq_param-status_dwimap.nii.gz")):
            if match := STATUS_MAP.fullmatch(path.name):
                found.append(FittedImage(path, match["image"], match["model"]))
    return found


def converged_voxels(fitted: FittedImage) -> tuple[nib.spatialimages.SpatialImage, NDArray[np.bool_]]:
    """The status map, and where the fit ended inside the bounds."""
    image = open_image(fitted.status)
    return image, np.asarray(read_data(image, fitted.status)) == Status.CONVERGED


def voxels(fitted: FittedImage, model: SignalModel, where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Parameters of some voxels in the units of the numerics, shape (n_voxels, n_parameters), without the scale.

    Raises
    ------
    UnusableInputError
        Where a map is missing or lies on another grid.
    """
    like = open_image(fitted.status)
    columns = []
    for parameter in model.parameters:
        if parameter.name == model.scale:
            continue
        path = fitted.parameter(parameter.label)
        if not path.exists():
            raise UnusableInputError(f"{path} is missing beside {fitted.status.name}. Run the participant level again.")
        data = read_on_grid(path, like, fitted.status, "map")
        columns.append(data[where] / FILE_UNITS[parameter.unit].factor)
    return np.stack(columns, axis=1).astype(np.float32)
