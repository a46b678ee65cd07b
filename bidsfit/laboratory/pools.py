"""Pools of fits of simulated healthy participants, and of real ones if a dataset is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, read_mask
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.names import participant_labels
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.evaluation.experiments import fitted_parameters
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.tissue import TISSUES
from bidsfit.simulation.distributions import Distribution, pool

#: Voxels of a pool, at most.
MOST = 400_000
#: Tissues of which there are pools of their own.
TISSUE_POOLS = {"wm": "WM", "gm": "GM"}

Signals = NDArray[np.float64]


def simulated_pools(
    model: str,
    *,
    participants: int,
    shape: tuple[int, int, int],
    snr: float,
    seed: int,
    threads: int,
    real: Path | None,
) -> dict[tuple[str, str], Distribution]:
    """Pools of least-squares fits of healthy participants: whole brain, white matter and grey matter.

    Parameters
    ----------
    model : str
        Model of simulation and fits.
    participants, shape, snr, seed
        Settings of the simulated study.
    real : Path, optional
        A BIDS dataset with masks in its ``derivatives``. Participants whose protocol supports the model join the pool
        of the whole brain, but not those of tissues.
    """
    space = ParameterSpace(models.get(model))
    cohort = Cohort(model, n_healthy=participants, n_patients=0, shape=shape, snr=snr, noise="gaussian", seed=seed)
    brain: dict[str, NDArray[np.floating]] = {}
    tissues: dict[str, dict[str, NDArray[np.floating]]] = {name: {} for name in TISSUE_POOLS}
    for participant in cohort.participants():
        mask = participant.head.mask
        signals = cohort.scan(participant, 1)[mask].astype(float)
        found = _fits(space, signals, cohort.acquisition, threads)
        name = f"phantom-{participant.label}"
        brain[name] = found
        for pool_name, tissue in TISSUE_POOLS.items():
            tissues[pool_name][name] = found[participant.head.tissue[mask] == TISSUES[tissue]]
    origin = {"Estimator": "lsq", "SNR": snr, "Simulated": f"bidsfit-lab phantom, seed {seed}"}
    if real is not None:
        for name, signals, acquisition in _real(real, space):
            brain[name] = _fits(space, signals, acquisition, threads)
            origin["Real"] = real.name
    pools: dict[tuple[str, str], Distribution] = {
        (model, "healthy"): pool(space, brain, most=MOST, seed=seed, origin={**origin, "Tissue": "brain"})
    }
    for pool_name, fits in tissues.items():
        where = {**origin, "Tissue": TISSUE_POOLS[pool_name]}
        pools[model, pool_name] = pool(space, fits, most=MOST, seed=seed, origin=where)
    return pools


def _fits(space: ParameterSpace, signals: Signals, acquisition: Acquisition, threads: int) -> NDArray[np.float64]:
    estimator = LeastSquares(space.model, s0="measured")
    return fitted_parameters(estimator, signals, acquisition, space.names, threads)


def _real(root: Path, space: ParameterSpace) -> Iterator[tuple[str, Signals, Acquisition]]:
    """Signals in the masks of the images of a dataset that support a model."""
    raw = open_dataset(root, "raw", derivative=False)
    folders: Iterable[Path] = sorted((root / "derivatives").glob("*/dataset_description.json"))
    derivatives = [open_dataset(path.parent, path.parent.name, derivative=True) for path in folders]
    for image in find_images(raw, derivatives, participant_labels(root)).images:
        acquisition = read_acquisition(image.bval, image.bvec, image.sidecar)
        if image.mask is None or not space.model.support(acquisition):
            continue
        opened = open_image(image.path)
        mask = read_mask(image.mask, opened, image.path)
        signals = MaskedSignals(opened, image_shape(opened, len(acquisition), image.path), mask, image.path)
        yield f"{root.name}-{image.participant}", np.asarray(signals[slice(None)], dtype=float), acquisition
