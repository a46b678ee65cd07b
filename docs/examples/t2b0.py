"""Transverse relaxation: a model that lives in a package of its own."""

import sympy as sp

from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, T2, TE = sp.symbols("S0 T2 TE", real=True)

MODEL = SymbolicModel(
    name="t2b0",
    title="Transverse relaxation without diffusion weighting",
    description="Mono-exponential decay of the images at b = 0 over the echo time.",
    parameters=(
        Parameter(
            name="S0",
            label="S0",
            unit="arbitrary",
            bounds=(0.0, float("inf")),
            latex="S_0",
            description="Signal at echo time 0, in the units of the image",
        ),
        Parameter(
            name="T2",
            label="T2",
            unit="ms",
            bounds=(1.0, 3000.0),
            start=(5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1300.0, 2600.0),
            latex="T_2",
            description="Transverse relaxation time",
            display=(0.0, 200.0),
        ),
    ),
    variables=("TE",),
    expression=S0 * sp.exp(-TE / T2),
    maximum_b=1.0,  # diffusion would weaken the signal as well
    requirements=(ValuesRequirement("TE", 3, reason="S0 and T2 are fitted, and one more shows whether they fit"),),
)
