"""Maps of a simulated patient with a lesion, by every estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bidsfit.evaluation.experiments import Setting, tissue_errors
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gallery import Gallery, axes_of
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.tissue import TISSUES
from bidsfit.reports.lesions import DifferenceColumn, LesionColumn, plot_difference_maps, plot_lesions

#: Voxels of the patient, and of one for a look.
SHAPE, QUICK_SHAPE = (96, 96, 3), (48, 48, 3)
#: Estimators whose differences fit in one figure.
MOST = 8

Maps = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class PatientSlice:
    """The slice of a simulated patient with the largest part of the lesion.

    Attributes
    ----------
    lesion : str
        Name of the lesion.
    mask, region : ndarray of bool, shape (x, y)
        Head and lesion.
    tissue : dict of name to ndarray of bool, shape (x, y)
    truth : dict of parameter to ndarray, shape (x, y)
        NaN outside the mask.
    """

    lesion: str
    mask: NDArray[np.bool_]
    region: NDArray[np.bool_]
    tissue: dict[str, NDArray[np.bool_]]
    truth: Maps


def simulated_patient(
    space: ParameterSpace,
    *,
    lesion: str | None = None,
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    healthy: bool = False,
    others: int = 0,
) -> PatientSlice:
    """Simulate a patient with the named lesion, or the first of the model; or a healthy participant.

    Parameters
    ----------
    others : int
        Healthy participants of the same seed and shape whose anatomies the patient does not have.

    Raises
    ------
    UsageError, UnknownNameError
        If the model has no phantom, or the lesion does not exist.
    """
    cohort = Cohort(
        space.model.name,
        n_healthy=others + healthy,
        n_patients=1 - healthy,
        shape=shape,
        lesion=lesion,
        seed=seed,
    )
    *_, participant = cohort.participants()
    head = participant.head
    z = int(head.region.sum(axis=(0, 1)).argmax())
    mask, tissue = head.mask[:, :, z], head.tissue[:, :, z]
    truth = {name: np.where(mask, head.parameters[name][:, :, z], np.nan) for name in space.names}
    regions = {name: tissue == number for name, number in TISSUES.items()}
    return PatientSlice(cohort.lesion_name, mask, regions["lesion"], regions, truth)


def estimated_maps(bench: Bench, setting: Setting, patient: PatientSlice, name: str) -> Maps:
    """Maps by one estimator; the noise of the setting is scaled by the S0 of each voxel."""
    truth = np.stack([patient.truth[p][patient.mask] for p in setting.space.names], axis=1)
    found = bench.estimate(name, setting, setting.measure(truth, 1, bench.seed))
    maps = {}
    for j, parameter in enumerate(setting.space.names):
        maps[parameter] = np.full(patient.mask.shape, np.nan)
        maps[parameter][patient.mask] = found[:, j]
    return maps


def draw_lesion(
    bench: Bench,
    gallery: Gallery,
    name: str,
    title: str,
    setting: Setting,
    patient: PatientSlice,
    estimators: Sequence[str],
    readable: Callable[[str], str] = str,
    window: float | None = None,
) -> None:
    """Draw the true lesion and its maps by every estimator.

    Colours reach as far around the median of white matter as ``window`` says, a share of the bounds on either side; by
    default from bound to bound.
    """
    columns = [LesionColumn("truth", patient.truth)]
    columns += [LesionColumn(readable(e), estimated_maps(bench, setting, patient, e)) for e in estimators]
    axes = axes_of(setting.space)
    if window is not None:
        for parameter, axis in axes.items():
            middle = float(np.median(patient.truth[parameter][patient.tissue["WM"]]))
            axes[parameter] = replace(axis, limits=(middle - window * axis.span, middle + window * axis.span))
    caption = (
        f"The lesion {patient.lesion!r} in the white matter of a simulated patient, in the truth and as each estimator "
        "shows it; below, the median inside the lesion."
        if patient.region.any()
        else "A simulated healthy participant, in the truth and as each estimator shows it."
    )
    gallery.draw(name, title, caption, plot_lesions, columns, patient.region, axes)


def draw_differences(
    bench: Bench,
    gallery: Gallery,
    name: str,
    title: str,
    setting: Setting,
    patient: PatientSlice,
    estimators: Sequence[str],
    readable: Callable[[str], str] = str,
) -> None:
    """Draw differences of the maps of every estimator from those of the first."""
    first, *others = estimators
    reference = estimated_maps(bench, setting, patient, first)
    columns = []
    for estimator in others[:MOST]:
        found = estimated_maps(bench, setting, patient, estimator)
        apart = {parameter: values - reference[parameter] for parameter, values in found.items()}
        columns.append(DifferenceColumn(readable(estimator), apart, tissue_errors(found, reference, patient.tissue)))
    caption = (
        f"What each estimator adds to or takes from the map of {readable(first)}, in a simulated patient, and the mean "
        "absolute difference in each tissue."
    )
    axes = axes_of(setting.space)
    gallery.draw(name, title, caption, plot_difference_maps, columns, patient.mask, axes, reference=readable(first))
