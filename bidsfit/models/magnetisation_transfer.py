"""Magnetisation transfer: water that exchanges magnetisation with macromolecules."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from bidsfit.models.parameter import Parameter
from bidsfit.models.priors import uniform
from bidsfit.models.relaxation import INVERSION, T1_TIME, rate, signal_at
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, T1, PSR, inversion, kmf = sp.symbols("S0 T1 PSR inversion kmf", real=True)
TI, TD = sp.symbols("TI TD", real=True)

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
        Parameter(
            name="PSR",
            label="PSR",
            unit="1",
            bounds=(0.0, 0.6),
            start=(0.03, 0.1, 0.2),
            latex=r"\mathrm{PSR}",
            description="Pool size ratio, macromolecules to water",
            display=(0.0, 0.25),
            prior=uniform(0.0, 0.3),
        ),
        replace(
            INVERSION,
            bounds=(0.5, 1.0),
            start=(0.95,),
            description="Depth of the inversion of the water: 1 where all of its magnetisation is turned over",
            display=(0.5, 1.0),
            prior=uniform(0.85, 1.0),
        ),
        Parameter(
            name="kmf",
            label="kmf",
            unit="1/s",
            bounds=(12.5, 12.5),
            start=(12.5,),
            latex="k_{mf}",
            description="Rate of the exchange from macromolecules to water",
            auxiliary=True,
        ),
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
