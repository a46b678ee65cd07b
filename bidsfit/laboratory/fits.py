"""Maps of an image whose variables stand in a table: files, figures, and a section of a page for each estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import __version__, estimators
from bidsfit.acquisition import Acquisition, protocol_in_words
from bidsfit.bids.images import image_shape, open_image, read_data, read_mask, write_nifti
from bidsfit.bids.outputs import json_path, orientation_encoding
from bidsfit.bids.units import FILE_UNITS, REPORT_UNITS
from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, Status, estimator_label
from bidsfit.exceptions import UsageError
from bidsfit.files import write_json
from bidsfit.laboratory.bench import estimator_of, is_trained
from bidsfit.laboratory.gallery import Gallery
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind
from bidsfit.reports.figures import Panel, plot_maps, plot_quality
from bidsfit.reports.laboratory import LaboratorySection, Table
from bidsfit.trained.given import is_file_name
from bidsfit.trust.companions import companions
from bidsfit.trust.companions import get as get_companion


class Fits:
    """An image, and what its fits share.

    Parameters
    ----------
    path : Path
        Of the image, four-dimensional.
    acquisition : Acquisition
        Of its volumes.
    model : SignalModel
    mask : Path, optional
        By default every voxel is fitted.
    sigma : float, optional
        Standard deviation of the noise of one measurement; without it that of the residuals.
    noise : {"rician", "gaussian"}
    threads : int

    Raises
    ------
    UnusableInputError, UnsupportedProtocolError
        Where a file cannot be used, or the table lacks what the model needs.
    """

    def __init__(
        self,
        path: Path,
        acquisition: Acquisition,
        model: SignalModel,
        *,
        mask: Path | None = None,
        sigma: float | None = None,
        noise: NoiseKind = "rician",
        threads: int = 1,
    ) -> None:
        model.require_support(acquisition)
        self.path, self.acquisition, self.model = path, acquisition, model
        self.sigma, self.noise, self.threads = sigma, noise, threads
        self.image = open_image(path, may_be_complex=model.complex_valued)
        shape = image_shape(self.image, len(acquisition), path)
        self.signals: NDArray[Any] = read_data(self.image, path).reshape(shape)
        self.mask = np.ones(shape[:3], dtype=bool) if mask is None else read_mask(mask, self.image, path)

    @property
    def in_words(self) -> dict[str, str]:
        """What was measured, and how noisily: for the head of a page."""
        level = "as the residuals of each fit suggest" if self.sigma is None else f"{self.sigma:g}"
        return {
            "Image": f"{self.path.name}, {' x '.join(map(str, self.signals.shape))}, {self.mask.sum():,} voxels fitted",
            "Protocol": protocol_in_words(self.acquisition),
            "Noise": f"{self.noise.capitalize()}, standard deviation {level}",
        }

    def section(self, word: str, gallery: Gallery) -> LaboratorySection:
        """Fit with an estimator (a name, or the file of a trained one); maps and figures go into the gallery's folder.

        Raises
        ------
        UsageError
            Where the estimator cannot fit this image.
        """
        estimator = self._estimator(word)
        if missing := estimator.missing(self.acquisition):
            raise UsageError(f"--estimators {word}: {'; '.join(missing)}.")
        if estimator.needs_noise and self.sigma is None:
            raise UsageError(f"--estimators {word} needs the standard deviation of the noise. Give it with --sigma.")
        estimate = estimator.estimate(self.signals, self.acquisition, self.sigma, mask=self.mask, threads=self.threads)
        beside = companions(estimator, estimate, self.sigma, kind=self.noise, threads=self.threads)
        stem, end = f"model-{self.model.name}", f"desc-{estimator_label(estimator.name)}"
        values = estimate.parameters | estimate.derived
        scalars, panels = [q for q in self.model.quantities if not q.axis], []
        for q in self.model.quantities:
            more = {"OrientationEncoding": orientation_encoding(self.acquisition.frame)} if q.axis else {}
            path = gallery.folder / f"{stem}_param-{q.label}_{end}.nii.gz"
            self._write(path, values[q.name], q.description, q.unit, **more)
        for key, maps in beside.items():
            quantity = get_companion(key).quantity
            for q in (q for q in self.model.quantities if q.name in maps):
                unit = quantity.unit or ("rad" if q.axis else q.unit)
                words = quantity.description.format(parameter=q, model=self.model, estimator=estimator)
                path = gallery.folder / f"{stem}_param-{q.label}_stat-{key}_{end}.nii.gz"
                self._write(path, maps[q.name], words, unit)
        residual, what = "Root mean square of the residuals", "What happened in each voxel"
        levels = {str(int(status)): status.message for status in Status}
        self._write(gallery.folder / f"{stem}_param-rmse_{end}.nii.gz", estimate.rmse, residual, "arbitrary")
        self._write(gallery.folder / f"{stem}_param-status_{end}.nii.gz", estimate.status, what, "1", Levels=levels)
        before = len(gallery.figures)
        for q in self.model.quantities:
            shown = REPORT_UNITS[q.unit]
            panels.append(Panel(values[q.name] * shown.factor, f"${q.latex}$", shown.name, q.display))
            if q.name in beside.get("sd", {}):
                shown = REPORT_UNITS["rad"] if q.axis else shown
                sd = beside["sd"][q.name] * shown.factor
                panels.append(Panel(sd, f"SD of ${q.latex}$", shown.name, cmap="cividis"))
        affine = np.asarray(self.image.affine)
        caption = "Estimates, and how far they scatter over the noise (standard deviation, SD)."
        gallery.draw(f"{stem}_{end}_maps", "Maps", caption, plot_maps, panels, self.mask, affine, columns=2)
        residuals = [Panel(estimate.rmse, "Residual", "a.u."), Panel(estimate.r2, "R²", "", (0.0, 1.0))]
        messages = {status.value: status.message for status in Status}
        quality = (residuals, estimate.status, messages, self.mask, affine)
        caption = "What the fit leaves of the signals, and what happened in each voxel."
        gallery.draw(f"{stem}_{end}_quality", "Quality", caption, plot_quality, *quality)
        tables = [self._medians(scalars, estimate, beside), self._status(estimate)]
        return LaboratorySection(estimator.title, estimator.methods, tables, tuple(gallery.figures[before:]))

    def _estimator(self, word: str) -> Estimator:
        if is_file_name(word):
            return estimator_of(Path(word), self.model)
        if is_trained(word):
            raise UsageError(f"--estimators {word} is trained: train it (bidsfit-lab train) and give its file.")
        options: dict[str, Any] = {"noise": self.noise} if word == "mle" else {}
        try:
            found: Estimator = estimators.get(word)(self.model, **options)
        except ValueError as error:
            raise UsageError(f"--estimators {word}: {error}") from error
        return found

    def _write(self, path: Path, data: NDArray, description: str, unit: str, **more: Any) -> None:
        """A map in the unit of files, with its sidecar."""
        name, factor = FILE_UNITS[unit]
        write_nifti(path, data * factor if np.issubdtype(data.dtype, np.floating) else data, self.image)
        content: dict[str, Any] = {
            "Description": description,
            "Units": name,
            "Model": {"Description": f"{self.model.title}. {self.model.description}", "Equation": self.model.latex},
            "Sources": [self.path.name],
            "EstimationSoftware": {"Name": "bidsfit", "Version": __version__},
        }
        write_json(json_path(path), content | more)

    def _medians(self, quantities: Sequence[Any], estimate: Estimate, beside: Mapping[str, Any]) -> Table:
        fitted = np.isin(estimate.status, FITTED)
        values, shown = estimate.parameters | estimate.derived, [key for key in ("sd", "crb") if key in beside]
        rows: list[list[str | float]] = []
        for q in quantities:
            unit = REPORT_UNITS[q.unit]
            numbers = [*np.nanpercentile(values[q.name][fitted], (50, 5, 95))] if fitted.any() else [np.nan] * 3
            numbers += [np.nanmedian(beside[key][q.name][fitted]) if fitted.any() else np.nan for key in shown]
            rows.append([q.name, unit.name, *(float(number) * unit.factor for number in numbers)])
        columns = ["", "unit", "median", "5 %", "95 %", *(get_companion(key).quantity.title for key in shown)]
        return Table("Over the fitted voxels (of spreads, the median)", columns, rows)

    def _status(self, estimate: Estimate) -> Table:
        counted = [(status, n) for status, n in estimate.count().items() if status != Status.NOT_FITTED]
        return Table("What happened", ["", "voxels"], [[status.message, n] for status, n in counted])
