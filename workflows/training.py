"""Workflow nodes that train an estimator before a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.interfaces.training import SampleVoxels, TrainEstimator
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ImagePlan
from bidsfit.simulation.images import FEWEST_VOXELS, MOST_VOXELS
from bidsfit.trained.estimator import TrainedEstimator

#: Memory of a training, GB: torch, a block of simulated signals, a pool.
MEMORY = 2.0


@dataclass(frozen=True)
class TrainedStore:
    """Folder of trained estimators, the device that trains them and fits voxels ("cpu" or "cuda"), and when to train.

    ``when`` is "missing", "first" or "never", as of `bidsfit.interfaces.training.WHEN`.
    """

    store: Path
    device: str = "cpu"
    when: str = "missing"


def node_name(text: str) -> str:
    """The text as a valid name of a Nipype node."""
    return "".join(character if character.isalnum() else "_" for character in text)


def fit_name(fit: Fit) -> str:
    """Name of the workflow of a fit."""
    return f"{node_name(fit.model)}_{node_name(fit.name)}_wf"


def init_training_node(plan: ImagePlan, fit: Fit, *, training: TrainedStore, omp_nthreads: int) -> pe.Node:
    """Make the node that trains the estimator of a fit, or finds it in the store.

    It runs every time, since the required file depends on the noise of the image, but an existing file is used at once.
    The nodes that follow run again only if the file is another.

    Parameters
    ----------
    plan : ImagePlan
    fit : Fit
    training : TrainedStore
    omp_nthreads : int

    Inputs
    ------
    in_file, bval, bvec, sidecar
        The fitted image.
    facts
        Output of `PrepareImage`, with the noise level.
    all_facts
        The same of all images of the participant, see `share_training`.
    voxels, all_voxels
        Output of the node that samples the image, and of those of all images that share the training.
    """
    interface = TrainEstimator(
        model=fit.model,
        organ=fit.organ,
        estimator=fit.estimator,
        options=fit.options,
        left_out=fit.left_out,
        store=str(training.store),
        device=training.device,
        when=training.when,
        threads=omp_nthreads,
        label=f"training {fit.model} {fit.name}",
        version=__version__,
    )
    if fit.pool is not None:
        interface.inputs.pool = str(fit.pool.path)
    node = pe.Node(interface, name="train", n_procs=omp_nthreads, mem_gb=MEMORY)
    node.overwrite = True
    return node


def init_sampling_node(plan: ImagePlan, fit: Fit, *, scratch: str, mem_gb: float) -> pe.Node:
    """Make the node that draws voxels of an image for the training of the estimator of a fit.

    Parameters
    ----------
    plan : ImagePlan
    fit : Fit
    scratch : str
        As of `init_image_wf`.
    mem_gb : float
        Memory of a node that reads the image.

    Inputs
    ------
    in_file, bval, bvec, sidecar
        The fitted image.
    mask, facts, noise_map
        Outputs of `PrepareImage`.
    """
    interface = SampleVoxels(
        name=plan.image.uri,
        model=fit.model,
        organ=fit.organ,
        estimator=fit.estimator,
        options=fit.options,
        most=MOST_VOXELS,
        scratch=scratch,
        version=__version__,
    )
    return pe.Node(interface, name="sample", mem_gb=mem_gb)


def takes_level(fit: Fit) -> bool:
    """Whether the estimator of a fit is trained at one SNR, that of the images."""
    auto = fit.trains and isinstance(fit.built, TrainedEstimator) and fit.built.snr == "auto"
    return auto and fit.scope is None


def share_training(images: Mapping[str, tuple[ImagePlan, pe.Workflow]]) -> Iterator[tuple[str, str, str, str]]:
    """Let what trainings take from images come from all images of a participant, or of the run.

    That is the SNR, of which all images of a participant get one level, or voxels, for a recipe that takes them.

    Parameters
    ----------
    images : mapping of str to (ImagePlan, Workflow)
        By the full name of the workflow.

    Yields
    ------
    source, output, target, input : str
        Connections to make between nodes of different images, the nodes by their full names.
    """
    sharing: dict[tuple[str, str, str], list[str]] = {}
    for name, (plan, _) in images.items():
        for fit in plan.fits:
            if takes_level(fit) or fit.scope is not None:
                source = "prepare" if fit.scope is None else f"{fit_name(fit)}.sample"
                whose = "" if fit.scope == "dataset" else plan.image.participant
                sharing.setdefault((fit_name(fit), source, whose), []).append(name)
    for (fitted, source, _), names in sharing.items():
        if source == "prepare":
            for name in names:
                train = images[name][1].get_node(f"{fitted}.train")
                train.inputs.images = [images[other][0].image.name for other in names]
        if len(names) < 2:
            continue
        output = "facts" if source == "prepare" else "voxels"
        merge = f"all_{output}"
        images[names[0]][1].get_node(fitted).add_nodes(
            [pe.Node(niu.Merge(len(names)), name=merge, run_without_submitting=True)]
        )
        for i, name in enumerate(names, start=1):
            if output == "voxels":
                sample = images[name][1].get_node(source)
                sample.inputs.most = max(MOST_VOXELS // len(names), FEWEST_VOXELS)
            yield f"{name}.{source}", output, f"{names[0]}.{fitted}.{merge}", f"in{i}"
            yield f"{names[0]}.{fitted}.{merge}", "out", f"{name}.{fitted}.train", merge
