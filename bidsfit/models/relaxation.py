"""Relaxation times, from series of images that differ in one setting of the scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.priors import log_normal
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.signal_model import Covariate, SignalModel, as_real
from bidsfit.models.symbolic import SymbolicModel

S0, T1, B1, inversion = sp.symbols("S0 T1 B1 inversion", real=True)
TE, TI, TR, flip_angle = sp.symbols("TE TI TR flip_angle", real=True)

#: Steps of Gauss and Newton that make a corrected estimate exact.
CORRECTIONS = 4


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


def decay(name: str, title: str, echoes: str, time: Parameter, suffix: str, reference: str) -> SymbolicModel:
    """Mono-exponential decay of echoes over the echo time."""
    return SymbolicModel(
        name=name,
        title=title,
        description=f"Mono-exponential decay of {echoes} over the echo time.",
        parameters=(signal_at("at echo time 0"), time),
        derived=(rate(time),),
        variables=("TE",),
        expression=S0 * sp.exp(-TE / time.symbol),
        reference="largest",
        requirements=ECHOES,
        suffixes=(suffix,),
        references=(reference,),
    )


T2_MODEL = decay("t2", "Transverse relaxation", "spin echoes", T2_TIME, "MESE", "meiboom1958")
T2STAR_MODEL = decay(
    "t2star", "Effective transverse relaxation", "gradient echoes", T2STAR_TIME, "MEGRE", "chavhan2009"
)

T1_TIME = Parameter(
    name="T1",
    label="T1",
    unit="ms",
    bounds=(50.0, 6000.0),
    start=tuple(50.0 * 1.4**k for k in range(14)),
    latex="T_1",
    description="Longitudinal relaxation time",
    display=(0.0, 3000.0),
    prior=log_normal(250.0, 4500.0),
    wide=True,
)

INVERSION = Parameter(
    name="inversion",
    label="inversion",
    unit="1",
    bounds=(0.2, 1.2),
    start=(0.6, 0.8, 1.0),
    latex=r"\eta",
    description="Depth of the inversion: 1 where all of the recovered magnetisation is turned over",
    display=(0.5, 1.1),
    prior=log_normal(0.7, 1.1),
)

T1_INVERSION_RECOVERY = SymbolicModel(
    name="t1ir",
    title="Longitudinal relaxation from inversion recovery",
    description=(
        "Magnitude of the recovery after an inversion, of which all three parameters are free (Barral): an incomplete "
        "inversion, or repetition times that are not long, change the depth and not T1."
    ),
    parameters=(
        signal_at("long after the inversion"),
        T1_TIME,
        INVERSION,
    ),
    derived=(rate(T1_TIME),),
    variables=("TI",),
    expression=S0 * sp.Abs(1 - (1 + inversion) * sp.exp(-TI / T1)),
    reference="largest",
    requirements=(
        ValuesRequirement("TI", 4, reason="three parameters are fitted, and one more time shows whether they fit"),
    ),
    suffixes=("IRT1",),
    references=("barral2010",),
)


#: What comes of flip angles that are not the nominal ones.
NOMINAL = "T1 errs by twice as large a share"

B1_PARAMETER = Parameter(
    name="B1",
    label="B1",
    unit="1",
    bounds=(1.0, 1.0),
    start=(1.0,),
    latex="B_1",
    description="Transmit field: true flip angle as a share of the nominal one",
    auxiliary=True,
)


#: Of complex signals.
PHASE = Parameter(
    name="phase",
    label="phase",
    unit="rad",
    bounds=(-np.pi, np.pi),
    start=tuple(np.arange(-3.0, 3.2, 1.2).tolist()),
    latex=r"\varphi",
    description="Phase of the signal",
    kind="azimuth",
    auxiliary=True,
)


def with_same_signals(
    model: SignalModel,
    points: NDArray[np.float64],
    start: NDArray[np.float64],
    acquisition: Acquisition,
    free: Sequence[int],
) -> NDArray[np.float64]:
    """Parameters whose signals are nearest to those of other ones, by Gauss-Newton steps.

    Parameters
    ----------
    model : SignalModel
    free : sequence of int
        Indices of the parameters that are free; the others are those of the start.
    points : ndarray, shape (n, n_parameters)
        Their signals are sought.
    start : ndarray, shape (n, n_parameters)
        Where the search begins; where it is NaN, so is the result.
    free : int
        Number of free parameters.
    """
    known = np.isfinite(start).all(axis=1) & np.isfinite(points).all(axis=1)
    target = model.signal(points[known], acquisition)
    inside = start[known]
    for _ in range(CORRECTIONS):
        signal, jacobian = model.signal_and_jacobian(inside, acquisition)
        slopes = as_real(jacobian[..., free] * inside[:, None, free], axis=1)  # relative changes
        step = np.einsum("nij,nj->ni", np.linalg.pinv(slopes), as_real(target - signal))
        inside[:, free] *= np.exp(np.clip(step, -0.5, 0.5))
    found = np.full_like(start, np.nan)
    found[known] = inside
    return found


def with_transmit_field(
    points: NDArray[np.float64], b1: NDArray[np.float64], acquisition: Acquisition, free: Sequence[int]
) -> NDArray[np.float64]:
    """Parameters of `T1_VFA` for true flip angles, from those of a fit with nominal ones.

    With tau = 2 tan(angle / 2) the signal is S0 tau rho / (rho + tau^2 / 2), where rho = 2 tanh(TR / (2 T1)) [1]_. As
    far as tau is proportional to the angle, flip angles that are b1 times as large therefore change S0 to S0 b1 and rho
    to rho / b1^2, whatever the signals are. From there `with_same_signals` leads on.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        S0, T1 and B1 = 1.
    b1 : ndarray, shape (n,)
        True flip angle as a share of the nominal one; NaN where unknown, where the result is.
    free : sequence of int
        Indices of the parameters that were fitted.

    References
    ----------
    .. [1] Helms G, Dathe H, Dechent P. Magnetic Resonance in Medicine 2008;59:667-672.
    """
    half = float(np.median(acquisition.variable("TR"))) / 2
    with np.errstate(invalid="ignore"):
        rate = np.arctanh(np.minimum(np.tanh(half / points[:, 1]) * b1**2, 1 - 1e-9)) / half
        start = np.column_stack([points[:, 0] / b1, 1 / rate, b1])
    return with_same_signals(T1_VFA, points, start, acquisition, free)


T1_VFA = SymbolicModel(
    name="t1vfa",
    title="Longitudinal relaxation from variable flip angles",
    description=(
        "Steady state of spoiled gradient echoes (Ernst) over the flip angle, which is B1 times the nominal one: B1 is "
        "that of a map of the transmit field, or 1."
    ),
    parameters=(
        signal_at("of the fully relaxed magnetisation"),
        replace(T1_TIME, bounds=(50.0, 10000.0)),  # with larger angles than nominal that of fluid seems longer
        B1_PARAMETER,
    ),
    derived=(rate(T1_TIME),),
    variables=("flip_angle", "TR"),
    expression=S0
    * sp.sin(B1 * sp.pi * flip_angle / 180)
    * (1 - sp.exp(-TR / T1))
    / (1 - sp.exp(-TR / T1) * sp.cos(B1 * sp.pi * flip_angle / 180)),
    reference="largest",
    requirements=(ValuesRequirement("flip_angle", 2, reason="S0 and T1 are fitted"),),
    suffixes=("VFA",),
    covariate=Covariate("B1", "TB1map", with_transmit_field, NOMINAL),
    references=("fram1987", "helms2008"),
)
