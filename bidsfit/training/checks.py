"""Whether what the file of a trained estimator holds can be one: its weights, its trees and its table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.space import ParameterSpace
from bidsfit.training.architectures import Layers
from bidsfit.trust.performance import POINTS, exponents_of, points_on_grid


def network_of(arrays: Mapping[str, NDArray], features: int, outputs: int) -> Layers:
    """The layers of a network, from arrays named "0.weight", "0.bias", "1.weight", ...

    Raises
    ------
    ValueError
        Where they are no chain from so many features to so many outputs, or not finite.
    """
    names = [f"{i}.{part}" for i in range(len(arrays) // 2) for part in ("weight", "bias")]
    if not names or set(names) != set(arrays):
        raise ValueError("its arrays are not the weights and biases of layers")
    require_finite(arrays)
    layers = [(arrays[weight], arrays[bias]) for weight, bias in zip(names[::2], names[1::2], strict=True)]
    widths = [features, *(bias.size for _, bias in layers)]
    expected = list(itertools.pairwise(widths))
    if [weight.shape for weight, _ in layers] != expected or widths[-1] != outputs:
        shapes = ", ".join(str(weight.shape) for weight, _ in layers)
        raise ValueError(f"layers of shapes {shapes} are no network of {features} signals and {outputs} parameters")
    if any(bias.ndim != 1 or weight.dtype != np.float32 or bias.dtype != np.float32 for weight, bias in layers):
        raise ValueError("its weights and biases are not matrices and vectors of 32-bit numbers")
    return layers


def require_forest(forest: Any, features: int, outputs: int) -> None:
    """Walk through every tree in advance, because a wrong index would read foreign memory.

    Raises
    ------
    ValueError
        Where it is no forest of trees with so many features and outputs, or a number in it cannot be.
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


def require_performance(table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
    """Refuse a performance table that does not cover a space, or is not of numbers.

    Up to three parameters it is over a regular grid; of more its points may be scattered.

    Only a response may be missing (NaN), where the space leaves a parameter no room to move.
    """
    columns = {f"{q}_{name}" for q in ("bias", "sd", "rmse") for name in space.model.names}
    responses = {f"response_{name}" for name in space.names}
    if set(table) != {*space.names, *columns, *responses}:
        raise ValueError(f"its performance table lacks columns of {', '.join(space.model.names)}, or has others")
    require_finite({name: np.nan_to_num(v, nan=0.0) if name in responses else v for name, v in table.items()})
    truth = np.stack([table[name] for name in space.names], axis=1)
    if not points_on_grid(truth, space):
        if len(space.names) in POINTS:
            raise ValueError(
                f"its performance table is not over the grid of its parameters: {len(truth)} rows, which are no grid"
            )
        if not exponents_of(len(space.names), len(truth)):
            raise ValueError(f"its performance table has only {len(truth)} rows")
        if not space.contains(truth.astype(np.float32)).all():
            raise ValueError("its performance table has parameters outside the space of its training")
    if any(np.any(table[f"{q}_{name}"] < 0) for q in ("sd", "rmse") for name in space.model.names):
        raise ValueError("its performance table holds negative standard deviations")


def require_finite(arrays: Mapping[str, NDArray]) -> None:
    """Refuse arrays with anything but finite numbers, naming the first."""
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(f"{name} holds something that is not a finite number")
