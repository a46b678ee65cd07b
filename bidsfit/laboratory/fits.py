"""Maps of an image whose acquisition is given as a table: files, figures, and a section of a page per estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bidsfit import estimators
from bidsfit.acquisition import Acquisition, protocol_in_words
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, read_mask
from bidsfit.bids.outputs import fit_settings, maps_of, write_maps
from bidsfit.estimators.estimator import Estimator, estimator_label
from bidsfit.exceptions import UsageError
from bidsfit.fitting import fit
from bidsfit.laboratory.bench import estimator_of, is_trained
from bidsfit.laboratory.gallery import SUFFIXES, Gallery
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind
from bidsfit.reports.bibliography import estimation_fields
from bidsfit.reports.fit_panels import PANELS, FitPanel, FitView
from bidsfit.reports.fit_record import fit_record
from bidsfit.reports.laboratory import LaboratoryFigure, LaboratorySection, Table
from bidsfit.trained.given import is_file_name


class Fits:
    """An image, and what its fits share.

    Parameters
    ----------
    path : Path
        Four-dimensional image.
    acquisition : Acquisition
        Acquisition of its volumes.
    mask : Path, optional
        By default all voxels are fitted.
    sigma : float, optional
        Standard deviation of the noise of one measurement; by default from the residuals.
    noise : {"rician", "gaussian"}

    Raises
    ------
    UnusableInputError
        If a file is unusable.
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
        self.path, self.acquisition, self.model = path, acquisition, model
        self.sigma, self.noise, self.threads = sigma, noise, threads
        self.image = open_image(path, may_be_complex=model.complex_valued)
        shape = image_shape(self.image, len(acquisition), path)
        self.mask = np.ones(shape[:3], dtype=bool) if mask is None else read_mask(mask, self.image, path)
        self.signals = MaskedSignals(self.image, shape, self.mask, path)

    @property
    def in_words(self) -> dict[str, str]:
        """Acquisition and noise as text, for the head of a page."""
        level = "as the residuals of each fit suggest" if self.sigma is None else f"{self.sigma:g}"
        return {
            "Image": f"{self.path.name}, {' x '.join(map(str, self.mask.shape))} voxels, {self.mask.sum():,} fitted",
            "Protocol": protocol_in_words(self.acquisition),
            "Noise": f"{self.noise.capitalize()}, standard deviation {level}",
        }

    def section(self, estimator: Estimator, gallery: Gallery) -> LaboratorySection:
        """Fit with an estimator; maps and figures go to the folder of the gallery."""
        positions = self.signals.positions() if any(estimator.reach) else None
        result = fit(
            estimator,
            self.signals,
            self.acquisition,
            self.sigma,
            kind=self.noise,
            positions=positions,
            trust="light",
            threads=self.threads,
            noise={} if self.sigma is None else {"sigma": self.sigma, "method": "as it was given"},
        )
        name, source = self.path.name.partition(".")[0], self.path.name
        outputs = maps_of(self.model, estimator, ".", name, "map", "light")
        settings = fit_settings(self.model, estimator, "given", {"NoiseKind": self.noise})
        mask = nib.Nifti1Image(self.mask.astype(np.uint8), self.image.affine)
        about = [source], mask, estimation_fields(estimator)
        write_maps(gallery.folder, result, outputs, self.model, settings, *about)
        view = FitView(result, estimator, outputs, self.mask, np.asarray(self.image.affine))
        drawn, stem = [], f"{name}_model-{self.model.name}_desc-{estimator_label(estimator.name)}"
        for kind in PANELS.available():
            panel: FitPanel = PANELS.get(kind)
            paths = [gallery.folder / f"{stem}_{kind}{suffix}" for suffix in SUFFIXES]
            if all(panel.draw(path, view) for path in paths):
                drawn.append(LaboratoryFigure(paths[0], panel.shows, panel.caption))
        record = fit_record(
            view, settings, image=name, source=source, participant="", figures={}, methods=[estimator.methods]
        )
        columns = ("name", "unit", "median", "p5", "p95", "sd", "crb")
        titles = ["", "unit", "median", "5 %", "95 %", "median SD", "median Cramér-Rao bound"]
        rows = [[row[key] for key in columns] for row in record.parameters]
        tables = [
            Table("Over the fitted voxels", titles, rows),
            Table("What happened", ["", "voxels"], [[row["message"], row["count"]] for row in record.status]),
        ]
        text = "\n\n".join([estimator.methods, *record.warnings])
        return LaboratorySection(estimator.title, text, tables, drawn)

    def estimator(self, word: str) -> Estimator:
        """The estimator of a name or of a trained file; raises `UsageError` if it cannot fit this image."""
        found = self._named(word)
        if lacking := found.lacking(self.acquisition):
            raise UsageError(f"--estimators {word}: {'; '.join(lacking)}.")
        if found.needs_noise and self.sigma is None:
            raise UsageError(f"--estimators {word} needs the standard deviation of the noise. Give it with --sigma.")
        return found

    def _named(self, word: str) -> Estimator:
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
