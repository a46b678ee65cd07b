"""Whether the table in the file of a trained estimator can be one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.space import ParameterSpace
from bidsfit.training.architectures import require_finite
from bidsfit.trust.performance import grid


def require_performance(table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
    """Refuse a performance table that is not over the regular grid of a space, or not of numbers.

    Only a response may be missing (NaN), where the space leaves a parameter no room to move.
    """
    columns = {f"{q}_{name}" for q in ("bias", "sd", "rmse") for name in space.model.names}
    responses = {f"response_{name}" for name in space.names}
    if set(table) != {*space.names, *columns, *responses}:
        raise ValueError(f"its performance table lacks columns of {', '.join(space.model.names)}, or has others")
    require_finite({name: np.nan_to_num(v, nan=0.0) if name in responses else v for name, v in table.items()})
    truth = np.stack([table[name] for name in space.names], axis=1)
    points = round(len(truth) ** (1 / len(space.names)))
    if len(truth) < 2 or points ** len(space.names) != len(truth):
        raise ValueError(f"its performance table has {len(truth)} rows, which are no grid over the parameters")
    if not np.allclose(truth, grid(space, points), rtol=1e-5, atol=1e-5 * space.span.min()):
        raise ValueError("its performance table is not over the grid of its parameters")
    if any(np.any(table[f"{q}_{name}"] < 0) for q in ("sd", "rmse") for name in space.model.names):
        raise ValueError("its performance table holds negative standard deviations")
