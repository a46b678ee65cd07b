"""Random forests, grown on a fixed set of simulated voxels."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.exceptions import UsageError
from bidsfit.models.space import ParameterSpace
from bidsfit.parallel import Progress
from bidsfit.simulation.simulator import Batch, Simulation, Simulator
from bidsfit.training.architectures import Architecture
from bidsfit.training.archive import unpacked
from bidsfit.training.objectives import Objective, Relative
from bidsfit.training.trainer import State, Trained

#: What a forest is made of beside what skops trusts anyway.
TRUSTED = ["sklearn.tree._tree.Tree"]


@dataclass(frozen=True)
class Growth:
    """Schedule of a forest; ``validation`` is the number of voxels in the validation set."""

    validation: int = 65536


@dataclass(frozen=True)
class RandomForest(Architecture):
    """A random forest of regression trees, grown on a fixed set of voxels.

    ``samples_per_leaf`` is the smallest number of samples in a leaf, ``depth`` the largest depth (None: no limit).
    """

    trees: int = 50
    samples_per_leaf: int = 40
    depth: int | None = None

    name = "forest"
    kind, schedule, unit, member = "forest", Growth, "trees", "forest.skops"

    def require_parts(self, objective: Objective, simulation: Simulation) -> None:
        _samples(objective, simulation)

    def fit(
        self,
        objective: Objective,
        schedule: Growth,
        simulator: Simulator,
        *,
        seed: int,
        start: Sequence[State] = (),
        device: str = "cpu",
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Trained:
        """Grow the forest on the CPU, whatever the device."""
        if start:
            raise UsageError("A forest cannot start from another estimator; leave `start` out of its recipe.")
        from sklearn.ensemble import RandomForestRegressor

        samples = _samples(objective, simulator.simulation)
        draws, validation = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        taught, held_out = simulator.draw(samples, draws), simulator.draw(schedule.validation, validation)
        (features, targets), shown = _rows(taught, simulator.space), _rows(held_out, simulator.space)
        equal = np.all(taught.weights == 1)  # for which scikit-learn draws its bootstrap otherwise
        weights = None if equal else np.broadcast_to(taught.weights[..., 0], taught.features.shape[:2]).ravel()
        forest = RandomForestRegressor(
            n_estimators=1,
            min_samples_leaf=self.samples_per_leaf,
            max_depth=self.depth,
            random_state=seed,
            n_jobs=threads,
            warm_start=True,
        )
        curve = []
        for trees in np.unique(np.linspace(1, self.trees, min(self.trees, 10)).astype(int)).tolist():
            forest.set_params(n_estimators=trees)
            forest.fit(features, targets, weights)
            if progress is not None:
                progress(trees / self.trees)
            n = len(shown[0])
            errors = [np.mean((forest.predict(x) - y) ** 2) for x, y in ((features[:n], targets[:n]), shown)]
            curve.append((trees, *errors))
        forest.set_params(warm_start=False, n_jobs=None)
        nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
        facts = {"ValidationLoss": float(curve[-1][2]), "Converged": True, "Nodes": int(nodes)}
        return Trained(forest, np.array(curve, dtype=float), facts)

    def forward(self, machine: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(machine.predict(features)).reshape(len(features), -1)

    def dump(self, machine: Any) -> bytes:
        from skops import io as skops

        content: bytes = skops.dumps(machine, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
        return content

    def load(self, content: bytes, inputs: int, outputs: int) -> Any:
        from skops import io as skops

        content = unpacked(content)
        unknown = sorted(set(skops.get_untrusted_types(data=content)) - set(TRUSTED))
        if unknown:
            raise ValueError(f"it holds objects of types that no forest has: {', '.join(unknown)}")
        forest = skops.loads(content, trusted=TRUSTED)
        require_forest(forest, inputs, outputs)
        return forest


def _samples(objective: Objective, simulation: Simulation) -> int:
    """Number of voxels that the forest is grown on."""
    if not isinstance(objective, Relative) or simulation.samples is None:
        raise ValueError(
            "A forest averages what it is taught, a set of voxels that is drawn once: its recipe needs "
            "`objective: {name: relative}` and a number of `samples` in its section `simulation`."
        )
    return simulation.samples


def _rows(batch: Batch[NDArray], space: ParameterSpace) -> tuple[NDArray, NDArray]:
    """Features and targets (relative to their bounds) of all realisations, one row each."""
    targets = (batch.targets - space.bounds[:, 0]) / space.span
    targets = np.broadcast_to(targets, (*batch.features.shape[:2], len(space.names)))
    return batch.features.reshape(-1, batch.features.shape[-1]), targets.reshape(-1, len(space.names))


def require_forest(forest: Any, features: int, outputs: int) -> None:
    """Check every tree before use, because a wrong index would read foreign memory.

    Raises
    ------
    ValueError
        If it is not a forest with so many features and outputs, or a number in it is invalid.
    """
    from sklearn.ensemble import RandomForestRegressor

    if not isinstance(forest, RandomForestRegressor) or not forest.estimators_:
        raise ValueError("it holds no forest of this estimator")
    trees = [found.tree_ for found in forest.estimators_]
    if any(found.n_features_in_ != features or found.n_outputs_ != outputs for found in (forest, *forest.estimators_)):
        raise ValueError("it holds no forest of this estimator")
    for tree in trees:
        if tree.n_features != features or tree.n_outputs != outputs or not 0 < tree.node_count <= tree.capacity:
            raise ValueError("it holds a tree that is none of this estimator")
        left, right, nodes = tree.children_left, tree.children_right, np.arange(tree.node_count)
        inner = left != -1
        ordered = all(
            np.all((side[inner] > nodes[inner]) & (side[inner] < tree.node_count)) and np.all(side[~inner] == -1)
            for side in (left, right)
        )
        if not ordered or np.any((tree.feature[inner] < 0) | (tree.feature[inner] >= features)):
            raise ValueError("it holds a tree whose branches lead nowhere")
        if not (np.isfinite(tree.threshold[inner]).all() and np.all((tree.value >= 0) & (tree.value <= 1 + 1e-9))):
            raise ValueError("it holds a tree whose values are not numbers between the bounds")
