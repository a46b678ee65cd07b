"""Magnetisation transfer in a cycle of short pulses: the generalised Bloch model (Assländer et al., MRM 2022)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from bidsfit.models.function import FunctionModel
from bidsfit.models.generalised_bloch_kernel import LARGEST_ANGLE, LONGEST, SHORTEST, fill_cycles
from bidsfit.models.parameter import Parameter
from bidsfit.models.priors import log_normal, priors_of, uniform
from bidsfit.models.relaxation import B1_PARAMETER, PHASE, signal_at
from bidsfit.models.requirements import ValuesRequirement

if TYPE_CHECKING:
    from torch import Tensor

#: Terms of the polynomials by which `inverted` is tabulated, in the logarithm of the duration and the squared angle.
TERMS = 32, 14
#: Least and largest m0s, R1f and R2f (1/s) of fluid.
FLUID = (0.0, 0.2, 0.4), (0.01, 0.35, 2.0)
#: Steps in which the table is made: so many for each T2 of a pulse, and at least.
STEPS, FEWEST_STEPS = 4, 300


def _orientations() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Nodes y and weights of the mean over orientations of functions of :math:`y = |3\cos^2\theta-1|`, over y.

    With the substitutions of `bidsfit.models.functions.superlorentzian` the weights are those of :math:`f(y)/y`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(12)
    s = (np.arange(24)[:, None] + (nodes + 1) / 2).ravel()
    y = np.concatenate([1 / np.cosh(s) ** 2, 1 / np.sinh(s + math.asinh(math.sqrt(0.5))) ** 2])
    return y, np.tile(weights / 2, 48) / math.sqrt(3)


def inverted(duration: float, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Longitudinal magnetisation of macromolecules after a pulse, as a share of that before it.

    .. math:: \dot z(t) = -\omega_1^2 \int_0^t G(t-x)\, z(x)\, dx, \quad
        G(t) = \int_0^1 e^{-t^2(3u^2-1)^2/(8T_2^2)} du

    Parameters
    ----------
    duration : float
        Of the pulse, in T2 of the macromolecules.
    angles : ndarray, shape (n,)
        By which the pulses turn water, radians: their amplitude times their duration.

    Notes
    -----
    Integrated once, the equation is :math:`z = 1 - \omega_1^2 \int K(t-x) z(x) dx` with the integral K of G, which is
    0 at 0. The trapezoidal rule with its first correction is explicit, and its errors are of fourth order.
    """
    from scipy.special import erf

    y, weights = _orientations()
    n = max(FEWEST_STEPS, int(STEPS * duration))
    step, times = 1 / n, duration * np.arange(n + 1)[:, None] / n
    green = np.exp(-((times * y) ** 2) / 8) @ (weights * y)
    kernel = math.sqrt(2 * math.pi) / duration * (erf(times * y / math.sqrt(8)) @ weights)
    square = angles**2
    z = np.ones((n + 1, len(angles)))
    for k in range(1, n + 1):
        past = kernel[k:0:-1] @ z[:k] - kernel[k] / 2
        z[k] = (1 - square * step * (past - step / 12 * green[k])) / (1 + square * step**2 / 12)
    return z[-1]


@cache
def _polynomials() -> NDArray[np.float64]:
    """Chebyshev coefficients of `inverted`, of shape `TERMS`; takes about a second."""
    places, squares = (chebyshev.chebpts1(n) for n in TERMS)
    durations = SHORTEST * (LONGEST / SHORTEST) ** ((places + 1) / 2)
    angles = LARGEST_ANGLE * np.sqrt((squares + 1) / 2)
    values = np.array([inverted(float(duration), angles) for duration in durations])
    bases = [chebyshev.chebvander(x, n - 1) for x, n in zip((places, squares), TERMS, strict=True)]
    return np.asarray(np.linalg.solve(bases[0], np.linalg.solve(bases[1], values.T).T), dtype=np.float64)


def inverted_share(durations: Tensor, angles: Tensor) -> Tensor:
    """`inverted` of pulses of any duration (in T2) and angle (radians), shape (n,), from its table, to 1e-6.

    Beyond the table the values at its end are taken.
    """
    import torch

    place = torch.log(durations.clamp(SHORTEST, LONGEST) / SHORTEST) * (2 / math.log(LONGEST / SHORTEST)) - 1
    square = 2 * (angles / LARGEST_ANGLE).square().clamp(max=1.0) - 1

    def basis(x: Tensor, n: int) -> Tensor:
        terms = [torch.ones_like(x), x]
        while len(terms) < n:
            terms.append(2 * x * terms[-1] - terms[-2])
        return torch.stack(terms, -1)

    table = torch.as_tensor(_polynomials(), dtype=durations.dtype, device=durations.device)
    return ((basis(place, TERMS[0]) @ table) * basis(square, TERMS[1])).sum(-1)


def exchange(share: Tensor, r1f: Tensor, rx: Tensor, r1s: Tensor, time: Tensor) -> list[list[Tensor]]:
    """Longitudinal magnetisation of both pools after a time (n,): elements of the matrix, and of what is added."""
    import torch

    free = 1 - share
    lost = r1f + rx * share, r1s + rx * free
    mean, half = (lost[0] + lost[1]) / 2, (lost[0] - lost[1]) / 2
    root = torch.sqrt(half.square() + rx.square() * share * free + 1e-24)
    slow, fast = torch.exp((root - mean) * time), torch.exp(-(root + mean) * time)
    even, odd = (slow + fast) / 2, (slow - fast) / (2 * root)
    ff, ss = even - odd * half, even + odd * half
    fs, sf = odd * rx * free, odd * rx * share
    return [
        [ff, fs, free - ff * free - fs * share],
        [sf, ss, share - sf * free - ss * share],
    ]


def precession(r2: Tensor, w0: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of transverse magnetisation after a time (n,), along where it was and across."""
    import torch

    left = torch.exp(-r2 * time)
    return left * torch.cos(w0 * time), left * torch.sin(w0 * time)


def periodic(steps: Tensor) -> Tensor:
    """States (n, m) after every step of a cycle that is repeated for ever.

    Steps of a cycle are taken together in pairs, pairs of pairs and so on, which tells the state that it begins and
    ends with, and from there the states in between; so that few operations on large arrays follow one another.

    Parameters
    ----------
    steps : Tensor, shape (n, m, m)
        Matrix of every step. The last element of a state is 1, and the last row of every matrix keeps it.
    """
    import torch

    levels = [steps]
    while (n := len(levels[-1])) > 1:
        odd, even = levels[-1][: n - n % 2 : 2], levels[-1][1::2]
        levels.append(torch.cat([even @ odd, levels[-1][n - n % 2 :]]))
    whole = levels[-1][0]
    still = torch.eye(len(whole) - 1, dtype=whole.dtype, device=whole.device) - whole[:-1, :-1]
    found = (
        torch.linalg.inv(still) @ whole[:-1, -1]
    )  # torch.linalg.solve differentiates wrongly under vmap (torch 2.13)
    end = torch.cat([found, torch.ones_like(found[:1])])
    after = end[None]
    for level in reversed(levels[:-1]):
        n = len(level)
        before = torch.cat([end[None], after[: (n - 1) // 2]])
        between = (level[::2] * before[:, None]).sum(-1)  # after the first step, the third, ...
        woven = torch.stack([between[: n // 2], after[: n // 2]], 1).flatten(0, 1)
        after = torch.cat([woven, between[n // 2 :]])
    return after


def cycle(parameters: Tensor, design: Tensor) -> Tensor:
    """Complex signals of a cycle of pulses that is repeated until it is periodic, in the middle after every pulse.

    Water is (xf, yf, zf), the longitudinal magnetisation of macromolecules zs. In each repetition both evolve freely
    for half of it, the phase of the pulses advances by 180 degrees, a pulse acts, and the other half
    follows. During the pulse water turns about the field of the pulse and its off-resonance, and macromolecules follow
    the generalised Bloch equations (`inverted`), both exactly; relaxation and exchange in that time act in the middle
    of it, with their mean over the directions that water passes through. Pulses with crusher gradients on both sides
    leave of transverse magnetisation what they refocus.

    Parameters
    ----------
    parameters : Tensor, shape (10,)
        S0; share of the macromolecules m0s; R1f, R2f, Rx and R1s (1/s); T2s (µs); off-resonance f0 (1/s); B1; phase.
    design : Tensor, shape (n, 4)
        Flip angle (degrees), duration of the pulse and repetition time (ms), and 1 for pulses with crushers, else 0.

    References
    ----------
    Assländer J, Gultekin C, Flassbeck S, Glaser SJ, Sodickson DK. Magnetic Resonance in Medicine 2022;87:2003-2017.
    """
    import torch

    scale, share, r1f, r2f, rx, r1s, t2s, f0, b1, phase = parameters.unbind()
    r1f, r2f, rx, r1s, w0 = r1f / 1000, r2f / 1000, rx / 1000, r1s / 1000, 2e-3 * math.pi * f0  # per ms
    degrees, duration, repetition, crushed = design.unbind(1)
    one, zero, free, crushed = torch.ones_like(degrees), torch.zeros_like(degrees), 1 - share, crushed > 0
    during = torch.where(crushed, 0.0, duration)
    half = (repetition - during) / 2
    wait = half + half.roll(1)  # from the last pulse to this one

    # Rotation by half of the pulse about its field and the off-resonance; of pulses with crushers, none.
    turned = b1 * torch.deg2rad(degrees)
    a, b = torch.where(crushed, 0.0, turned), w0 * during
    angle = torch.sqrt(a.square() + b.square() + 1e-16)
    q, p = torch.sin(angle / 2) / angle, 2 * (torch.sin(angle / 4) / angle).square()
    rotation = [
        [1 - p * angle.square(), -q * b, q * a],
        [q * b, 1 - p * b.square(), p * a * b],
        [-q * a, p * a * b, 1 - p * a.square()],
    ]

    # Means over the pulse, of what is along z in its middle: its squared share along x, and its share along z.
    tilt = (a / angle).square()
    across, along = tilt * (1 - torch.sin(angle) / angle) / 2, 1 - tilt * (1 - 2 * q)
    saturated = inverted_share(1000 * duration / t2s, turned)
    lost, met = r1f + rx * share, during * along * (1 + saturated) / 2
    left = [torch.exp(-(r2f + (lost - r2f) * part) * during) for part in (across, zero, 1 - across)]
    refocused = torch.sin(turned / 2).square()
    left = [torch.where(crushed, *pair) for pair in zip((refocused, -refocused, torch.cos(turned)), left, strict=True)]
    from_bound, to_bound = rx * free * met, rx * share * met
    recovered, recovered_bound = r1f * free * during * along, r1s * share * during * (1 + saturated) / 2
    left_bound = saturated * torch.exp(-(r1s + rx * free) * during)

    c, s = precession(r2f, w0, wait)
    (ff, fs, f1), (sf, ss, s1) = exchange(share, r1f, rx, r1s, wait)

    def after_waiting(water: list[Tensor], bound: Tensor, more: Tensor) -> list[Tensor]:
        """A row of the matrix of a pulse, times that of the time before it and the change of sign of x and y."""
        x, y, z = water
        return [-x * c - y * s, x * s - y * c, z * ff + bound * sf, z * fs + bound * ss, z * f1 + bound * s1 + more]

    rows = []
    for row in rotation:
        x, y, z = (part * kept for part, kept in zip(row, left, strict=True))
        water = [x * rotation[0][j] + y * rotation[1][j] + z * rotation[2][j] for j in range(3)]
        rows.append(after_waiting(water, row[2] * from_bound, row[2] * recovered))
    rows.append(after_waiting([to_bound * part for part in rotation[2]], left_bound, recovered_bound))
    rows.append([zero, zero, zero, zero, one])
    x, y = periodic(torch.stack([torch.stack(row, -1) for row in rows], -2))[:, :2].unbind(-1)
    c, s = precession(r2f, w0, half)
    signal = torch.complex(c * x - s * y, s * x + c * y)
    return scale * torch.polar(torch.ones_like(phase), phase) * signal


def cycle_of_voxels(
    parameters: NDArray[np.float64], design: NDArray[np.float64], derivatives: bool
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The same as `cycle` of many voxels, and its derivatives, by compiled code.

    Parameters
    ----------
    parameters : ndarray, shape (n_voxels, 10)
    design : ndarray, shape (n, 4)
    derivatives : bool

    Returns
    -------
    signals : ndarray, shape (n_voxels, n)
    derivatives : ndarray, shape (n_voxels, 10, n)
        Of no voxel where they are not asked for.
    """
    n_voxels, n = len(parameters), len(design)
    signals = np.empty((n_voxels, n), dtype=complex)
    slopes = np.empty((n_voxels if derivatives else 0, parameters.shape[1], n), dtype=complex)
    fill_cycles(np.ascontiguousarray(parameters), np.ascontiguousarray(design), _polynomials(), signals, slopes)
    return signals, slopes


def tissue_and_fluid(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Parameters of fingerprints that a temporal basis is made of, shape (n, 10).

    Nine of ten are drawn from the priors of the parameters; the others are fluid.
    """
    bounds = np.array([parameter.bounds for parameter in GENERALISED_BLOCH.parameters])
    priors = priors_of(GENERALISED_BLOCH, bounds).values()
    found = np.column_stack([np.ones(n), *(prior.sample(n, rng) for prior in priors)])
    found[::10, 1:4] = rng.uniform(*FLUID, (len(found[::10]), 3))
    return found


def per_second(
    name: str, latex: str, bounds: tuple[float, float], likely: tuple[float, float], words: str
) -> Parameter:
    """A rate of the model, and the values within which most tissue lies."""
    return Parameter(
        name=name,
        label=name,
        unit="1/s",
        bounds=bounds,
        start=likely,
        latex=latex,
        description=words,
        display=(0.0, likely[1]),
        prior=log_normal(*likely),
    )


GENERALISED_BLOCH = FunctionModel(
    name="qmtgbloch",
    title="Magnetisation transfer in a cycle of pulses, by the generalised Bloch model",
    description=(
        "Complex signals of balanced steady-state free precession whose pulses change in angle and duration, in a "
        "cycle that begins with a crushed inversion and is repeated: water (f) and macromolecules (s) exchange, and "
        "the latter follow the generalised Bloch equations with a super-Lorentzian line."
    ),
    parameters=(
        signal_at("of the fully relaxed magnetisation of both pools"),
        Parameter(
            name="m0s",
            label="m0s",
            unit="1",
            bounds=(0.0, 0.6),
            start=(0.05, 0.15, 0.25),
            latex="m_0^s",
            description="Share of the macromolecules in the magnetisation of both pools",
            display=(0.0, 0.3),
            prior=uniform(0.0, 0.35),
        ),
        per_second("R1f", "R_1^f", (0.05, 3.0), (0.25, 1.0), "Longitudinal relaxation rate of the water"),
        per_second("R2f", "R_2^f", (0.2, 40.0), (4.0, 20.0), "Transverse relaxation rate of the water"),
        per_second("Rx", "R_x", (0.5, 80.0), (8.0, 25.0), "Rate of the exchange between the pools"),
        per_second("R1s", "R_1^s", (0.2, 12.0), (1.5, 5.0), "Longitudinal relaxation rate of the macromolecules"),
        Parameter(
            name="T2s",
            label="T2s",
            unit="us",
            bounds=(3.0, 30.0),
            start=(8.0, 14.0),
            latex="T_2^s",
            description="Transverse relaxation time of the macromolecules",
            display=(5.0, 20.0),
            prior=uniform(5.0, 25.0),
        ),
        Parameter(
            name="f0",
            label="f0",
            unit="Hz",
            bounds=(-150.0, 150.0),
            start=(0.0,),
            latex="f_0",
            description="Off-resonance of the water",
            prior=uniform(-100.0, 100.0),
            twofold=True,
            auxiliary=True,
        ),
        # An inversion by more or less than 180 degrees leaves the same, and signals hardly tell the sign of f0.
        replace(B1_PARAMETER, bounds=(0.6, 1.3), start=(1.0,), prior=log_normal(0.75, 1.2), twofold=True),
        PHASE,
    ),
    variables=("flip_angle", "pulse_duration", "TR", "crushed"),
    function=cycle,
    of_voxels=cycle_of_voxels,
    examples=tissue_and_fluid,
    start="draws",
    equation=r"S_k = S_0 e^{i\varphi} \left(x^f + i y^f\right)_k, \quad "
    r"\dot z^s = -\omega_1^2 \int_0^t G\left(\frac{t-x}{T_2^s}\right) z^s(x)\, dx",
    reference="largest",
    complex_valued=True,
    sequence=True,
    phase="phase",
    requirements=(
        ValuesRequirement(
            "flip_angle", 10, maximum=200.0, reason="the pools show in how signals follow changing pulses"
        ),
    ),
    suffixes=("MRF",),
    references=("asslander2022",),
)
