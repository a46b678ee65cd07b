"""The nodes that draw figures and write the records of the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
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
from bidsfit.acquisition import column_of
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.conflicts import conflicts_of_image, refuse, writing
from bidsfit.bids.images import open_image, read_data
from bidsfit.bids.inputs import DwiImage
from bidsfit.bids.left_out import in_words
from bidsfit.bids.outputs import fit_settings, map_outputs
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import Precision, precision
from bidsfit.estimators.estimator import FITTED, Estimator, Status, estimator_label
from bidsfit.files import whole_file
from bidsfit.interfaces.image import doubtful_mask
from bidsfit.interfaces.learned import plot_learned, recipe_in_words, training_row, training_warnings
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports import figures
from bidsfit.reports.records import FitRecord, ImageRecord, write_record
from bidsfit.reports.words import percent, with_unit
from bidsfit.training.bundle import read_bundle
from bidsfit.trust.companions import companions_of

#: Shares of the voxels above which the report warns.
MANY_AT_BOUND = 0.2
MANY_FAILED = 0.01
#: Floor, as a share of the estimate, above which it warns.
MUCH_SPREAD = 0.5

#: What the colours of an axis are.
AXIS_COLOURS = "red, green, blue: along the first, second, third axis of the gradient directions"

#: Choices that are b-values.
B_VALUES = ("ExcludedBValues", "MaximumBValue", "Threshold")

#: Figures of a fit, in the order of the report; the first is that of a trained estimator only.
FIT_FIGURES = ("training", "maps", "uncertainty", "histograms", "curves", "quality")


def image_figure_paths(folder: Path, image: DwiImage) -> dict[str, Path]:
    """Where the record and the figures of an image go: kind to path."""
    stem = folder / f"sub-{image.participant}" / "figures"
    return {
        "record": stem / f"{image.name}_desc-image_record.json",
        "mask": stem / f"{image.name}_desc-mask_dwi.png",
        "shells": stem / f"{image.name}_desc-shells_dwi.png",
    }


def fit_figure_paths(folder: Path, image: DwiImage, model: str, estimator: str) -> dict[str, Path]:
    """Where the record and the figures of a fit go: kind to path."""
    stem = f"{image.name}_model-{model}_desc-{estimator_label(estimator)}"
    figures_folder = folder / f"sub-{image.participant}" / "figures"
    paths = {kind: figures_folder / f"{stem}{kind}_dwi.png" for kind in FIT_FIGURES}
    return paths | {"record": figures_folder / f"{stem}_record.json"}


class _PlotInput(BaseInterfaceInputSpec):
    image = traits.Dict(mandatory=True, desc="as DwiImage.to_dict")
    mask = File(exists=True, mandatory=True)
    mask_name = traits.Str(mandatory=True, desc="where the mask came from")
    noise = traits.Dict(usedefault=True, desc="choices about the noise, as NoiseChoice.settings")
    output_dir = Directory(mandatory=True)


class _PlotOutput(TraitedSpec):
    record = traits.Str(desc="the record that was written")


class _PlotImageInput(_PlotInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    facts = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    models = traits.List(traits.Dict, desc="rows: name, title, fitted, reason")
    mask_doubt = traits.Str(desc="why the mask is doubtful")
    warnings = traits.List(traits.Str)


class PlotImage(SimpleInterface):
    """Draw what was acquired, and write its record."""

    input_spec = _PlotImageInput
    output_spec = _PlotOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, folder = DwiImage.from_dict(self.inputs.image), Path(self.inputs.output_dir)
        paths = image_figure_paths(folder, image)
        facts = json.loads(Path(self.inputs.facts).read_text())
        bvec = Path(self.inputs.bvec) if isdefined(self.inputs.bvec) else None
        acquisition = read_acquisition(Path(self.inputs.bval), bvec, self.inputs.sidecar or None)
        mask, affine = read_volume(self.inputs.mask)
        reference, _ = read_volume(self.inputs.reference)
        record = ImageRecord(
            name=f"{image.name}_dwi",
            source=image.uri,
            mask_description=self.inputs.mask_name,
            shells=[
                {"b_value": s.b_value, "n_measurements": s.n_measurements, "n_directions": s.n_directions}
                for s in acquisition.shells
            ],
            models=[dict(row) for row in self.inputs.models],
            figures=relative(paths, ("mask", "shells"), self.inputs.output_dir),
            warnings=[
                *filter(None, [in_words(facts.get("left_out", ()))]),
                *self.inputs.warnings,
                *([doubtful_mask(doubt)] if (doubt := self.inputs.mask_doubt) else []),
            ],
            **facts,
        )
        with writing(folder, image):
            refuse(conflicts_of_image(folder, image, {"Mask": self.inputs.mask_name, **self.inputs.noise}))
            with whole_file(paths["mask"]) as path:
                figures.plot_mask(path, reference, mask > 0, affine)
            with whole_file(paths["shells"]) as path:
                figures.plot_shells(path, acquisition.b_values, acquisition.directions)
            with whole_file(paths["record"]) as path:
                write_record(record, path)
        self._results = {"record": str(paths["record"])}
        return runtime


class _PlotFitInput(_PlotInput):
    maps = traits.Dict(mandatory=True, desc="files by parameter name or kind of map, in the units of the numerics")
    summary = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True)
    model = traits.Str(mandatory=True)
    estimator = traits.Str(mandatory=True)
    options = traits.Dict()
    trained = File(exists=True, desc="what the estimator was taught, where it is a trained one")
    methods = traits.List(traits.Str, desc="texts about the model and the estimator")
    written = traits.List(traits.Str, nohash=True, desc="the maps: where they were refused, nothing is drawn")


class PlotFit(SimpleInterface):
    """Draw the maps, uncertainty, histograms, curves and quality of a fit, and write its record."""

    input_spec = _PlotFitInput
    output_spec = _PlotOutput

    def _run_interface(self, runtime: Any) -> Any:
        image = DwiImage.from_dict(self.inputs.image)
        model = models.get(self.inputs.model)
        estimator = estimators.get(self.inputs.estimator)(model, **self.inputs.options)
        outputs = map_outputs(image, model, estimator)
        paths = fit_figure_paths(Path(self.inputs.output_dir), image, model.name, estimator.name)
        summary = json.loads(Path(self.inputs.summary).read_text())
        noise = json.loads(Path(self.inputs.facts).read_text())["noise"]
        mask_data, affine = read_volume(self.inputs.mask)
        mask = mask_data > 0
        volumes = {name: read_volume(path)[0] for name, path in self.inputs.maps.items()}
        bounds = dict(zip(model.names, map(tuple, estimator.bounds.tolist()), strict=True))
        names = [quantity.name for quantity in model.quantities if not quantity.axis]
        axes = [quantity.name for quantity in model.quantities if quantity.axis]

        def panel(name: str) -> figures.Panel:
            output = outputs[name]
            inside = mask if volumes[name].ndim == 3 else mask[..., None]
            data = np.where(inside, volumes[name].astype(float), np.nan)
            limits = output.figure_range
            if limits is not None and name in names:
                limits = figures.widened(limits, data[mask])
            unit, colours = REPORT_UNITS[output.unit].name, output.quantity.colours or "viridis"
            return figures.Panel(data, output.title, unit, limits, colours)

        quantities = [companion.quantity for companion in companions_of(estimator).values()]
        judged = {
            name: {q.key: volumes[f"{name}_{q.key}"][mask] for q in quantities if f"{name}_{q.key}" in volumes}
            for name in names
        }
        precisions = {
            name: precision(found.get("sd"), found.get("crb"), found.get("bias")) for name, found in judged.items()
        }
        shown = sorted((q for q in quantities if q.word), key=lambda q: ("spread", "signed", "own").index(q.scale))

        def judged_panels(name: str) -> Iterator[figures.Panel]:
            known = [q for q in shown if q.key in judged[name]]
            span = np.ptp(panel(name).limits or figures.robust_limits(volumes[name][mask]))
            spreads = [judged[name][q.key] for q in known if q.scale == "spread"]
            limits = figures.spread_limits(np.concatenate(spreads), span) if spreads else (0.0, 0.0)
            for quantity in known:
                values, drawn_as = judged[name][quantity.key], panel(f"{name}_{quantity.key}")
                drawn_as = replace(drawn_as, title=f"{quantity.word} of ${model.quantity(name).latex}$")
                if quantity.scale == "spread":
                    undetermined = precision(None, values).undetermined
                    remark = f"{percent(undetermined)} not determined" if undetermined > 0 else ""
                    drawn_as = replace(drawn_as, limits=limits, remark=remark)
                elif quantity.scale == "signed":
                    end = max(limits[1], figures.spread_limits(np.abs(values), span)[1])
                    drawn_as = replace(drawn_as, limits=(-end, end))
                yield drawn_as

        drawn = ["quality"]
        maps = [panel(name) for name in names]
        if figures.with_values(maps, mask):
            drawn += ["maps", "histograms"]
            with whole_file(paths["maps"]) as path:
                directions = [replace(panel(name), remark=AXIS_COLOURS) for name in axes]
                figures.plot_maps(path, [*maps, *directions], mask, affine)
            with whole_file(paths["histograms"]) as path:
                figures.plot_histograms(
                    path,
                    [
                        figures.Histogram(p.title, p.unit, p.data[mask], p.limits, bounds.get(name, (-np.inf, np.inf)))
                        for name, p in zip(names, maps, strict=True)
                    ],
                )
        spread = list(chain.from_iterable(judged_panels(name) for name in names if name != model.scale))
        if figures.with_values(spread, mask):
            drawn.append("uncertainty")
            with whole_file(paths["uncertainty"]) as path:
                figures.plot_maps(path, spread, mask, affine, columns=max(len(shown), 2))
        with whole_file(paths["quality"]) as path:
            messages = {status.value: status.message for status in Status}
            figures.plot_quality(path, [panel("rmse"), panel("r2")], volumes["status"], messages, mask, affine)
        training = {}
        warnings = [
            *filter(None, [in_words(summary.get("left_out", ()))]),
            *_warnings(summary, model.scale, precisions),
        ]
        if isdefined(self.inputs.trained):
            bundle = read_bundle(Path(self.inputs.trained), machine=False)
            training = training_row(bundle)
            warnings += training_warnings(summary, bundle, f"sub-{image.participant}")
            if len(bundle.facts["Parameters"]) > 1:
                drawn.append("training")
                with whole_file(paths["training"]) as path:
                    plot_learned(path, bundle, model)
        if summary["curves"]:
            drawn.append("curves")
            with whole_file(paths["curves"]) as path:
                figures.plot_curves(path, [_curve(c, model, noise.get("sigma")) for c in summary["curves"]])

        settings = fit_settings(model, estimator, self.inputs.mask_name, self.inputs.noise)
        record = FitRecord(
            image=f"{image.name}_dwi",
            model=model.name,
            model_title=model.title,
            model_description=model.description,
            equation=model.latex,
            estimator=estimator.name,
            estimator_title=estimator.title,
            n_voxels=summary["n_voxels"],
            seconds=summary["seconds"],
            parameters=[
                row
                | vars(precisions[row["name"]])
                | {
                    "latex": model.quantity(row["name"]).latex,
                    "unit": REPORT_UNITS[model.quantity(row["name"]).unit].name,
                    "description": model.quantity(row["name"]).description,
                }
                for row in summary["parameters"]
            ],
            status=_status_rows(summary),
            options=_options_in_words(settings, estimator, summary),
            figures=_called(relative(paths, drawn, self.inputs.output_dir), summary["freedom"]),
            maps=[output.path.as_posix() for output in outputs.values()],
            warnings=warnings,
            methods=list(self.inputs.methods),
            training=training,
            source=image.uri,
        )
        with whole_file(paths["record"]) as path:
            write_record(record, path)
        self._results = {"record": str(paths["record"])}
        return runtime


def read_volume(path: str) -> tuple[NDArray, NDArray]:
    """A volume and its affine."""
    image = open_image(Path(path))
    return np.asarray(read_data(image, Path(path))), np.asarray(image.affine)


def relative(paths: Mapping[str, Path], kinds: Iterable[str], folder: str) -> dict[str, str]:
    """Paths of some kinds, relative to the output folder."""
    return {kind: paths[kind].relative_to(folder).as_posix() for kind in kinds}


def curve_title(title: str, model: SignalModel) -> str:
    """The title of a curve with the symbol of the parameter that it names."""
    name, _, what = title.partition(": ")
    return f"${model[name].latex}$: {what}" if name in model.names else title.capitalize()


def _curve(curve: Mapping[str, Any], model: SignalModel, sigma: float | None) -> figures.Curve:
    """A measured and fitted decay, from the numbers that the fit left."""
    x, signal, predicted = (np.array(curve[key]) for key in ("x", "signal", "predicted"))
    fine = (np.array(curve["fitted_x"]), np.array(curve["fitted"])) if curve["fitted_x"] else (x, predicted)
    error = None if sigma is None else sigma / np.sqrt(curve["counts"])
    title = curve_title(curve["title"], model)
    return figures.Curve(title, x, signal, error, fine[0], fine[1], signal - predicted, curve["x_label"])


def _called(drawn: dict[str, str], freedom: int) -> dict[str, str]:
    """Figures by their kind: that of the quality shows the status alone where no residual is left to judge it by."""
    return {"status" if kind == "quality" and freedom == 0 else kind: path for kind, path in drawn.items()}


def _status_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "code": status.value,
            "name": status.name.replace("_", " ").lower(),
            "count": summary["status"].get(str(status.value), 0),
            "fraction": summary["status"].get(str(status.value), 0) / summary["n_voxels"],
            "message": status.message,
        }
        for status in Status
        if str(status.value) in summary["status"]
    ]


def _options_in_words(settings: Mapping[str, Any], estimator: Estimator, summary: Mapping[str, Any]) -> dict[str, str]:
    words = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and key != "Bounds":  # such as a recipe of the user
            words[key] = recipe_in_words(value)
        elif key not in ("Bounds", "FitMethodDescription"):
            words[key] = f"{_plain(value)} s/mm²" if key in B_VALUES else _plain(value)
    for parameter, (lower, upper) in zip(estimator.model.parameters, estimator.bounds.tolist(), strict=True):
        if parameter.name != estimator.model.scale:
            unit = REPORT_UNITS[parameter.unit].name
            words[f"Bounds of {parameter.name}"] = bounds_in_words(lower, upper, unit)
    for name, values in summary["columns"].items():
        column = column_of(name)
        unit = f" ({column.unit})" if column.unit else ""
        words[f"{column.title}s fitted{unit}"] = _counted(values, column.decimals)
    if summary["sigma"] is not None:
        words["Noise of one measurement as the residuals suggest it"] = f"{summary['sigma']:.4g}"
    return words


def _plain(value: Any) -> str:
    """A choice without the marks of the language that it was programmed in."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _counted(values: Sequence[float], decimals: int) -> str:
    """Values in ascending order, and how often each was measured where that is more than once."""
    found = Counter(round(value, decimals) for value in values)
    return ", ".join(f"{value:g} ({n} times)" if n > 1 else f"{value:g}" for value, n in sorted(found.items()))


def bounds_in_words(lower: float, upper: float, unit: str) -> str:
    """A range, one end of which may be open."""
    if lower == upper:
        return f"held at {with_unit(f'{lower:g}', unit)}"
    if np.isfinite([lower, upper]).all():
        return with_unit(f"{lower:g} to {upper:g}", unit)
    if np.isfinite(lower):
        return f"from {with_unit(f'{lower:g}', unit)} on"
    return f"up to {with_unit(f'{upper:g}', unit)}" if np.isfinite(upper) else "none"


def _warnings(summary: Mapping[str, Any], scale: str | None, precisions: Mapping[str, Precision]) -> list[str]:
    warnings = []
    fitted = sum(summary["status"].get(str(int(status)), 0) for status in FITTED)
    failed = summary["n_voxels"] - fitted
    if failed > MANY_FAILED * summary["n_voxels"]:
        warnings.append(f"{failed} of {summary['n_voxels']} voxels could not be fitted; the status map says why.")
    if summary["freedom"] == 0:
        warnings.append(
            "There are as many different b-values as parameters: where no parameter lies at a bound, the curve passes "
            "through the points, and nothing can be said about the quality of the fit. Residual and R² are not drawn."
        )
    if summary["over_directions"]:
        warnings.append(
            "Every measurement was fitted by itself, and the model does not know directions: how the signal varies "
            "over the directions of a shell counts as residual. It lowers R², and raises the noise that the residuals "
            "suggest."
        )
    for row in summary["parameters"]:
        if row["name"] != scale and row["fraction_at_bound"] > MANY_AT_BOUND:
            warnings.append(
                f"{row['name']} lies at a bound in {percent(row['fraction_at_bound'])} of the voxels: there, the data "
                "hardly determine it."
            )
        floor = precisions[row["name"]].crb
        if row["name"] != scale and floor > MUCH_SPREAD * abs(row["median"]):
            found = "is infinite" if np.isinf(floor) else "is more than half of its value"
            warnings.append(
                f"In a typical voxel the Cramér-Rao bound of {row['name']} {found}: with this protocol and noise a "
                "single voxel says little, whatever unbiased estimator fits it. Average over regions, or measure more."
            )
    return warnings
