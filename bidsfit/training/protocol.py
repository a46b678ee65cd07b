"""Whether a protocol is that of a training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import COLUMNS, SAME_DIRECTION, Acquisition, column_of
from bidsfit.models.signal_model import SignalModel
from bidsfit.rotation import rotation_between

#: A b-value may differ by this fraction, or by 1 s/mm^2, from that of the training; a number of measurements by this.
SAME_B, SAME_B_ABSOLUTE, SAME_COUNT, SAME_BASIS = 0.01, 1.0, 0.25, 1e-3


def may_turn(model: SignalModel, reach: tuple[int, int, int]) -> bool:
    """Whether directions that are turned together make no other protocol.

    Neighbours that a machine reads lie along the axes of the image, which do not turn with the directions.
    """
    return model.rotated is not None and not any(reach)


def differences(own: Acquisition, trained: Acquisition, *, noisy_lowest: bool = True, turns: bool = False) -> list[str]:
    """How a protocol differs from that of the training, in words; empty if it does not.

    If images of the lowest b-value were noise-free in the training, their number is ignored; if ``turns``, directions
    that are turned together are the same.
    """
    b, expected = own.b_values, trained.b_values

    def same(x: NDArray, y: NDArray) -> NDArray[np.bool_]:
        return np.abs(x - y) <= np.maximum(SAME_B * np.maximum(x, y), SAME_B_ABSOLUTE)

    words, column = [], COLUMNS["b"]
    absent = [value for value in expected if not same(b, value).any()]
    foreign = [value for value in b if not same(expected, value).any()]
    if absent:
        words.append(f"it was trained for b = {column.listed(absent)} s/mm², which the protocol does not have")
    if foreign:
        words.append(f"it was not trained for b = {column.listed(foreign)} s/mm²")
    if words or len(own) != len(trained):
        return words or [f"it was trained for {len(trained)} averages, and the protocol gives {len(own)}"]
    if not same(b, expected).all():  # where nothing is averaged, measurements come as they were made
        shown = ", ".join(f"{value:.0f}" for value in expected)
        return [f"it was trained for measurements at b = {shown} s/mm², in this order"]
    if own.directions is not None and trained.directions is not None:
        axes = trained.axes
        if turns:
            axes = rotation_between(axes, own.axes).apply(axes)
        if np.any(np.abs(np.sum(own.axes * axes, axis=1)) < np.cos(np.deg2rad(SAME_DIRECTION))):
            return ["it was trained for other directions"]
    for name in own.columns.keys() & trained.columns.keys() - {"b"}:
        if not same(own.columns[name], trained.columns[name]).all():
            return [f"it was trained for {column_of(name).in_words(trained.columns[name])}"]
    if own.basis.shape != trained.basis.shape or not np.allclose(own.basis, trained.basis, atol=SAME_BASIS):
        return ["it was trained for other combinations of frames (another basis)"]
    if own.frames is not None and trained.frames is not None and (words := differences(own.frames, trained.frames)):
        return words
    counts, taught = own.weights, trained.weights
    other = (np.abs(counts / taught - 1) > SAME_COUNT) & (noisy_lowest | (expected > expected.min()))
    if other.any():
        pairs = [f"{b[i]:.0f} ({counts[i]:.0f}, not {taught[i]:.0f})" for i in np.flatnonzero(other)]
        return [f"it was trained for other numbers of measurements at b = {', '.join(pairs)}"]
    return []
