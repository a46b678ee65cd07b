"""The node that fits one model with one estimator to one image."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from numpy.typing import NDArray
from tqdm import tqdm

from bidsfit import estimators, models
from bidsfit.acquisition import B0_TOLERANCE, Acquisition, column_of
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_data, write_nifti
from bidsfit.bids.left_out import in_words
from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, Status
from bidsfit.estimators.summary import representative_voxels, summarise
from bidsfit.exceptions import UnsupportedProtocolError, UnusableInputError
from bidsfit.models.signal_model import SignalModel
from bidsfit.trust.companions import companions

#: Points of a fitted curve.
CURVE_POINTS = 200


class _EstimateMapsInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="diffusion image")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    mask = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc="of the image, as PrepareImage leaves them: the noise level")
    noise_map = File(exists=True, desc="noise level of every voxel, where it is a map")
    noise_kind = traits.Enum("rician", "gaussian", usedefault=True, desc="what the bound takes the noise for")
    model = traits.Str(mandatory=True)
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
    trained = File(exists=True, desc="what the estimator was taught, where it is a trained one")
    label = traits.Str(desc="shown beside the progress bar", nohash=True)
    threads = traits.Int(1, usedefault=True, nohash=True)
    low_memory = traits.Bool(False, usedefault=True, nohash=True, desc="unpack compressed images to disk")
    version = traits.Str(desc="of bidsfit: another version fits again")


class _EstimateMapsOutput(TraitedSpec):
    maps = traits.Dict(desc="files by parameter name or kind of map, in the units of the numerics")
    summary = File(exists=True, desc="numbers for the report, as JSON")


class EstimateMaps(SimpleInterface):
    """Fit the voxels of a mask; write maps in the units of the numerics, and numbers for the report."""

    input_spec = _EstimateMapsInput
    output_spec = _EstimateMapsOutput

    def _run_interface(self, runtime: Any) -> Any:
        cwd = Path(runtime.cwd)
        path = Path(self.inputs.in_file)
        acquisition = read_acquisition(
            Path(self.inputs.bval),
            Path(self.inputs.bvec) if self.inputs.bvec else None,
            self.inputs.sidecar if isdefined(self.inputs.sidecar) else None,
        )
        mask_image = open_image(Path(self.inputs.mask))
        mask = np.asarray(read_data(mask_image, Path(self.inputs.mask))) > 0
        model = models.get(self.inputs.model)
        options = dict(self.inputs.options)
        if isdefined(self.inputs.trained):
            options["trained"] = self.inputs.trained
        estimator = estimators.get(self.inputs.estimator)(model, **options)
        found = json.loads(Path(self.inputs.facts).read_text())
        noise, left_out = found["noise"], found.get("left_out", [])
        require_support(estimator, acquisition, left_out, path)
        with opened(path, cwd if self.inputs.low_memory else None) as image:
            sigma = self._sigma(noise, mask)
            if estimator.needs_noise and sigma is None:
                raise UnusableInputError(
                    f"{path}: {estimator.name} needs the noise level, and it could not be found: nothing was repeated, "
                    "and no model leaves residuals. Give it with --sigma."
                )
            signals = MaskedSignals(image, image_shape(image, len(acquisition), path), mask, path)
            estimator.warm_up(acquisition)
            start = time.perf_counter()
            with tqdm(total=signals.shape[0], desc=self.inputs.label, unit="voxel", disable=None, delay=1) as bar:
                estimate = estimator.estimate(
                    signals,
                    acquisition,
                    sigma,
                    positions=signals.positions if any(estimator.reach) else None,
                    threads=self.inputs.threads,
                    progress=bar.update,
                )
            seconds = time.perf_counter() - start
            if not np.isin(estimate.status, FITTED).any():
                reason = max(estimate.count().items(), key=lambda row: row[1])[0].message
                raise UnusableInputError(f"{path}: no voxel of the mask could be fitted with {model.name}: {reason}.")
            facts = describe(estimate, estimator, signals, acquisition) | {
                "seconds": seconds,
                "noise": noise,
                "notes": estimate.notes,
                "left_out": left_out,
            }

        values: dict[str, NDArray] = (
            estimate.parameters
            | estimate.derived
            | {
                "rmse": estimate.rmse,
                "r2": estimate.r2,
                "status": estimate.status,
            }
        )
        judged = companions(estimator, estimate, sigma, kind=self.inputs.noise_kind, threads=self.inputs.threads)
        for key, arrays in judged.items():
            values |= {f"{name}_{key}": array for name, array in arrays.items()}
        maps = {}
        for name, value in values.items():
            maps[name] = str(cwd / f"{name}.nii.gz")
            write_nifti(Path(maps[name]), signals.place(value, mask), mask_image)
        summary = cwd / "summary.json"
        summary.write_text(json.dumps(facts))
        self._results = {"maps": maps, "summary": str(summary)}
        return runtime

    def _sigma(self, noise: dict[str, Any], mask: NDArray) -> float | NDArray | None:
        """Noise level of the voxels of the mask, or one for all; None where it is not known."""
        if isdefined(self.inputs.noise_map):
            path = Path(self.inputs.noise_map)
            return np.asarray(read_data(open_image(path), path), dtype=float).ravel("F")[mask.ravel("F")]
        return float(noise["sigma"]) if noise and noise["sigma"] > 0 else None


def require_support(
    estimator: Estimator, acquisition: Acquisition, left_out: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Refuse a fit that the volumes which are left do not support.

    Raises
    ------
    UnsupportedProtocolError
    """
    model = estimator.model
    missing = model.support(acquisition).missing or estimator.missing(acquisition)
    if left_out and missing:
        raise UnsupportedProtocolError(
            f"{path.name.split('.')[0]}: {model.name} ({estimator.name}) cannot be fitted to the volumes that are "
            f"left. Missing: {'; '.join(missing)}. {in_words(left_out)}"
        )


def describe(
    estimate: Estimate, estimator: Estimator, signals: MaskedSignals, acquisition: Acquisition
) -> dict[str, Any]:
    """Numbers of a fit for the report, in the units of the numerics."""
    model = estimator.model
    sigma = estimate.sigma[np.isfinite(estimate.sigma)]
    used = model.usable(acquisition)
    average = model.average(acquisition.select(used), estimator.averaging)
    label, x, fine = curve_axis(model, average.acquisition)
    curves = []
    for title, index in representative_voxels(estimate, model).items():
        parameters = {name: values[index] for name, values in estimate.parameters.items()}
        curves.append(
            {
                "title": title,
                "voxel": index,
                "parameters": {name: float(value) for name, value in parameters.items()},
                "x_label": label,
                "x": x.tolist(),
                "signal": average(signals[slice(index, index + 1)][:, used])[0].tolist(),
                "counts": average.acquisition.weights.tolist(),
                "predicted": model.signal(parameters, average.acquisition).tolist(),
                "fitted_x": [] if fine is None else fine[0].tolist(),
                "fitted": [] if fine is None else model.signal(parameters, fine[1]).tolist(),
            }
        )
    return {
        "n_voxels": int(estimate.status.size),
        "freedom": estimate.freedom,
        "frame": acquisition.frame,
        "over_directions": estimator.averaging == "none" and _over_directions(model, average.acquisition),
        "columns": {
            name: values.tolist()
            for name, values in average.acquisition.columns.items()
            if name == "b" or name in model.variables
        },
        "parameters": [vars(row) for row in summarise(estimate, model, estimator.bounds)],
        "status": {str(int(status)): count for status, count in estimate.count().items()},
        "status_messages": {str(int(status)): status.message for status in Status},
        "sigma": float(np.median(sigma)) if sigma.size else None,
        "curves": curves,
    }


def _over_directions(model: SignalModel, fitted: Acquisition) -> bool:
    """Whether shells of several directions are described by a model that does not know directions."""
    several = any(shell.n_directions > 1 for shell in fitted.shells if shell.b_value > B0_TOLERANCE)
    return several and "direction" not in model.variables


def curve_axis(
    model: SignalModel, acquisition: Acquisition
) -> tuple[str, NDArray[np.float64], tuple[NDArray[np.float64], Acquisition] | None]:
    """What a decay is drawn against: label, values of the measurements, and a fine grid with its acquisition.

    That is b, or else the first variable of the model, in the unit of the table; where measurements follow from one
    another, their number. No grid where the model has several variables: a curve against one would hide the others.
    """
    names = [name for name in model.variables if name in acquisition.columns]
    if model.sequence or not names:
        return "measurement", np.arange(len(acquisition), dtype=float), None
    column = column_of("b" if "b" in names else names[0])
    values = acquisition.columns[column.name]
    fine: Any = np.linspace(0, 1, CURVE_POINTS) * values.max()
    grid = Acquisition(fine) if column.name == "b" else Acquisition(**{column.name: fine})
    return f"{column.name} ({column.unit})", values, (fine, grid) if model.variables == (column.name,) else None
