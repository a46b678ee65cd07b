"""Relaxation times, from series of images that differ in one setting of the scanner."""

from __future__ import annotations

import numpy as np
import sympy as sp

from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.priors import log_normal
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, T2, T2star, TE = sp.symbols("S0 T2 T2star TE", real=True)


def signal_at(when: str) -> Parameter:
    """S0 of a series; ``when`` says to which signal it is extrapolated."""
    return Parameter(
        name="S0",
        label="S0",
        unit="arbitrary",
        bounds=(0.0, np.inf),
        latex="S_0",
        description=f"Signal {when}, in the units of the image",
        wide=True,
    )


def rate(time: Parameter) -> Derived:
    """The relaxation rate of a relaxation time: R2 of T2."""
    return Derived(
        name=time.name.replace("T", "R", 1),
        label=time.label.replace("T", "R", 1),
        unit="1/s",
        latex=time.latex.replace("T", "R", 1),
        description=time.description.replace("time", "rate"),
        value=1000 / time.symbol,
        wide=True,
    )


T2_TIME = Parameter(
    name="T2",
    label="T2",
    unit="ms",
    bounds=(1.0, 3000.0),
    start=(5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1300.0, 2600.0),
    latex="T_2",
    description="Transverse relaxation time",
    display=(0.0, 200.0),
    prior=log_normal(15.0, 600.0),
    wide=True,
)

T2STAR_TIME = Parameter(
    name="T2star",
    label="T2star",
    unit="ms",
    bounds=(0.5, 1000.0),
    start=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
    latex="T_2^{*}",
    description="Effective transverse relaxation time",
    display=(0.0, 100.0),
    prior=log_normal(4.0, 200.0),
    wide=True,
)

ECHOES = (ValuesRequirement("TE", 3, reason="two parameters are fitted, and one more echo shows whether they fit"),)

T2_MODEL = SymbolicModel(
    name="t2",
    title="Transverse relaxation",
    description="Mono-exponential decay of spin echoes over the echo time.",
    parameters=(signal_at("at echo time 0"), T2_TIME),
    derived=(rate(T2_TIME),),
    variables=("TE",),
    expression=S0 * sp.exp(-TE / T2),
    reference="largest",
    requirements=ECHOES,
    suffixes=("MESE",),
    references=("meiboom1958",),
)

T2STAR_MODEL = SymbolicModel(
    name="t2star",
    title="Effective transverse relaxation",
    description="Mono-exponential decay of gradient echoes over the echo time.",
    parameters=(signal_at("at echo time 0"), T2STAR_TIME),
    derived=(rate(T2STAR_TIME),),
    variables=("TE",),
    expression=S0 * sp.exp(-TE / T2star),
    reference="largest",
    requirements=ECHOES,
    suffixes=("MEGRE",),
    references=("chavhan2009",),
)
