"""Workflow node that trains an estimator before a fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.interfaces.training import TrainEstimator
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ImagePlan

#: Memory of a training, GB: torch, a block of simulated signals, a pool.
MEMORY = 2.0


@dataclass(frozen=True)
class TrainedStore:
    """Folder of trained estimators, and the device that trains them and fits voxels: "cpu" or "cuda"."""

    store: Path
    device: str = "cpu"


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
