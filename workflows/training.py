"""Workflow node that trains an estimator before a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.interfaces.training import TrainEstimator
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ImagePlan
from bidsfit.trained.estimator import TrainedEstimator

#: Memory of a training, GB: torch, a block of simulated signals, a pool.
MEMORY = 2.0


@dataclass(frozen=True)
class TrainedStore:
    """Folder of trained estimators, and the device that trains them and fits voxels: "cpu" or "cuda"."""

    store: Path
    device: str = "cpu"


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
    """
    interface = TrainEstimator(
        model=fit.model,
        organ=fit.organ,
        estimator=fit.estimator,
        options=fit.options,
        left_out=fit.left_out,
        store=str(training.store),
        device=training.device,
        threads=omp_nthreads,
        label=f"training {fit.model} {fit.name}",
        version=__version__,
    )
    if fit.pool is not None:
        interface.inputs.pool = str(fit.pool.path)
    node = pe.Node(interface, name="train", n_procs=omp_nthreads, mem_gb=MEMORY)
    node.overwrite = True
    return node


def takes_level(fit: Fit) -> bool:
    """Whether the estimator of a fit is trained at the SNR of the images."""
    return fit.trains and isinstance(fit.built, TrainedEstimator) and fit.built.snr == "auto"


def share_training(images: Mapping[str, tuple[ImagePlan, pe.Workflow]]) -> Iterator[tuple[str, str, str, str]]:
    """Let estimators that are trained at the SNR of the images be trained at one level for all images of a participant.

    Parameters
    ----------
    images : mapping of str to (ImagePlan, Workflow)
        By the full name of the workflow.

    Yields
    ------
    source, output, target, input : str
        Connections to make between nodes of different images, the nodes by their full names.
    """
    sharing: dict[str, list[str]] = {}
    for name, (plan, _) in images.items():
        for fit in filter(takes_level, plan.fits):
            sharing.setdefault(fit_name(fit), []).append(name)
    for fitted, names in sharing.items():
        for name in names if len(names) > 1 else ():
            fit_wf = images[name][1].get_node(fitted)
            merge = pe.Node(niu.Merge(len(names)), name="all_facts", run_without_submitting=True)
            fit_wf.connect(merge, "out", fit_wf.get_node("train"), "all_facts")
            for i, other in enumerate(names, start=1):
                yield f"{other}.prepare", "facts", f"{name}.{fitted}.all_facts", f"in{i}"
