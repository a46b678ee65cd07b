"""Workflow nodes that train an estimator for an image, or find a trained one, and sample voxels for the training."""

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
from bidsfit.acquisition import Acquisition
from bidsfit.bids.distributions import read_distribution
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_data
from bidsfit.bids.metadata import slice_axis
from bidsfit.bids.names import title_of
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.interfaces.fit import noise_level, require_support
from bidsfit.interfaces.step import acquisition_of, progress_bar
from bidsfit.models.signal_model import SignalModel
from bidsfit.simulation.distributions import Pooled
from bidsfit.simulation.images import ImageVoxels
from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.training.bundle import acquisition_facts, acquisition_from
from bidsfit.training.protocol import differences
from bidsfit.training.store import Store

#: When estimators are trained: those that are missing in the store; first, for later runs on the same images, which
#: find the SNR of these; or never.
WHEN = ("missing", "first", "never")

#: SNRs of an image that two runs find may differ by this fraction, and it counts as the same image.
SAME_SNR = 0.01


class _TrainEstimatorInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image, for messages")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    facts = File(exists=True, mandatory=True, desc="of the image, as PrepareImage leaves them: the SNR")
    all_facts = InputMultiObject(
        File(exists=True), desc="of all images whose estimators share their training, that of the image included"
    )
    voxels = File(
        exists=True, desc="of the image, as SampleVoxels leaves them, where the recipe takes voxels of images"
    )
    all_voxels = InputMultiObject(File(exists=True), desc="of all images that share the training")
    model = traits.Str(mandatory=True)
    organ = traits.Str("general", usedefault=True, desc="whose preset the model has")
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
    pool = File(exists=True, desc="distribution of pooled fits (JSON), where the estimator is trained on one")
    images = traits.List(traits.Str, desc="names of the images that all_facts are of")
    left_out = traits.Str("", usedefault=True, desc="participant whose fits must not train, with sub-")
    store = Directory(mandatory=True, desc="folder of trained estimators")
    when = traits.Enum(
        *WHEN,
        usedefault=True,
        nohash=True,
        desc="missing: train what is not there; first: also record the SNR; never: refuse to train",
    )
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
        estimator, acquisition, _ = _built(self.inputs)
        averaged = estimator.averaged(acquisition)
        images = self._images(averaged)
        snr = self._snr(estimator) if images is None else images.median_snr
        try:
            task = estimator.task(averaged, snr, self._pool(estimator), images=images)
        except ValueError as error:
            raise UnusableInputError(f"{self.inputs.in_file}: {estimator.name}: {error}") from error
        with progress_bar(self.inputs.label) as progress:
            path = Store(Path(self.inputs.store)).obtain(
                task,
                estimator.name,
                threads=self.inputs.threads,
                device=self.inputs.device,
                may_train=self.inputs.when != "never",
                progress=progress,
            )
        self._results = {"trained": str(path)}
        return runtime

    def _images(self, averaged: Acquisition) -> ImageVoxels | None:
        """Voxels of the images that share the training and have the protocol of this one; None without any."""
        if not isdefined(self.inputs.voxels):
            return None
        files = self.inputs.all_voxels if isdefined(self.inputs.all_voxels) else [self.inputs.voxels]
        found = [load_voxels(Path(path)) for path in files]
        return ImageVoxels.pooled([one for one in found if not differences(averaged, one.acquisition)])

    def _snr(self, estimator: TrainedEstimator) -> float:
        """Median SNR of the images that share the training (its logarithm); arbitrary if the estimator has its own."""
        if not isinstance(estimator.snr, str):
            return estimator.snr
        given = self.inputs.all_facts if isdefined(self.inputs.all_facts) else [self.inputs.facts]
        files = [Path(path) for path in given]
        own = [json.loads(path.read_text())["noise"].get("snr") for path in files]
        shared = self._shared(estimator, dict(zip(self.inputs.images, own, strict=True)))
        found = np.array([snr or np.nan for snr in shared.values()])
        known = found[np.isfinite(found) & (found > 0)]
        if not known.size:
            raise UnusableInputError(
                f"{self.inputs.in_file}: {estimator.name} is trained for the noise of the image, and its level could "
                "not be found. Give the SNR of the training with --training-snr, or the noise level with --sigma."
            )
        return float(np.exp(np.median(np.log(known))))

    def _shared(self, estimator: TrainedEstimator, own: dict[str, float | None]) -> dict[str, float | None]:
        """SNRs of all images of the participant, from the record of an earlier run if it holds those of this run."""
        store = Store(Path(self.inputs.store))
        path = store.snr_path(self.inputs.images[0].split("_")[0], estimator.model.name, estimator.name)
        if self.inputs.when == "first":
            store.write_snr(path, own)
            return own
        recorded = store.read_snr(path)
        other = [
            name
            for name, snr in own.items()
            if name not in recorded or not np.isclose(snr or 0, recorded[name] or 0, rtol=SAME_SNR)
        ]
        if not other:
            return recorded
        if self.inputs.when == "never":
            raise NoInputError(
                f"{path} does not hold the SNR of {' and '.join(map(title_of, other))} as it is found now, "
                "and --no-training was given. Run the same command with --train-only in place of --no-training first, "
                "on all images of the participant."
            )
        return own

    def _pool(self, estimator: TrainedEstimator) -> Pooled | None:
        """Pooled fits within the bounds of the estimator, if it is trained on any."""
        if not isdefined(self.inputs.pool):
            return None
        _, pool = read_distribution(Path(self.inputs.pool), estimator.model)
        if self.inputs.left_out:
            pool = pool.without(self.inputs.left_out)
        return pool if pool.space.facts == estimator.space.facts else replace(pool, space=estimator.space)


class _SampleVoxelsInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    mask = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc="of the image, as PrepareImage leaves them: the noise level")
    noise_map = File(exists=True, desc="noise level of every voxel, where it is a map")
    name = traits.Str(mandatory=True, desc="of the image, as the training will say which images it saw")
    model = traits.Str(mandatory=True)
    organ = traits.Str("general", usedefault=True, desc="whose preset the model has")
    estimator = traits.Str(mandatory=True)
    options = traits.Dict(desc="of the estimator")
    most = traits.Int(mandatory=True, desc="largest number of voxels")
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")
    version = traits.Str(desc="of bidsfit: another version samples again")


class _SampleVoxelsOutput(TraitedSpec):
    voxels = File(exists=True, desc="a sample of the voxels of the mask, for a training")


class SampleVoxels(SimpleInterface):
    """Draw voxels of an image for a training that takes its noise or its signals from images."""

    input_spec = _SampleVoxelsInput
    output_spec = _SampleVoxelsOutput

    def _run_interface(self, runtime: Any) -> Any:
        path, mask_path = Path(self.inputs.in_file), Path(self.inputs.mask)
        estimator, acquisition, facts = _built(self.inputs)
        mask = np.asarray(read_data(open_image(mask_path), mask_path)) > 0
        noise_map = Path(self.inputs.noise_map) if isdefined(self.inputs.noise_map) else None
        sigma = noise_level(facts["noise"], noise_map, mask)
        if sigma is None:
            raise UnusableInputError(
                f"{path}: {estimator.name} is trained with the noise of the image, and its level could not be found. "
                "Give it with --sigma."
            )
        stored = opened(path, self.inputs.scratch)
        signals = MaskedSignals(stored, image_shape(stored, len(acquisition), path), mask, path)
        found = estimator.sample(
            signals,
            acquisition,
            sigma,
            name=self.inputs.name,
            most=self.inputs.most,
            positions=signals.positions(slice_axis(self.inputs.sidecar)) if any(estimator.reach) else None,
        )
        self._results = {"voxels": str(save_voxels(Path(runtime.cwd) / "voxels.safetensors", found, estimator.model))}
        return runtime


def _built(inputs: Any) -> tuple[Any, Acquisition, dict[str, Any]]:
    """The estimator that is trained, and the acquisition and the facts of an image; they must support a fit."""
    acquisition = acquisition_of(inputs)
    estimator = estimators.get(inputs.estimator)(models.get(inputs.model, inputs.organ), **inputs.options)
    facts = json.loads(Path(inputs.facts).read_text())
    require_support(estimator, acquisition, facts.get("left_out", []), Path(inputs.in_file))
    return estimator, acquisition, facts


def save_voxels(path: Path, voxels: ImageVoxels, model: SignalModel) -> Path:
    """Write sampled voxels to an array file that holds no executable content."""
    from safetensors.numpy import save_file

    facts = {
        "Acquisition": acquisition_facts(voxels.acquisition, model.variables),
        "Images": [dict(voxels.images), voxels.most],
    }
    arrays = {"signals": voxels.signals, "sigma": voxels.sigma}
    if voxels.positions is not None:
        arrays["positions"] = voxels.positions
    save_file(arrays, path, metadata={"facts": json.dumps(facts)})
    return path


def load_voxels(path: Path) -> ImageVoxels:
    """Read what `save_voxels` wrote."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        acquisition, (images, most) = acquisition_from(facts["Acquisition"]), facts["Images"]
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return ImageVoxels(acquisition=acquisition, images=images, most=most, **arrays)
