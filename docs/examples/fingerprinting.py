"""Magnetic resonance fingerprinting: a model without a closed form, of complex signals that follow from one another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bidsfit.models.common import signal_scale
from bidsfit.models.function import FunctionModel
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement

#: Orders of dephasing that are followed. Long T2 (fluid) needs 60 or more.
ORDERS = 60


def fisp(parameters: Tensor, design: Tensor) -> Tensor:
    """Signals of a train of pulses with spoiling by unbalanced gradients (FISP), by extended phase graphs.

    The train starts at the inversion time after an inversion. Every repetition is a pulse (flip angle in degrees, about
    the y axis), the signal at its echo time, and relaxation and dephasing by one order until the next.

    Parameters
    ----------
    parameters : Tensor, shape (4,)
        S0, T1 and T2 (ms), and the phase of the signal (radians).
    design : Tensor, shape (n, 4)
        Flip angle (degrees), TR, TE and TI (ms) of each repetition; the inversion time is that of the first.

    Returns
    -------
    Tensor of complex, shape (n,)

    References
    ----------
    Weigel M. Extended phase graphs. Journal of Magnetic Resonance Imaging 2015;41:266-295.
    Jiang Y, et al. MR fingerprinting using FISP with spiral readout. Magnetic Resonance in Medicine 2015;74:1621-1631.
    """
    scale, t1, t2, phase = parameters
    angles, repetition, echo, inversion = design.unbind(1)
    half = torch.deg2rad(angles) / 2
    cosines, sines, products = torch.cos(half) ** 2, torch.sin(half) ** 2, torch.sin(2 * half)
    transverse, longitudinal = torch.exp(-repetition / t2), torch.exp(-repetition / t1)
    read = torch.exp(-echo / t2)
    zero = torch.zeros(1, dtype=design.dtype)
    plus = minus = torch.zeros(ORDERS, dtype=design.dtype)
    first = torch.zeros(ORDERS, dtype=design.dtype)
    first[0] = 1.0
    along = first * (1 - 2 * torch.exp(-inversion[0] / t1))
    signals = []
    for i in range(len(design)):
        c, s, p = cosines[i], sines[i], products[i]
        plus, minus, along = (
            c * plus - s * minus + p * along,
            c * minus - s * plus + p * along,
            torch.cos(2 * half[i]) * along - 0.5 * p * (plus + minus),
        )
        signals.append(plus[0] * read[i])
        plus, minus = plus * transverse[i], minus * transverse[i]
        along = along * longitudinal[i] + first * (1 - longitudinal[i])
        minus = torch.cat([minus[1:], zero])
        plus = torch.cat([minus[:1], plus[:-1]])
    return scale * torch.polar(torch.ones_like(phase), phase) * torch.stack(signals)


def relaxation_time(name: str, bounds: tuple[float, float], points: int, words: str) -> Parameter:
    """A row of the parameter table."""
    return Parameter(
        name=name,
        label=name,
        unit="ms",
        bounds=bounds,
        start=tuple(np.geomspace(*bounds, points)[1:-1]),
        latex=f"{name[0]}_{name[1]}",
        description=words,
        prior="loguniform",
    )


MODEL = FunctionModel(
    name="fisp",
    title="Fingerprinting with unbalanced gradients (FISP)",
    description="Complex signals of a train of pulses after an inversion, by extended phase graphs.",
    parameters=(
        signal_scale(),
        relaxation_time("T1", (100.0, 5000.0), 12, "Longitudinal relaxation time"),
        relaxation_time("T2", (10.0, 2500.0), 12, "Transverse relaxation time"),
        Parameter(
            name="phase",
            label="phase",
            unit="rad",
            bounds=(-np.pi, np.pi),
            start=tuple(np.arange(-3.0, 3.2, 0.8)),
            latex=r"\varphi",
            description="Phase of the signal",
            kind="azimuth",
        ),
    ),
    variables=("flip_angle", "TR", "TE", "TI"),
    function=fisp,
    equation=r"S_i = S_0 e^{i\varphi} F^+_0(i) e^{-TE/T_2}",
    reference="largest",
    complex_valued=True,
    sequence=True,
    requirements=(ValuesRequirement("flip_angle", 10, reason="T1 and T2 show in how signals follow changing pulses"),),
)
