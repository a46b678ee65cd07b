"""Reading how an image was acquired: the .bval and .bvec files beside it, and its echo times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnusableInputError


def read_numbers(path: Path) -> NDArray[np.float64]:
    """Read a .bval or .bvec file into an array of its rows."""
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in path.read_text().splitlines()]
    except (ValueError, UnicodeDecodeError) as error:
        raise UnusableInputError(f"{path} holds something that is not a number: {error}.") from error
    except OSError as error:
        raise UnusableInputError(f"{path} cannot be read: {error.strerror}.") from error
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnusableInputError(f"{path} is empty, or its lines differ in length.")
    return np.array(rows)


def read_b_values(path: Path) -> NDArray[np.float64]:
    """Read a .bval file: one number a volume, s/mm^2."""
    b_values = read_numbers(path).ravel()
    if not np.all(np.isfinite(b_values)) or np.any(b_values < 0):
        raise UnusableInputError(f"{path} holds b-values that are negative or not finite: {b_values.tolist()[:8]}.")
    return b_values


def read_acquisition(bval: Path, bvec: Path | None, sidecar: dict[str, Any] | None = None) -> Acquisition:
    """Acquisition of an image from its .bval and .bvec files (FSL's layout, or one row a volume).

    Parameters
    ----------
    bval, bvec : Path
        ``bvec`` may be missing; then every b-value counts as one direction.
    sidecar : dict, optional
        Metadata; ``EchoTime`` (s) is used where it is there.
    """
    b_values = read_b_values(bval)
    directions = None
    if bvec is not None:
        directions = read_numbers(bvec)
        if directions.shape[0] == 3 and directions.shape[1] == b_values.size:
            directions = directions.T
        if directions.shape != (b_values.size, 3):
            raise UnusableInputError(
                f"{bvec} holds {directions.shape[0]} x {directions.shape[1]} numbers; expected 3 rows of "
                f"{b_values.size}, one column for each b-value in {bval.name}."
            )
        directions = np.nan_to_num(directions)
    return Acquisition(b_values, directions, echo_times=echo_times_of(sidecar or {}, b_values.size))


def echo_times_of(sidecar: Mapping[str, Any], n_volumes: int) -> NDArray[np.float64] | None:
    """Echo time of each volume in ms, from metadata in s: one for all, or one a volume; None where neither is there."""
    found = sidecar.get("EchoTime")
    times = found if isinstance(found, list) else [found] * n_volumes
    if len(times) != n_volumes or not all(isinstance(time, int | float) and 0 < time < np.inf for time in times):
        return None
    return np.array(times, dtype=float) * 1e3
