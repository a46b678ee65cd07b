"""Workflow node that trains an estimator for an image, or finds a trained one."""

from __future__ import annotations

import json
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
    isdefined,
    traits,
)

from bidsfit import estimators, models
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.distributions import read_distribution
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.fit import require_support
from bidsfit.interfaces.step import progress_bar
from bidsfit.simulation.distributions import Pooled
from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.training.store import Store


class _TrainEstimatorInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="diffusion image, for messages")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    facts = File(exists=True, mandatory=True, desc="of the image, as PrepareImage leaves them: the SNR")
    all_facts = InputMultiObject(
        File(exists=True), desc="of all images whose estimators share their training, that of the image included"
    )
    model = traits.Str(mandatory=True)
    organ = traits.Str("general", usedefault=True, desc="whose preset the model has")
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
    pool = File(exists=True, desc="distribution of pooled fits (JSON), where the estimator is trained on one")
    left_out = traits.Str("", usedefault=True, desc="participant whose fits must not train, with sub-")
    store = Directory(mandatory=True, desc="folder of trained estimators")
    device = traits.Str("cpu", usedefault=True, nohash=True, desc="where a network is trained, as torch names it")
    threads = traits.Int(1, usedefault=True, nohash=True)
    label = traits.Str(desc="shown beside the progress bar", nohash=True)
    version = traits.Str(desc="of bidsfit: another version trains again")


class _TrainEstimatorOutput(TraitedSpec):
    trained = File(exists=True, desc="the trained estimator, in the store")


class TrainEstimator(SimpleInterface):
    """Train an estimator for the protocol and noise of an image, once for all images that share them."""

    input_spec = _TrainEstimatorInput
    output_spec = _TrainEstimatorOutput

    def _run_interface(self, runtime: Any) -> Any:
        acquisition = read_acquisition(
            Path(self.inputs.bval),
            Path(self.inputs.bvec) if self.inputs.bvec else None,
            self.inputs.sidecar if isdefined(self.inputs.sidecar) else None,
        )
        model = models.get(self.inputs.model, self.inputs.organ)
        estimator: Any = estimators.get(self.inputs.estimator)(model, **self.inputs.options)
        left_out = json.loads(Path(self.inputs.facts).read_text()).get("left_out", [])
        require_support(estimator, acquisition, left_out, Path(self.inputs.in_file))
        task = estimator.task(estimator.averaged(acquisition), self._snr(estimator), self._pool(estimator))
        with progress_bar(self.inputs.label) as progress:
            path = Store(Path(self.inputs.store)).obtain(
                task, estimator.name, threads=self.inputs.threads, device=self.inputs.device, progress=progress
            )
        self._results = {"trained": str(path)}
        return runtime

    def _snr(self, estimator: TrainedEstimator) -> float:
        """Median SNR of the images that share the training (its logarithm); arbitrary if the estimator has its own."""
        if not isinstance(estimator.snr, str):
            return estimator.snr
        files = self.inputs.all_facts if isdefined(self.inputs.all_facts) else [self.inputs.facts]
        found = np.array([json.loads(Path(path).read_text())["noise"].get("snr") or np.nan for path in files])
        known = found[np.isfinite(found) & (found > 0)]
        if not known.size:
            raise UnusableInputError(
                f"{self.inputs.in_file}: {estimator.name} is trained for the noise of the image, and its level could "
                "not be found. Give the SNR of the training with --training-snr, or the noise level with --sigma."
            )
        return float(np.exp(np.median(np.log(known))))

    def _pool(self, estimator: TrainedEstimator) -> Pooled | None:
        """Pooled fits within the bounds of the estimator, if it is trained on any."""
        if not isdefined(self.inputs.pool):
            return None
        _, pool = read_distribution(Path(self.inputs.pool), estimator.model)
        if self.inputs.left_out:
            pool = pool.without(self.inputs.left_out)
        return pool if pool.space.facts == estimator.space.facts else replace(pool, space=estimator.space)
