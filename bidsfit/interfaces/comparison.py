"""Workflow node that compares the estimators of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from bidsfit import estimators, models
from bidsfit.bids.conflicts import conflicts_of_fit, refuse, writing
from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.outputs import disagreement_outputs, disagreement_settings, sources_of, write_maps
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import correlations, difference, precision
from bidsfit.estimators.estimator import Estimator
from bidsfit.files import whole_file
from bidsfit.fitting import FitNumbers, FitResult, curve_axis
from bidsfit.interfaces.figures import read_volume, relative
from bidsfit.interfaces.step import acquisition_of
from bidsfit.models.parameter import Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports import figures
from bidsfit.reports.bibliography import estimation_fields
from bidsfit.reports.fit_panels import curve_title
from bidsfit.reports.records import ComparisonRecord, write_record
from bidsfit.reports.trust import expected_errors
from bidsfit.reports.words import readable, with_unit
from bidsfit.trust.disagreement import compared, disagreement, reference_of

#: Voxels whose curves are drawn.
N_CURVES = 3
#: Correlation of two parameters over the voxels above which the report warns.
STRONG = 0.7


def comparison_figure_paths(folder: Path, image: InputImage, model: SignalModel) -> dict[str, Path]:
    """Paths of the record and figures of a comparison, by "record", "curves", or parameter."""
    figures, stem = folder / f"sub-{image.participant}" / "figures", f"{image.name}_model-{model.name}"
    paths = {p.name: figures / f"{stem}_param-{p.label}_desc-comparison_{image.suffix}.png" for p in compared(model)}
    return paths | {
        "curves": figures / f"{stem}_desc-comparisoncurves_{image.suffix}.png",
        "record": figures / f"{stem}_desc-comparison_record.json",
    }


class _PlotComparisonInput(BaseInterfaceInputSpec):
    image = traits.Dict(mandatory=True, desc="as InputImage.to_dict")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    mask = File(exists=True, mandatory=True)
    output_dir = Directory(mandatory=True)
    model = traits.Str(mandatory=True)
    fits = traits.List(
        traits.Dict, mandatory=True, desc="organ, estimator and options of each; the others are compared with the first"
    )
    noise = traits.Dict(usedefault=True, desc="choices about the noise, as NoiseChoice.settings")
    mask_name = traits.Str(mandatory=True, desc="where the mask came from")
    trust = traits.Enum("off", "light", "full", usedefault=True, desc="off: no maps of disagreement")
    results = InputMultiObject(File(exists=True), mandatory=True, desc="of each estimator, as FitImage leaves them")


class _PlotComparisonOutput(TraitedSpec):
    record = traits.Str(desc="the record that was written")


class PlotComparison(SimpleInterface):
    """Draw the maps of several estimators and their differences, and write the record of the comparison.

    Maps of the disagreement with the reference are written too, and not at all if conflicting ones exist.
    """

    input_spec = _PlotComparisonInput
    output_spec = _PlotComparisonOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, model = InputImage.from_dict(self.inputs.image), models.get(self.inputs.model)
        built: list[Estimator] = [
            estimators.get(fit["estimator"])(models.get(model.name, fit["organ"]), **fit["options"])
            for fit in self.inputs.fits
        ]
        names = [estimator.name for estimator in built]
        paths = comparison_figure_paths(Path(self.inputs.output_dir), image, model)
        mask_data, affine = read_volume(self.inputs.mask)
        mask = mask_data > 0
        results = [FitResult.load(Path(path)) for path in self.inputs.results]
        apart = self._write_disagreements(image, built, results)
        values: list[dict[str, NDArray]] = [{} for _ in names]
        parameters = []
        for parameter in compared(model):
            voxels = [_voxels(result, parameter.name) for result in results]
            for mine, found in zip(values, voxels, strict=True) if isinstance(parameter, Parameter) else ():
                mine[parameter.name] = found["estimate"]  # what is derived follows from them
            rows = compare(names, parameter.name, voxels, [result.numbers for result in results])
            for row in rows:
                row["disagreement"] = apart.get((row["estimator"], parameter.name))
            unit = REPORT_UNITS[parameter.unit].name
            columns = [
                figures.EstimatorMap(
                    row["estimator"],
                    result.volume(parameter.name, mask),
                    *_words(row),
                    alike=row.get("negligible", False),
                )
                for row, result in zip(rows, results, strict=True)
            ]
            limits = parameter.display
            if limits is not None:
                limits = figures.widened(limits, np.concatenate([found["estimate"] for found in voxels]))
            with whole_file(paths[parameter.name]) as path:
                figures.plot_comparison(path, columns, mask, affine, unit, limits)
            parameters.append(
                {
                    "name": parameter.name,
                    "latex": parameter.latex,
                    "unit": unit,
                    "description": parameter.description,
                    "figure": relative(paths, [parameter.name], self.inputs.output_dir)[parameter.name],
                    "rows": rows,
                }
            )
        correlated = [correlations(found) for found in values]
        drawn = []
        if decays := self._decays(model, names, results):
            drawn.append("curves")
            with whole_file(paths["curves"]) as path:
                figures.plot_decays(path, decays)
        record = ComparisonRecord(
            image=image.title,
            model=model.name,
            model_title=model.title,
            estimators=[_speed(*row) for row in zip(built, results, strict=True)],
            parameters=parameters,
            correlations=[
                {
                    "latex": [model.quantity(a).latex, model.quantity(b).latex],
                    "values": [found[a, b] for found in correlated],
                }
                for a, b in correlated[0]
            ],
            figures=relative(paths, drawn, self.inputs.output_dir),
            reference=reference_of(names) or "" if apart else "",
            trust=expected_errors(
                dict(zip(names, (result.numbers.trust for result in results), strict=True)),
                model,
                [estimator.name for estimator in built if any(estimator.reach)],
            ),
            warnings=[*disagreement_warnings(parameters), *correlation_warnings(names, correlated)],
        )
        write_record(record, paths["record"])
        self._results = {"record": str(paths["record"])}
        return runtime

    def _write_disagreements(
        self, image: InputImage, built: Sequence[Estimator], results: Sequence[FitResult]
    ) -> dict[tuple[str, str], float]:
        """Write the maps of the disagreement with the reference; medians by estimator and parameter."""
        name = reference_of([estimator.name for estimator in built])
        if name is None or self.inputs.trust == "off":
            return {}
        folder, mask = Path(self.inputs.output_dir), open_image(Path(self.inputs.mask))
        reference, first = next(pair for pair in zip(built, results, strict=True) if pair[0].name == name)
        medians = {}
        for estimator, result in zip(built, results, strict=True):
            if estimator is reference:
                continue
            outputs = disagreement_outputs(image, estimator.model, estimator, reference)
            settings = disagreement_settings(estimator, reference, self.inputs.mask_name, self.inputs.noise)
            values = {}
            for key, output in outputs.items():
                assert output.parameter is not None
                of = output.parameter.name
                values[key] = disagreement(result.values[of], first.values[of], first.values[f"{of}_crb"])
                medians[estimator.name, of] = float(np.nanmedian(values[key]))
            found = replace(result, values=values)
            with writing(folder, image):
                refuse(conflicts_of_fit(folder, image, [output.path for output in outputs.values()], settings))
                about = sources_of(image), mask, estimation_fields(estimator)
                write_maps(folder, found, outputs, estimator.model, settings, *about)
        return medians

    def _decays(self, model: SignalModel, names: Sequence[str], results: Sequence[FitResult]) -> list[figures.Decay]:
        """Curves of all fits in the voxels chosen by the first; empty if no curve can be drawn."""
        acquisition = acquisition_of(self.inputs)
        _, _, fine = curve_axis(model, model.average(acquisition.select(model.usable(acquisition))).acquisition)
        if fine is None:
            return []
        keys = {*model.names, *(q.name for q in compared(model))}
        decays = []
        for curve in results[0].numbers.curves[:N_CURVES]:
            found = [{name: float(result.values[name][curve.voxel]) for name in keys} for result in results]
            words = [
                "   ".join([estimator, *(f"${p.latex}$ {readable(values[p.name])}" for p in compared(model))])
                for estimator, values in zip(names, found, strict=True)
            ]
            decays.append(
                figures.Decay(
                    title=curve_title(curve.title, model),
                    x=np.array(curve.x),
                    signal=np.array(curve.signal),
                    fitted_x=fine[0],
                    fitted=[model.signal(values, fine[1]) for values in found],
                    words=words,
                    x_label=curve.x_label,
                )
            )
        return decays


def _voxels(result: FitResult, name: str) -> dict[str, NDArray]:
    """Estimate of a parameter, and its standard deviation and bound if available."""
    keys = {"estimate": name, "sd": f"{name}_sd", "crb": f"{name}_crb"}
    return {key: result.values[file] for key, file in keys.items() if file in result.values}


def compare(
    names: Sequence[str],
    parameter: str,
    voxels: Sequence[Mapping[str, NDArray]],
    numbers: Sequence[FitNumbers],
) -> list[dict[str, Any]]:
    """Rows of a `ComparisonRecord` about one parameter, one per estimator, with differences from the first.

    Parameters
    ----------
    names : sequence of str
        Names of the estimators.
    voxels : sequence of mapping
        For each estimator ``estimate``, and optionally ``sd`` and ``crb``, in the voxels of the mask.
    """
    rows = []
    first = voxels[0]
    for i, (name, found, own) in enumerate(zip(names, voxels, numbers, strict=True)):
        typical = vars(next(row for row in own.parameters if row.name == parameter))
        row = {key: typical[key] for key in ("median", "p5", "p95", "fraction_at_bound")}
        row |= {"estimator": name} | vars(precision(found.get("sd"), found.get("crb")))
        if i > 0:
            apart = difference(found["estimate"], first["estimate"], first.get("crb"))
            row |= {
                "difference": apart.median,
                "absolute_difference": apart.median_absolute,
                "correlation": apart.correlation,
                "exceeds_floor": apart.exceeds_floor,
                "negligible": apart.negligible,
            }
        rows.append(row)
    return rows


def _words(row: Mapping[str, Any]) -> tuple[str, str]:
    """Text below a map, and below a difference."""
    words = f"median {readable(row['median'])}\n({readable(row['p5'])} to {readable(row['p95'])})"
    if "difference" not in row:
        return words, ""
    sign = "+" if row["difference"] > 0 else ""
    size = readable(row["absolute_difference"])
    return words, f"median {sign}{readable(row['difference'])}\nmedian size {size}"


def _speed(estimator: Estimator, result: FitResult) -> dict[str, Any]:
    return {
        "name": estimator.name,
        "title": estimator.title,
        "n_voxels": result.numbers.n_voxels,
        "n_fitted": result.numbers.n_fitted,
        "seconds": result.numbers.seconds,
    }


def disagreement_warnings(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about estimators that differ from the first by more than the Cramér-Rao bound.

    Parameters
    ----------
    parameters : sequence of mapping
        ``name``, ``unit`` and ``rows`` (of `compare`) of each parameter.
    """
    warnings = []
    for parameter in parameters:
        first, *others = parameter["rows"]
        for row in others:
            if row["exceeds_floor"]:
                size = with_unit(readable(row["absolute_difference"]), parameter["unit"])
                warnings.append(
                    f"{parameter['name']} by {row['estimator']} differs from {first['estimator']} by {size} in a "
                    "typical voxel, more than the Cramér-Rao bound: at least one of the two is biased, or scatters "
                    "more than it must."
                )
    return warnings


def correlation_warnings(names: Sequence[str], correlated: Sequence[Mapping[tuple[str, str], float]]) -> list[str]:
    """Sentences about pairs of parameters whose correlation over the voxels exceeds `STRONG`, by each estimator."""
    return [
        f"{a} and {b} by {name} are strongly correlated over the voxels ({value:.2f}): either the tissue varies "
        "so, or an error in one makes up for an error in the other."
        for name, found in zip(names, correlated, strict=True)
        for (a, b), value in found.items()
        if np.abs(value) > STRONG
    ]
