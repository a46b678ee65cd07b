"""Longitudinal relaxation from readouts after an inversion that are repeated until they are in a steady state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models.function import FunctionModel
from bidsfit.models.relaxation import B1_PARAMETER, INVERSION, T1_TIME, rate, signal_at, with_same_signals
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.signal_model import Covariate

if TYPE_CHECKING:
    from torch import Tensor


def steady_state(parameters: Tensor, design: Tensor) -> Tensor:
    """Signals at the centre of k-space of every readout, in the order of their inversion times.

    Each part of a repetition (a pause, a train of excitations) takes the longitudinal magnetisation m to a m + b. The
    parts together tell the magnetisation that a repetition starts and ends with, and from there that of every readout
    (Marques et al., NeuroImage 2010;49:1271-1281, for two of them).

    Parameters
    ----------
    parameters : Tensor, shape (4,)
        S0, T1 (ms), depth of the inversion, and transmit field.
    design : Tensor, shape (n_readouts, 6)
        Inversion time (ms), flip angle (degrees), time between excitations (ms), time between inversions (ms), and
        number of excitations before and after the centre of k-space.
    """
    import torch

    s0, t1, inversion, b1 = parameters.unbind()

    def pause(duration: Tensor) -> tuple[Tensor, Tensor]:
        left = torch.exp(-duration / t1)
        return left, 1 - left

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        """Before and after each centre of k-space."""
        end = torch.zeros_like(t1)
        for time, degrees, spacing, _, before, after in design.unbind():
            recovered = torch.exp(-spacing / t1)
            turned = torch.cos(b1 * torch.deg2rad(degrees)) * recovered
            yield after_each_other(pause(time - before * spacing - end), train(turned, recovered, before))
            yield train(turned, recovered, after)
            end = time + after * spacing
        yield pause(design[0, 3] - end)

    found = list(parts())
    slope, offset = torch.ones_like(t1), torch.zeros_like(t1)
    for part in found:
        slope, offset = after_each_other((slope, offset), part)
    m = -inversion * offset / (1 + inversion * slope)
    signals = []
    for k, (a, b) in enumerate(found[:-1]):
        m = a * m + b
        if k % 2 == 0:
            signals.append(m * torch.sin(b1 * torch.deg2rad(design[k // 2, 1])))
    return s0 * torch.stack(signals)


def after_each_other(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What two parts do together."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def train(turned: Tensor, recovered: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """What a number of excitations does; ``turned`` is what one leaves of the magnetisation."""
    left = turned**number
    return left, (1 - recovered) * (1 - left) / (1 - turned)


def with_transmit_field(
    points: NDArray[np.float64], b1: NDArray[np.float64], acquisition: Acquisition
) -> NDArray[np.float64]:
    """Parameters of `MP2RAGE` for true flip angles, from those of a fit with nominal ones."""
    start = np.column_stack([points[:, 0] / b1, points[:, 1:3], b1])
    return with_same_signals(MP2RAGE, points, start, acquisition)


MP2RAGE = FunctionModel(
    name="mp2rage",
    title="Longitudinal relaxation from two readouts after an inversion",
    description=(
        "Two trains of gradient echoes after an inversion, in the steady state of their repetition: m is the "
        "longitudinal magnetisation at the centre of k-space of each, which may be negative. The inversion turns over "
        "96 % of the magnetisation, or what is given; the flip angles are B1 times the nominal ones, where B1 is that "
        "of a map of the transmit field, or 1."
    ),
    parameters=(
        signal_at("of the fully relaxed magnetisation"),
        replace(T1_TIME, bounds=(50.0, 10000.0)),  # with smaller angles than nominal that of fluid seems longer
        replace(INVERSION, bounds=(0.96, 0.96), start=(0.96,), auxiliary=True),
        B1_PARAMETER,
    ),
    derived=(rate(T1_TIME),),
    variables=("TI", "flip_angle", "TR", "TRP", "shots_before", "shots_after"),
    function=steady_state,
    equation=r"S_k = S_0 \sin(B_1\alpha_k)\, m_k(T_1, \eta, B_1)",
    reference="largest",
    sequence=True,
    requirements=(
        ValuesRequirement("TI", 2, reason="S0 and T1 are fitted"),
        ValuesRequirement("TRP", 1, reason="the steady state depends on the time between inversions"),
        ValuesRequirement("shots_before", 1, reason="the signal is that of the centre of k-space"),
        ValuesRequirement("shots_after", 1, reason="the signal is that of the centre of k-space"),
    ),
    suffixes=("MP2RAGE",),
    covariate=Covariate("B1", "TB1map", with_transmit_field, "T1 errs by some per cent, more in fluid"),
    references=("marques2010",),
)
