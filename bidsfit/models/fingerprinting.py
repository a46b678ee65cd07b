"""Magnetic resonance fingerprinting: relaxation times from a train of pulses, by extended phase graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numba
import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.compiling import cached
from bidsfit.models.function import FunctionModel
from bidsfit.models.relaxation import B1_PARAMETER, PHASE, T1_TIME, T2_TIME, rate, signal_at, with_same_signals
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.signal_model import Covariate

if TYPE_CHECKING:
    from torch import Tensor

#: States that hold less than this share of the magnetisation on their way to a signal are left out.
NEGLIGIBLE = 1e-9

#: What comes of flip angles that are not the nominal ones, by the protocol of the phantom.
WITHOUT = "T2 errs the other way, by about one and a half times as large a share"

#: Shorter relaxation times (ms), which a network may extrapolate to, give the signals of this one.
SHORTEST = 1.0

#: Relaxation times (ms) of the fingerprints that a temporal basis is made of.
BASIS_T1, BASIS_T2 = (200.0, 5000.0), (20.0, 2500.0)


def fisp(parameters: Tensor, design: Tensor) -> Tensor:
    """Signals of a train of pulses with spoiling by unbalanced gradients (FISP), by extended phase graphs.

    The train starts at the inversion time after an inversion. Every repetition is a pulse about the y axis, the signal
    at its echo time, and relaxation and dephasing by one order until the next. All orders are followed that can return
    to a signal: half as many as there are repetitions.

    Parameters
    ----------
    parameters : Tensor, shape (5,)
        S0, T1 and T2 (ms), the phase of the signal (radians), and the transmit field.
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
    import torch

    scale, t1, t2, phase, b1 = parameters
    t1, t2 = t1.clamp(min=SHORTEST), t2.clamp(min=SHORTEST)
    degrees, repetition, echo, inversion = design.unbind(1)
    angles = b1 * torch.deg2rad(degrees)
    cosines, sines, products = torch.cos(angles / 2) ** 2, torch.sin(angles / 2) ** 2, torch.sin(angles)
    transverse, longitudinal = torch.exp(-repetition / t2), torch.exp(-repetition / t1)
    zero, orders = design.new_zeros(1), (len(design) + 1) // 2
    first = torch.nn.functional.one_hot(torch.zeros((), dtype=torch.long, device=design.device), orders).to(design)
    plus = minus = torch.zeros_like(first)
    along = first * (1 - 2 * torch.exp(-inversion[0] / t1))
    signals = []
    for i in range(len(design)):
        c, s, p = cosines[i], sines[i], products[i]
        plus, minus, along = (
            c * plus - s * minus + p * along,
            c * minus - s * plus + p * along,
            (c - s) * along - 0.5 * p * (plus + minus),
        )
        signals.append(plus[0])
        plus, minus = plus * transverse[i], minus * transverse[i]
        along = along * longitudinal[i] + first * (1 - longitudinal[i])
        minus = torch.cat([minus[1:], zero])
        plus = torch.cat([minus[:1], plus[:-1]])
    return scale * torch.polar(torch.ones_like(phase), phase) * torch.exp(-echo / t2) * torch.stack(signals)


def fisp_of_voxels(
    parameters: NDArray[np.float64], design: NDArray[np.float64], derivatives: bool
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The same as `fisp` of many voxels, and its derivatives, by compiled code.

    Orders that transverse relaxation leaves nothing of on their way to a signal are not followed (`NEGLIGIBLE`).

    Parameters
    ----------
    parameters : ndarray, shape (n_voxels, 5)
    design : ndarray, shape (n, 4)
    derivatives : bool

    Returns
    -------
    signals : ndarray, shape (n_voxels, n)
    derivatives : ndarray, shape (n_voxels, 5, n)
        Of no voxel where they are not asked for.
    """
    n_voxels, n = len(parameters), len(design)
    signals, slopes = np.empty((n_voxels, n)), np.empty((n_voxels if derivatives else 0, 3, n))
    _fill(np.ascontiguousarray(parameters), np.ascontiguousarray(design), signals, slopes)
    turn = np.exp(1j * parameters[:, 3, None])
    scaled = parameters[:, :1] * turn
    if not derivatives:
        return scaled * signals, np.empty((0, 5, n), dtype=complex)
    t1, t2, b1 = (scaled * slopes[:, k] for k in range(3))
    return scaled * signals, np.stack([turn * signals, t1, t2, 1j * scaled * signals, b1], axis=1)


@cached
@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _fill(parameters: NDArray, design: NDArray, signals: NDArray, slopes: NDArray) -> None:
    """Fill signals (n_voxels, n), and derivatives (n_voxels or 0, 3, n) with respect to T1, T2 and B1, at S0 = 1."""
    n = len(design)
    shortest = design[:, 1].min()
    most = (n + 1) // 2
    sets = 4 if len(slopes) > 0 else 1  # states, and their derivatives
    old, new = np.empty((sets, 3, most + 2)), np.empty((sets, 3, most + 2))
    turned = np.empty((sets, 3, most + 2))
    for v in range(len(parameters)):
        t1, t2, b1 = max(parameters[v, 1], SHORTEST), max(parameters[v, 2], SHORTEST), parameters[v, 4]
        lasting = int(min(-0.5 * np.log(NEGLIGIBLE) * t2 / shortest, float(n))) + 1
        orders = min(most, lasting)
        old[:] = 0.0
        left = np.exp(-design[0, 3] / t1)
        old[0, 2, 0] = 1.0 - 2.0 * left
        if sets > 1:
            old[1, 2, 0] = -2.0 * left * design[0, 3] / t1**2
        for i in range(n):
            slope = np.deg2rad(design[i, 0])
            sine, cosine = np.sin(b1 * slope), np.cos(b1 * slope)
            c, s = 0.5 * (1.0 + cosine), 0.5 * (1.0 - cosine)
            repetition, echo = design[i, 1], design[i, 2]
            e1, e2, read = np.exp(-repetition / t1), np.exp(-repetition / t2), np.exp(-echo / t2)
            top = min(i, n - 1 - i, orders - 1) + 1
            for d in range(sets):
                plus, minus, along = old[d, 0], old[d, 1], old[d, 2]
                to_plus, to_minus, to_along = turned[d, 0], turned[d, 1], turned[d, 2]
                for k in range(top):
                    p, m, z = plus[k], minus[k], along[k]
                    to_plus[k] = c * p - s * m + sine * z
                    to_minus[k] = c * m - s * p + sine * z
                    to_along[k] = cosine * z - 0.5 * sine * (p + m)
            if sets > 1:  # the derivative of the turn with respect to B1
                plus, minus, along = old[0, 0], old[0, 1], old[0, 2]
                to_plus, to_minus, to_along = turned[3, 0], turned[3, 1], turned[3, 2]
                half = 0.5 * sine * slope
                for k in range(top):
                    p, m, z = plus[k], minus[k], along[k]
                    to_plus[k] += slope * cosine * z - half * (p + m)
                    to_minus[k] += slope * cosine * z - half * (p + m)
                    to_along[k] -= slope * (sine * z + 0.5 * cosine * (p + m))
            signals[v, i] = read * turned[0, 0, 0]
            for d in range(1, sets):
                slopes[v, d - 1, i] = read * turned[d, 0, 0]
            if sets > 1:
                slopes[v, 1, i] += read * echo / t2**2 * turned[0, 0, 0]
            for d in range(sets):
                plus, minus, along = new[d, 0], new[d, 1], new[d, 2]
                from_plus, from_minus, from_along = turned[d, 0], turned[d, 1], turned[d, 2]
                for k in range(top):
                    plus[k + 1] = e2 * from_plus[k]
                    along[k] = e1 * from_along[k]
                for k in range(1, top):
                    minus[k - 1] = e2 * from_minus[k]
                minus[top - 1] = minus[top] = along[top] = 0.0
            new[0, 2, 0] += 1.0 - e1
            if sets > 1:
                d1, d2 = e1 * repetition / t1**2, e2 * repetition / t2**2
                for k in range(top):
                    new[1, 2, k] += d1 * turned[0, 2, k]
                    new[2, 0, k + 1] += d2 * turned[0, 0, k]
                for k in range(1, top):
                    new[2, 1, k - 1] += d2 * turned[0, 1, k]
                new[1, 2, 0] -= d1
            for d in range(sets):
                new[d, 0, 0] = new[d, 1, 0]
            old, new = new, old


def tissue_and_fluid(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Parameters of fingerprints that a temporal basis is made of, shape (n, 5).

    T1 and T2 are uniform in their logarithms, the flip angles 0.6 to 1.2 times the nominal ones.
    """
    logarithms = np.log([BASIS_T1, BASIS_T2])
    t1, t2 = np.exp(rng.uniform(logarithms[:, :1], logarithms[:, 1:], (2, n)))
    return np.column_stack([np.ones(n), t1, np.minimum(t1, t2), np.zeros(n), rng.uniform(0.6, 1.2, n)])


def with_transmit_field(
    points: NDArray[np.float64], b1: NDArray[np.float64], acquisition: Acquisition, free: Sequence[int]
) -> NDArray[np.float64]:
    """Parameters of `MRF_FISP` for true flip angles, from those of a fit with nominal ones; its phase stays."""
    start = np.column_stack([points[:, :4], b1])
    moved = [k for k in free if k != MRF_FISP.phase_index]
    return with_same_signals(MRF_FISP, points, start, acquisition, moved)


MRF_FISP = FunctionModel(
    name="mrffisp",
    title="Fingerprinting with unbalanced gradients (FISP)",
    description=(
        "Complex signals of a train of pulses after an inversion, by extended phase graphs: every pulse mixes the "
        "states of dephasing, every gradient moves them by one. The flip angles are B1 times the nominal ones, where "
        "B1 is that of a map of the transmit field, or 1."
    ),
    parameters=(
        signal_at("of the fully relaxed magnetisation"),
        replace(T1_TIME, start=tuple(np.geomspace(120.0, 5000.0, 12))),
        replace(T2_TIME, bounds=(5.0, 3000.0), start=tuple(np.geomspace(10.0, 2500.0, 12))),
        PHASE,
        B1_PARAMETER,
    ),
    derived=(rate(T1_TIME), rate(T2_TIME)),
    variables=("flip_angle", "TR", "TE", "TI"),
    function=fisp,
    of_voxels=fisp_of_voxels,
    examples=tissue_and_fluid,
    equation=r"S_i = S_0 e^{i\varphi}\, F^+_0(i; T_1, T_2, B_1)\, e^{-\mathrm{TE}_i/T_2}",
    reference="largest",
    complex_valued=True,
    sequence=True,
    phase="phase",
    constraints=(sp.Le(T2_TIME.symbol, T1_TIME.symbol),),
    requirements=(ValuesRequirement("flip_angle", 10, reason="T1 and T2 show in how signals follow changing pulses"),),
    suffixes=("MRF",),
    covariate=Covariate("B1", "TB1map", with_transmit_field, WITHOUT),
    references=("weigel2015", "jiang2015"),
)
