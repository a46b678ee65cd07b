"""Validation of the performance table in the file of a trained estimator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.space import ParameterSpace
from bidsfit.training.architectures import require_finite
from bidsfit.trust.performance import POINTS, exponents_of, points_on_grid


def require_performance(table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
    """Raise an error unless a performance table covers a space with finite numbers.

    With up to three parameters the points must form a regular grid; otherwise they may be scattered. Only a response
    may be NaN, where a parameter cannot be varied within the space.
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
