"""The node that fits one model with one estimator to one image."""

from __future__ import annotations

import json
import time
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
from bidsfit.acquisition import Acquisition, DirectionAverage
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_acquisition, read_data
from bidsfit.bids.outputs import write_nifti
from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, Status
from bidsfit.estimators.summary import representative_voxels, summarise
from bidsfit.exceptions import UnusableInputError

#: Points of a fitted curve.
CURVE_POINTS = 200


class _EstimateMapsInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="diffusion image")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    mask = File(exists=True, mandatory=True)
    model = traits.Str(mandatory=True)
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
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
        estimator = estimators.get(self.inputs.estimator)(model, **self.inputs.options)
        with opened(path, cwd if self.inputs.low_memory else None) as image:
            signals = MaskedSignals(image, image_shape(image, len(acquisition), path), mask, path)
            start = time.perf_counter()
            with tqdm(total=signals.shape[0], desc=self.inputs.label, unit="voxel", disable=None, delay=1) as bar:
                estimate = estimator.estimate(signals, acquisition, threads=self.inputs.threads, progress=bar.update)
            seconds = time.perf_counter() - start
            if not np.isin(estimate.status, FITTED).any():
                reason = max(estimate.count().items(), key=lambda row: row[1])[0].message
                raise UnusableInputError(f"{path}: no voxel of the mask could be fitted with {model.name}: {reason}.")
            facts = describe(estimate, estimator, signals, acquisition) | {"seconds": seconds}

        values: dict[str, NDArray] = estimate.parameters | {
            "rmse": estimate.rmse,
            "r2": estimate.r2,
            "status": estimate.status,
        }
        maps = {}
        for name, value in values.items():
            maps[name] = str(cwd / f"{name}.nii.gz")
            write_nifti(Path(maps[name]), signals.place(value, mask), mask_image)
        summary = cwd / "summary.json"
        summary.write_text(json.dumps(facts))
        self._results = {"maps": maps, "summary": str(summary)}
        return runtime


def describe(
    estimate: Estimate, estimator: Estimator, signals: MaskedSignals, acquisition: Acquisition
) -> dict[str, Any]:
    """Numbers of a fit for the report, in the units of the numerics."""
    model = estimator.model
    sigma = estimate.sigma[np.isfinite(estimate.sigma)]
    used = model.usable(acquisition)
    average = DirectionAverage(acquisition.select(used), estimator.averaging)
    fine = Acquisition(np.linspace(0, average.acquisition.b_values.max(), CURVE_POINTS))
    curves = []
    for title, index in representative_voxels(estimate, model).items():
        parameters = {name: values[index] for name, values in estimate.parameters.items()}
        curves.append(
            {
                "title": title,
                "parameters": {name: float(value) for name, value in parameters.items()},
                "b": average.acquisition.b_values.tolist(),
                "signal": average(signals[slice(index, index + 1)][:, used])[0].tolist(),
                "counts": average.acquisition.weights.tolist(),
                "fitted_b": fine.b_values.tolist(),
                "fitted": model.signal(parameters, fine).tolist() if model.variables == ("b",) else [],
            }
        )
    return {
        "n_voxels": int(estimate.status.size),
        "freedom": estimate.freedom,
        "b_values": average.acquisition.b_values.tolist(),
        "parameters": [vars(row) for row in summarise(estimate, model, estimator.bounds)],
        "status": {str(int(status)): count for status, count in estimate.count().items()},
        "status_messages": {str(int(status)): status.message for status in Status},
        "sigma": float(np.median(sigma)) if sigma.size else None,
        "curves": curves,
    }
