"""Memory and processor time of a run, estimated from the headers, steps and fits of its plan.

Constants were measured with ``benchmarks/whole_run.py`` and ``benchmarks/scale.py`` (one process, AMD EPYC). The time
that an estimator takes for a voxel is measured when it is asked for, on simulated signals of the protocol of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from time import process_time

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.images import open_image
from bidsfit.estimators.estimator import Estimator
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ImagePlan, ParticipantPlan
from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.trust.companions import is_simulated
from bidsfit.trust.monte_carlo import size_of, space_of, truths_of
from bidsfit.trust.performance import judged_of

#: Seconds of any run (imports, planning, reports), of an image (mask, quality, figures), of a raw image beside that, of
#: the figures of a fit, and of the smooth functions of its simulated errors.
RUN, IMAGE, RAW_IMAGE, FIT, SMOOTHING = 3.5, 1.5, 4.5, 2.0, 2.3

#: Seconds that a million values (voxels times volumes) take to be read and written; and those of a step by method, and
#: the power by which they grow with the number of values (of the field: of voxels).
RAW, GIVEN = 0.4, 0.062
STEPS = {"mppca": (0.92, 1.0), "subvoxel": (0.6, 1.0), "koay": (0.05, 1.0), "affine": (5.6, 0.65)}
FIELD = {"pyhysco": (26.0, 0.75)}

#: Seconds that the maps and companions of a fit take for a million voxels.
MAPS = 17.0

#: Steps that take too short to count.
QUICK = ("dseg", "hmrf")

#: Voxels of a head that are in its mask, where none was given.
HEAD = 0.3

#: Seconds a voxel of networks and forests, and of a training; memory of a training, GB.
INFERENCE, TRAINING, TRAINING_MEMORY = 1e-5, 300.0, 1.5

#: Memory, GB: of a run, without and with torch (trained estimators, and fields); and for every 10^9 values of an image
#: that is fitted as it is, and of a raw one.
BASE, BASE_TORCH, OF_GIVEN, OF_RAW = 0.45, 0.75, 5.0, 19.0

#: Seconds of the group level, of a parameter of a fit of an image, and of a million voxels of its map. Memory, GB: of
#: the group level, of a participant, of a million voxels of an image, and of the pools of healthy voxels when full.
GROUP, GROUP_PARAMETER, GROUP_MAP = 11.0, 0.007, 0.05
GROUP_BASE, GROUP_PARTICIPANT, GROUP_IMAGE, GROUP_POOLS = 0.52, 3e-5, 0.1, 0.15

#: The estimator whose fits of healthy participants are pooled, and the millions of voxels that a pool holds.
POOLED, FULL = "lsq", 1.0

#: Voxels that are simulated to measure an estimator, and S0 / sigma of them.
SAMPLE, SNR = 500, 30.0


@dataclass(frozen=True)
class Needs:
    """What a job needs.

    Attributes
    ----------
    seconds : float
        Of one processor.
    memory : float
        GB.
    unknown : frozenset of str
        Steps whose time was never measured, and is not part of ``seconds``.
    """

    seconds: float = 0.0
    memory: float = BASE
    unknown: frozenset[str] = frozenset()

    def then(self, other: Needs) -> Needs:
        """Needs of both, one after the other."""
        return Needs(self.seconds + other.seconds, max(self.memory, other.memory), self.unknown | other.unknown)

    def times(self, n: int) -> Needs:
        """Needs of ``n`` such jobs, one after the other."""
        return replace(self, seconds=n * self.seconds)

    def side_by_side(self, n: int) -> Needs:
        """Needs of ``n`` processes that share the work."""
        return replace(self, memory=n * self.memory)


class Estimates:
    """Estimates what jobs need; the time of an estimator is measured once for each protocol."""

    def __init__(self) -> None:
        self.speeds: dict[tuple[object, ...], float] = {}

    def run(self, plan: ParticipantPlan, *, fits: bool = True) -> Needs:
        """Needs of a run of one participant; without ``fits`` up to what trainings need."""
        needs, simulated = Needs(RUN), set()
        for image in plan.images:
            needs = needs.then(preparation(image))
            for fit in image.fits if fits else ():
                n, speed, key = voxels(image), self.speed(fit, image), _key(fit, image)
                memory = BASE_TORCH if isinstance(fit.built, TrainedEstimator) else BASE
                needs = needs.then(Needs(FIT + n * (speed + MAPS / 1e6), memory))
                if key not in simulated and is_simulated(fit.built, fit.trust):
                    needs = needs.then(Needs(SMOOTHING + n_simulated(fit) * speed))
                simulated.add(key)
        return needs

    def speed(self, fit: Fit, image: ImagePlan) -> float:
        """Seconds that an estimator takes for a voxel."""
        if isinstance(fit.built, TrainedEstimator):
            return INFERENCE
        key = _key(fit, image)
        if key not in self.speeds:
            signals = simulated_signals(fit.built, image.acquisition)
            for _ in range(2):  # the first one compiles
                start = process_time()
                fit.built.estimate(signals, image.acquisition, 1 / SNR)
                self.speeds[key] = (process_time() - start) / SAMPLE
        return self.speeds[key]


def _key(fit: Fit, image: ImagePlan) -> tuple[object, ...]:
    """What fits share that take as long, and whose errors are simulated once."""
    return fit.model, fit.organ, fit.name, image.acquisition.b_values.tobytes()


def n_simulated(fit: Fit) -> int:
    """Number of signals from which the errors of an estimator are simulated; none of one that brings its own."""
    if isinstance(fit.built, TrainedEstimator):
        return 0
    size, n_judged = size_of(fit.built, fit.trust == "full"), len(judged_of(space_of(fit.built)))
    return size.truths * (size.repeats + 2 * n_judged * size.neighbours)


def simulated_signals(estimator: Estimator, acquisition: Acquisition) -> NDArray[np.float64]:
    """Noisy signals of what its errors would be simulated from, shape (`SAMPLE`, n)."""
    space, rng = space_of(estimator), np.random.default_rng(0)
    signals = estimator.model.signal(space.with_scale(truths_of(space).sample(SAMPLE, rng)), acquisition)
    return np.abs(signals + rng.normal(0, 1 / SNR, signals.shape))


def preparation(image: ImagePlan) -> Needs:
    """Needs of everything that precedes the fits of an image."""
    millions = np.prod(image.shape, dtype=float) / 1e6
    chain = image.chain
    if chain is None or not chain.changes:
        return Needs(IMAGE + GIVEN * millions, BASE + OF_GIVEN * millions / 1e3)
    seconds, unknown = IMAGE + RAW_IMAGE + RAW * millions, set()
    for step in chain.steps:
        if step.method in STEPS:
            each, power = STEPS[step.method]
            seconds += each * millions**power
        elif step.method in FIELD:
            each, power = FIELD[step.method]
            seconds += each * (millions / image.shape[3]) ** power
        elif step.method and step.method not in QUICK:
            unknown.add(f"{step.name} ({step.method})")
    return Needs(seconds, BASE_TORCH + OF_RAW * millions / 1e3, frozenset(unknown))


def voxels(image: ImagePlan) -> int:
    """Number of voxels in the mask; a share of all where none was given."""
    if image.image.mask is None:
        return round(HEAD * float(np.prod(image.shape[:3])))
    return int(np.count_nonzero(np.asanyarray(open_image(image.image.mask).dataobj)))


def group_level(plans: Sequence[ParticipantPlan]) -> Needs:
    """Needs of the group level in one process, which reads the maps of all fits one after the other.

    Those of least squares are read twice: for the values of regions, and for the pools of healthy participants.
    """
    seconds, largest, pooled = GROUP, 0.0, 0.0
    for image in (image for plan in plans for image in plan.images):
        millions = np.prod(image.shape[:3], dtype=float) / 1e6
        n_read = sum(len(fit.built.model.reported) * (2 if fit.name == POOLED else 1) for fit in image.fits)
        seconds += n_read * (GROUP_PARAMETER + GROUP_MAP * millions)
        largest, pooled = max(largest, millions), pooled + HEAD * millions
    memory = GROUP_BASE + GROUP_PARTICIPANT * len(plans) + GROUP_IMAGE * largest + GROUP_POOLS * min(pooled / FULL, 1)
    return Needs(float(seconds), float(memory))


def most(needs: Iterable[Needs]) -> Needs:
    """Needs of the job that needs most, in each respect."""
    found = list(needs)
    return Needs(
        max(one.seconds for one in found),
        max(one.memory for one in found),
        frozenset().union(*(one.unknown for one in found)),
    )
