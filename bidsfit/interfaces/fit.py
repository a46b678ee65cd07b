"""Workflow node of a fit: estimates, computes companions, writes maps and draws figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype import config
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from numpy.typing import NDArray

from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.conflicts import conflicts_of_fit, refuse, writing
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_data
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.left_out import in_words
from bidsfit.bids.metadata import slice_axis
from bidsfit.bids.outputs import fit_settings, map_outputs, sources_of, write_maps
from bidsfit.bids.series import read_covariate
from bidsfit.estimators.estimator import Estimator, Status, estimator_label
from bidsfit.exceptions import UnsupportedProtocolError, UnusableInputError
from bidsfit.files import needing_space, whole_file
from bidsfit.fitting import FitResult, fit
from bidsfit.interfaces.figures import relative
from bidsfit.interfaces.step import acquisition_of, progress_bar
from bidsfit.reports.bibliography import estimation_fields
from bidsfit.reports.direction_colours import thumbnail_panel
from bidsfit.reports.figures import plot_thumbnail
from bidsfit.reports.fit_panels import PANELS, FitPanel, FitView
from bidsfit.reports.fit_record import fit_record
from bidsfit.reports.records import thumbnail_of, write_record
from bidsfit.training.bundle import read_bundle


class _FitImageInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    mask = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc="of the image, as PrepareImage leaves them: the noise level")
    noise_map = File(exists=True, desc="noise level of every voxel, where it is a map")
    covariate = File(exists=True, desc="image that tells a parameter of the model")
    noise_kind = traits.Enum("rician", "gaussian", usedefault=True, desc="what the bound takes the noise for")
    noise = traits.Dict(usedefault=True, desc="choices about the noise, as NoiseChoice.settings")
    image = traits.Dict(mandatory=True, desc="as InputImage.to_dict")
    mask_name = traits.Str(mandatory=True, desc="where the mask came from")
    model = traits.Str(mandatory=True)
    organ = traits.Str("general", usedefault=True, desc="whose preset the model has")
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
    trust = traits.Enum("off", "light", "full", usedefault=True, desc="how thoroughly its errors are simulated")
    device = traits.Str("cpu", usedefault=True, nohash=True, desc="where voxels are fitted, as torch names it")
    trained = File(exists=True, desc="what the estimator was taught, where it is a trained one")
    methods = traits.List(traits.Str, desc="texts about the model and the estimator")
    output_dir = Directory(mandatory=True)
    label = traits.Str(desc="shown beside the progress bar", nohash=True)
    threads = traits.Int(1, usedefault=True, nohash=True)
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")
    version = traits.Str(desc="of bidsfit: another version fits again")


class _FitImageOutput(TraitedSpec):
    result = File(exists=True, desc="the fit, as FitResult.save leaves it")
    record = File(exists=True, desc="the record of the report")


class FitImage(SimpleInterface):
    """Fit the voxels of a mask with one model and estimator; write maps, figures and a record.

    The result is kept beside the folder of the node, so that missing outputs can be written again without a fit. Maps
    and sidecars are written atomically in the units of files, and not at all if conflicting outputs exist.
    """

    input_spec = _FitImageInput
    output_spec = _FitImageOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, folder = InputImage.from_dict(self.inputs.image), Path(self.inputs.output_dir)
        options: dict[str, Any] = dict(self.inputs.options) if isdefined(self.inputs.options) else {}
        bundle = read_bundle(Path(self.inputs.trained)) if isdefined(self.inputs.trained) else None
        if bundle is not None:
            options["trained"] = bundle
        if self.inputs.device != "cpu":
            options["device"] = self.inputs.device
        estimator: Estimator = estimators.get(self.inputs.estimator)(
            models.get(self.inputs.model, self.inputs.organ), **options
        )
        mask_image = open_image(Path(self.inputs.mask))
        mask = np.asarray(read_data(mask_image, Path(self.inputs.mask))) > 0
        kept = self._kept(Path(runtime.cwd))
        if not kept.exists():
            for earlier in kept.parent.glob("fit_*.safetensors"):
                earlier.unlink()
            with whole_file(kept) as path:
                self._fit(estimator, mask).save(path)
        result = FitResult.load(kept)
        outputs = map_outputs(image, estimator.model, estimator, self.inputs.trust)
        settings = fit_settings(estimator.model, estimator, self.inputs.mask_name, self.inputs.noise)
        with writing(folder, image):  # another run may have written since this one was planned
            refuse(conflicts_of_fit(folder, image, [output.path for output in outputs.values()], settings))
            about = sources_of(image), mask_image, estimation_fields(estimator)
            write_maps(folder, result, outputs, estimator.model, settings, *about)
        view = FitView(result, estimator, outputs, mask, np.asarray(mask_image.affine), bundle)
        paths = fit_figure_paths(folder, image, estimator)
        record = fit_record(
            view,
            settings,
            image=image.title,
            source=image.uri,
            participant=f"sub-{image.participant}",
            figures=relative(paths, draw_panels(view, paths), self.inputs.output_dir),
            methods=list(self.inputs.methods),
        )
        write_record(record, paths["record"])
        self._results = {"result": str(kept), "record": str(paths["record"])}
        return runtime

    def _kept(self, cwd: Path) -> Path:
        """Path of the kept result of these inputs."""
        _, digest = self.inputs.get_hashval(hash_method=config.get("execution", "hash_method"))
        return cwd.parent / f"fit_{digest[:16]}.safetensors"

    def _fit(self, estimator: Estimator, mask: NDArray[np.bool_]) -> FitResult:
        path = Path(self.inputs.in_file)
        acquisition = acquisition_of(self.inputs)
        found = json.loads(Path(self.inputs.facts).read_text())
        noise, left_out = found["noise"], found.get("left_out", [])
        require_support(estimator, acquisition, left_out, path)
        noise_map = Path(self.inputs.noise_map) if isdefined(self.inputs.noise_map) else None
        sigma = noise_level(noise, noise_map, mask)
        if estimator.needs_noise and sigma is None:
            raise UnusableInputError(
                f"{path}: {estimator.name} needs the noise level, and it could not be found: nothing was repeated, and "
                "no model leaves residuals. Give it with --sigma."
            )
        stored = opened(path, self.inputs.scratch)
        signals = MaskedSignals(stored, image_shape(stored, len(acquisition), path), mask, path)
        covariate = None
        if isdefined(self.inputs.covariate) and estimator.model.covariate is not None:
            covariate = read_covariate(Path(self.inputs.covariate), stored).ravel("F")[mask.ravel("F")]
        with progress_bar(self.inputs.label) as progress:
            result = fit(
                estimator,
                signals,
                acquisition,
                sigma,
                kind=self.inputs.noise_kind,
                positions=signals.positions(slice_axis(self.inputs.sidecar)) if any(estimator.reach) else None,
                trust=self.inputs.trust,
                threads=self.inputs.threads,
                progress=progress,
                noise=noise,
                left_out=left_out,
                covariate=covariate,
            )
        if not result.numbers.n_fitted:
            most = max(result.numbers.status, key=lambda code: result.numbers.status[code])
            raise UnusableInputError(
                f"{path}: no voxel of the mask could be fitted with {estimator.model.name}: {Status(most).message}."
            )
        return result


def noise_level(noise: Mapping[str, Any], noise_map: Path | None, mask: NDArray) -> float | NDArray | None:
    """Noise level per voxel of the mask, or one for all, from the facts of `PrepareImage`; None if unknown."""
    if noise_map is not None:
        return np.asarray(read_data(open_image(noise_map), noise_map), dtype=float).ravel("F")[mask.ravel("F")]
    return float(noise["sigma"]) if noise and noise["sigma"] > 0 else None


def fit_figure_paths(folder: Path, image: InputImage, estimator: Estimator) -> dict[str, Path]:
    """Paths of the record and figures of a fit, by kind; a thumbnail for every parameter and derived quantity."""
    stem = f"{image.name}_model-{estimator.model.name}_desc-{estimator_label(estimator.name)}"
    figures_folder = folder / f"sub-{image.participant}" / "figures"
    names = {kind: kind for kind in PANELS.available()}
    names |= {thumbnail_of(q.name): f"thumbnail{q.label}" for q in estimator.model.reported}
    paths = {kind: figures_folder / f"{stem}{name}_{image.suffix}.png" for kind, name in names.items()}
    return paths | {"record": figures_folder / f"{stem}_record.json"}


def draw_panels(view: FitView, paths: Mapping[str, Path]) -> list[str]:
    """Draw every panel with content, and thumbnails; return their names in the order of the report."""
    drawn = []
    paths["record"].parent.mkdir(parents=True, exist_ok=True)
    for name in PANELS.available():
        panel: FitPanel = PANELS.get(name)
        with needing_space(paths[name]):
            if panel.draw(paths[name], view):
                drawn.append(name)
    for name in view.names:
        kind = thumbnail_of(name)
        with needing_space(paths[kind]):
            plot_thumbnail(paths[kind], thumbnail_panel(view, name), view.mask, view.affine)
        drawn.append(kind)
    return drawn


def require_support(
    estimator: Estimator, acquisition: Acquisition, left_out: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Raise `UnsupportedProtocolError` if the remaining volumes do not support a fit."""
    lacking = estimator.lacking(acquisition)
    if left_out and lacking:
        raise UnsupportedProtocolError(
            f"{path.name.split('.')[0]}: {estimator.model.name} ({estimator.name}) cannot be fitted to the volumes "
            f"that are left. Missing: {'; '.join(lacking)}. {in_words(left_out)}"
        )
