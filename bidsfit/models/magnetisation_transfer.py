"""Magnetisation transfer: water that exchanges magnetisation with macromolecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models.functions import superlorentzian
from bidsfit.models.parameter import Parameter
from bidsfit.models.priors import log_normal, uniform
from bidsfit.models.relaxation import B1_PARAMETER, INVERSION, T1_TIME, rate, signal_at, with_same_signals
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.signal_model import Covariate
from bidsfit.models.symbolic import SymbolicModel

S0, T1, PSR, inversion, kmf, R1m, T2m, T2R1, B1 = sp.symbols("S0 T1 PSR inversion kmf R1m T2m T2R1 B1", real=True)
TI, TD, offset, saturation = sp.symbols("TI TD offset saturation", real=True)

POOL_SIZE_RATIO = Parameter(
    name="PSR",
    label="PSR",
    unit="1",
    bounds=(0.0, 0.6),
    start=(0.03, 0.1, 0.2),
    latex=r"\mathrm{PSR}",
    description="Pool size ratio, macromolecules to water",
    display=(0.0, 0.25),
    prior=uniform(0.0, 0.3),
)

EXCHANGE = Parameter(
    name="kmf",
    label="kmf",
    unit="1/s",
    bounds=(1.0, 200.0),
    start=(10.0, 25.0, 60.0),
    latex="k_{mf}",
    description="Rate of the exchange from macromolecules to water",
    display=(0.0, 60.0),
    prior=log_normal(8.0, 80.0),
)

#: Longitudinal magnetisation of the macromolecules after an inversion of the water, as a share of that before it.
LEFT = 0.83

_RECOVERED = 1 - sp.exp(-TD / T1)
_SHARE = PSR / (1 + PSR)
_EXCHANGED = (inversion + LEFT) * _RECOVERED * _SHARE

SIR_QMT = SymbolicModel(
    name="sirqmt",
    title="Magnetisation transfer from selective inversion recovery",
    description=(
        "Water and macromolecules are saturated, recover for a time TD, then the water is inverted and recovers for a "
        "time TI: slowly with T1, which both share, and at first fast by exchange."
    ),
    parameters=(
        signal_at("of the fully relaxed water"),
        T1_TIME,
        POOL_SIZE_RATIO,
        replace(
            INVERSION,
            bounds=(0.5, 1.0),
            start=(0.95,),
            description="Depth of the inversion of the water: 1 where all of its magnetisation is turned over",
            display=(0.5, 1.0),
            prior=uniform(0.85, 1.0),
        ),
        replace(EXCHANGE, bounds=(12.5, 12.5), start=(12.5,), auxiliary=True),
    ),
    derived=(rate(T1_TIME),),
    variables=("TI", "TD"),
    expression=S0
    * sp.Abs(
        1
        - (1 + inversion * _RECOVERED - _EXCHANGED) * sp.exp(-TI / T1)
        - _EXCHANGED * sp.exp(-TI / T1 - kmf * (1 + PSR) * TI / 1000)
    ),
    reference="largest",
    requirements=(
        ValuesRequirement("TI", 3, reason="a fast and a slow recovery are told apart"),
        ValuesRequirement("TD", 1, reason="what both pools recover before the inversion depends on it"),
    ),
    suffixes=("IRT1",),
    references=("gochberg2003", "dortch2011"),
)

_EXCHANGE = kmf * PSR * T1 / 1000
_AMPLITUDE = B1 * saturation
_SATURATED = sp.pi * _AMPLITUDE**2 * T2m * superlorentzian(0, offset * T2m / 1000)
_LEAVING = _SATURATED + R1m + kmf


def with_transmit_field(
    points: NDArray[np.float64], b1: NDArray[np.float64], acquisition: Acquisition, free: Sequence[int]
) -> NDArray[np.float64]:
    """Parameters of `RAMANI` for true amplitudes of the saturation, from those of a fit with nominal ones.

    Numerator and denominator of the signal may be divided by b1^2. But for the small term k R1m the signals are
    therefore the same with kmf + R1m, T2 R1 and 1/PSR times b1^2. From there `with_same_signals` leads on.

    Parameters
    ----------
    points : ndarray, shape (n, 8)
    b1 : ndarray, shape (n,)
        True amplitude as a share of the nominal one; NaN where unknown, where the result is.
    free : sequence of int
        Indices of the parameters that were fitted. If others are held, the signals are the nearest that there are.
    """
    size, exchange, ratio, relaxation, field = map(RAMANI.names.index, ("PSR", "kmf", "T2R1", "R1m", "B1"))
    start = points.copy()
    faster = points[:, exchange] + points[:, relaxation]
    start[:, exchange] = np.maximum(b1**2 * faster - points[:, relaxation], EXCHANGE.bounds[0])
    start[:, size] *= points[:, exchange] / start[:, exchange]
    start[:, ratio] *= b1**2
    held = [k for k in range(len(RAMANI.names)) if k not in free]
    start[:, held] = points[:, held]
    start[:, field] = b1
    return with_same_signals(RAMANI, points, start, acquisition, free)


RAMANI = SymbolicModel(
    name="qmtramani",
    title="Magnetisation transfer from saturation at several offsets",
    description=(
        "Steady state of water and macromolecules that exchange magnetisation under saturation (Henkelman, Ramani): "
        "its pulses act like a continuous wave of the same mean power, with the angular frequency of nutation ω1 (B1 "
        "times the nominal one, where B1 is that of a map of the transmit field, or 1) at the offset Δ, and saturate "
        "the macromolecules at the rate W, by a super-Lorentzian line g. T1 of the water is held, at 1 s or what is "
        "given: PSR is as much too small as that is too long. Longitudinal relaxation of the macromolecules is held "
        "at 1/s."
    ),
    parameters=(
        signal_at("without saturation"),
        replace(POOL_SIZE_RATIO, description="Pool size ratio, macromolecules to water, for the T1 that is held"),
        EXCHANGE,
        Parameter(
            name="T2m",
            label="T2m",
            unit="us",
            bounds=(2.0, 40.0),
            start=(7.0, 12.0, 20.0),
            latex="T_{2m}",
            description="Transverse relaxation time of the macromolecules",
            display=(5.0, 20.0),
            prior=log_normal(6.0, 22.0),
        ),
        Parameter(
            name="T2R1",
            label="T2R1",
            unit="1",
            bounds=(0.003, 1.0),
            start=(0.02, 0.05, 0.2),
            latex=r"T_2 R_1",
            description="Product of the transverse relaxation time and the longitudinal relaxation rate of the water",
            display=(0.0, 0.1),
            prior=log_normal(0.01, 0.6),
            wide=True,
        ),
        # Its map is not called T1map, as nothing was measured.
        replace(T1_TIME, label="T1held", bounds=(1000.0, 1000.0), start=(1000.0,), auxiliary=True),
        Parameter(
            name="R1m",
            label="R1m",
            unit="1/s",
            bounds=(1.0, 1.0),
            start=(1.0,),
            latex="R_{1m}",
            description="Longitudinal relaxation rate of the macromolecules",
            auxiliary=True,
        ),
        B1_PARAMETER,
    ),
    variables=("offset", "saturation"),
    expression=S0
    * (_EXCHANGE * R1m + _LEAVING)
    / (_EXCHANGE * (R1m + _SATURATED) + (1 + (_AMPLITUDE / offset) ** 2 / T2R1) * _LEAVING),
    equation=(
        r"S = S_0 \frac{k\, R_{1m} + W + R_{1m} + k_{mf}}{k\,(R_{1m} + W) + \left(1 + \frac{(B_1\omega_1)^2}"
        r"{\Delta^2\, T_2 R_1}\right) (W + R_{1m} + k_{mf})}, \quad k = k_{mf}\, \mathrm{PSR}\; T_1, \quad "
        r"W = \pi (B_1\omega_1)^2 T_{2m}\, g(\Delta T_{2m})"
    ),
    reference="largest",
    requirements=(
        ValuesRequirement("offset", 4, reason="the line of the macromolecules is told from direct saturation"),
        ValuesRequirement("saturation", 2, minimum=0.1, reason="exchange shows in how the signal follows the power"),
    ),
    suffixes=("MTR",),
    covariate=Covariate("B1", "TB1map", with_transmit_field, "PSR, kmf and T2R1 err by about twice as large a share"),
    references=("henkelman1993", "ramani2002", "morrison1995"),
)
