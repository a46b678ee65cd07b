"""Longitudinal relaxation from magnitudes after an inversion: a model that does not know diffusion."""

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, T1, inversion, TI = sp.symbols("S0 T1 inversion TI", real=True)

MODEL = SymbolicModel(
    name="inversionrecovery",
    title="Inversion recovery",
    description="Recovery of the longitudinal magnetisation after an inversion, seen in magnitudes.",
    parameters=(
        signal_scale(),
        Parameter(
            name="T1",
            label="T1",
            unit="ms",
            bounds=(50.0, 6000.0),
            start=tuple(50.0 * 1.25**k for k in range(22)),
            latex="T_1",
            description="Longitudinal relaxation time",
            display=(0.0, 4000.0),
            prior="loguniform",
        ),
        Parameter(
            name="inversion",
            label="inversion",
            unit="1",
            bounds=(0.5, 1.0),
            start=(0.8, 0.9, 1.0),
            latex=r"\eta",
            description="Efficiency of the inversion, 1 where all of the magnetisation is turned over",
            display=(0.5, 1.0),
        ),
    ),
    variables=("TI",),
    expression=S0 * sp.Abs(1 - (1 + inversion) * sp.exp(-TI / T1)),
    reference="largest",  # the signal of the shortest inversion time is as large as any, that of another is 0
    requirements=(
        ValuesRequirement("TI", 4, reason="S0, T1 and the inversion are fitted, and one more shows the misfit"),
    ),
)
