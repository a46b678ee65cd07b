"""Parameter ranges of every tissue for every model that has a phantom.

Ranges are in the units of the model (diffusivities in um^2/ms), except S0, which is relative to the brightest
cerebrospinal fluid. A recipe here is all that a model needs for a phantom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bidsfit.exceptions import UnknownNameError, UsageError

if TYPE_CHECKING:
    from bidsfit.acquisition import Acquisition

#: Smallest and largest value of each parameter.
Ranges = Mapping[str, tuple[float, float]]

#: Tissues and their number in the segmentation (0 is air).
TISSUES = {"WM": 1, "GM": 2, "CSF": 3, "lesion": 4}
TISSUE_NAMES = {
    "WM": "White matter",
    "GM": "Grey matter",
    "CSF": "Cerebrospinal fluid",
    "lesion": "Lesion",
}

#: The same for the abdomen.
ABDOMEN = {
    "liver": 1,
    "spleen": 2,
    "kidney": 3,
    "lesion": 4,
    "muscle": 5,
    "bone": 6,
    "fluid": 7,
    "bowel": 8,
    "fat": 9,
}
ABDOMEN_NAMES = {
    "liver": "Liver",
    "spleen": "Spleen",
    "kidney": "Kidney",
    "lesion": "Lesion",
    "muscle": "Muscle",
    "bone": "Vertebra",
    "fluid": "Fluid",
    "bowel": "Bowel",
    "fat": "Fat",
}


@dataclass(frozen=True)
class TissueRecipe:
    """Tissues, lesions and default acquisition of the phantom of one model.

    Parameters
    ----------
    tissues : dict of tissue to ranges
        Ranges of the healthy tissues of `TISSUES` or `ABDOMEN`.
    lesions : dict of name to ranges
        The first is the default. Parameters that are not listed keep the range of the host.
    source : str
        Origin of the ranges, for sidecars.
    b_values : tuple of float
        Default scheme of diffusion images, s/mm^2; repeated values are measured repeatedly.
    n_directions : int
        Default number of directions of each b-value above 0.
    columns : dict of column to tuple of float
        Measurements of a series, in the units of `bidsfit.acquisition.COLUMNS`; empty for diffusion images.
    basis : tuple of str and int
        Of a train of pulses whose repetitions are the columns: the model whose temporal basis
        (`bidsfit.models.function.FunctionModel.temporal_basis`) has the coefficients that are measured instead of them,
        and their number, 0 if the repetitions themselves are measured.
    fields : dict of parameter to str
        Parameters that are no property of tissue but fields of the scanner, and which one: a key of
        `bidsfit.phantom.head.FIELDS`.
    host : str
        Tissue that contains lesions.
    snr : float
        Default SNR (S0 over the noise of one measurement): that of images of a usual quality.
    axis : str
        Name of the axis, if any, along which fibres run. Its angles are not those of the table but of fibres that fan
        out, and are drawn aside by the directions of the table (`bidsfit.phantom.head.fanned`).
    made : {"", "diffusion", "kurtosis"}
        How the parameters of the model are made of what the tables hold, where they hold something else: FA and MD in
        place of the elements of a tensor (`bidsfit.phantom.tensors`).
    """

    tissues: Mapping[str, Ranges]
    lesions: Mapping[str, Ranges]
    source: str
    b_values: tuple[float, ...] = ()
    n_directions: int = 1
    columns: Mapping[str, Any] = field(default_factory=dict)
    basis: tuple[str, int] = ("", 0)
    fields: Mapping[str, str] = field(default_factory=dict)
    host: str = "WM"
    snr: float = 30.0
    axis: str = ""
    made: str = ""

    @property
    def series(self) -> Acquisition:
        """Measurements of a series."""
        from bidsfit.acquisition import Acquisition  # which help does not need

        measured = Acquisition(**self.columns)
        model, n = self.basis
        if n == 0:
            return measured
        from bidsfit import models  # compiled code, which few need
        from bidsfit.models.function import FunctionModel

        fingerprints = models.get(model)
        assert isinstance(fingerprints, FunctionModel)
        return Acquisition(frames=measured, basis=fingerprints.temporal_basis(measured, n))

    def ranges(self, tissue: str, lesion: str | None = None) -> Ranges:
        """Ranges of a tissue, on request with a lesion."""
        if tissue != "lesion":
            return self.tissues[tissue]
        if lesion is None or lesion not in self.lesions:
            raise UnknownNameError("lesion", str(lesion), self.lesions)
        return {**self.tissues[self.host], **self.lesions[lesion]}

    def middle(self, lesion: str | None = None) -> dict[str, float]:
        """Middle of every range of a lesion, or of its host."""
        ranges = self.ranges(self.host if lesion is None else "lesion", lesion)
        return {parameter: (lower + upper) / 2 for parameter, (lower, upper) in ranges.items()}


# S0, D, f and D* as in the simulations of Kaandorp's thesis (paper III): fractal maps within these ranges. D* of white
# and grey matter begins at the lower bound of the model; in the paper at 3 um^2/ms.
_IVIM = TissueRecipe(
    tissues={
        "WM": {"S0": (0.05, 0.25), "D": (0.3, 1.3), "f": (0.01, 0.10), "Dstar": (5.0, 15.0)},
        "GM": {"S0": (0.20, 0.50), "D": (0.5, 2.0), "f": (0.05, 0.25), "Dstar": (5.0, 30.0)},
        "CSF": {"S0": (0.50, 1.00), "D": (1.0, 3.0), "f": (0.25, 0.50), "Dstar": (20.0, 50.0)},
    },
    lesions={
        # Glioblastoma with many vessels: above the cut-offs f = 0.099 and D* = 21.7 um^2/ms of Puig et al.
        # (PLoS ONE 2016;11:e0158887), and brighter than white matter.
        "hyperperfused": {"S0": (0.25, 0.45), "D": (0.9, 1.4), "f": (0.15, 0.25), "Dstar": (22.0, 30.0)},
        # Necrosis or oedema, illustrative: free diffusion and hardly any blood.
        "hypoperfused": {"S0": (0.30, 0.50), "D": (1.6, 2.2), "f": (0.00, 0.02), "Dstar": (5.0, 10.0)},
    },
    b_values=(0, 0, 0, 0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400, 600, 800),
    n_directions=3,
    source="Tissue ranges of the simulations of Kaandorp et al. (Medical Image Analysis, "
    "doi:10.1016/j.media.2024.103414), D* from 5e-3 mm^2/s; lesions after Puig et al. "
    "(doi:10.1371/journal.pone.0158887).",
)

# The tissue of the IVIM table seen without its blood. Lesions are illustrative.
_ADC = TissueRecipe(
    tissues={
        tissue: {name: limits for name, limits in ranges.items() if name in ("S0", "D")}
        for tissue, ranges in _IVIM.tissues.items()
    },
    lesions={
        "stroke": {"S0": (0.25, 0.35), "D": (0.3, 0.5)},
        "oedema": {"S0": (0.30, 0.50), "D": (1.6, 2.2)},
    },
    b_values=(0, 0, 0, 0, 200, 500, 800, 1000),
    n_directions=3,
    source="S0 and D of the tissue ranges of Kaandorp et al. (Medical Image Analysis, "
    "doi:10.1016/j.media.2024.103414); illustrative lesions.",
)


def _abnormality(vcyl: float, diffusivity: float) -> Ranges:
    return {"vcyl": (vcyl, vcyl), "lambda": (diffusivity, diffusivity)}


# S0, vcyl and lambda: where least-squares fits of this model cluster, tissue by tissue, in a brain measured at
# b = 0, 1000 and 2000 s/mm^2 (example data of the Maastricht Diffusion Toolbox, github.com/robbert-harms/MDT); S0
# relative to its fluid. Fluid stays below 3 um^2/ms, the upper bound of lambda. The middle of white matter (0.62, 1.95)
# is above the abnormalities 3 and 4 of Gyori et al. in vcyl and in lambda, which they are below in the paper.
_SMT2 = TissueRecipe(
    tissues={
        "WM": {"S0": (0.25, 0.35), "vcyl": (0.52, 0.72), "lambda": (1.65, 2.25)},
        "GM": {"S0": (0.35, 0.50), "vcyl": (0.15, 0.40), "lambda": (0.9, 1.5)},
        "CSF": {"S0": (0.80, 1.00), "vcyl": (0.00, 0.05), "lambda": (2.6, 2.95)},
    },
    lesions={
        "abnormality-2": _abnormality(0.05, 1.5),
        "abnormality-1": _abnormality(0.67, 0.5),
        "abnormality-3": _abnormality(0.60, 1.8),
        "abnormality-4": _abnormality(0.47, 1.9),
    },
    b_values=(0, 0, 0, 0, 0, 0, 0, 0, 1000, 2000, 3500, 5000),
    n_directions=32,
    source="Tissue ranges as in least-squares fits to the example brain of the Maastricht Diffusion Toolbox; "
    "lesions of Gyori et al. (Magnetic Resonance in Medicine 2022, table 2).",
)

# The tissue of the table above with some free water in it: least-squares fits of two compartments do not tell how much,
# so the ranges of vcsf are illustrative. In fluid they leave room for vcyl: the two add up to 1 at most everywhere.
_FREE_WATER: Ranges = {"WM": (0.00, 0.05), "GM": (0.00, 0.15), "CSF": (0.85, 0.95)}

_SMT3 = TissueRecipe(
    tissues={tissue: {**ranges, "vcsf": _FREE_WATER[tissue]} for tissue, ranges in _SMT2.tissues.items()},
    lesions={name: {**ranges, "vcsf": (0.0, 0.0)} for name, ranges in _SMT2.lesions.items()},
    b_values=_SMT2.b_values,
    n_directions=_SMT2.n_directions,
    source="S0, vcyl and lambda as in least-squares fits of two compartments to the example brain of the Maastricht "
    "Diffusion Toolbox; the ranges of vcsf are illustrative, from no measurement. Lesions of Gyori et al. (Magnetic "
    "Resonance in Medicine 2022, table 2), without free water.",
)

# Relaxation at 3 T: T2 around the values of Wansapura et al. and T2* around those of Peters et al.; fluid, S0 (the
# density of protons relative to fluid) and lesions are illustrative.
_DENSITY: Ranges = {"WM": (0.65, 0.75), "GM": (0.75, 0.85), "CSF": (0.95, 1.00)}


def _relaxation(
    parameter: str,
    times: Ranges,
    lesions: Ranges,
    columns: Mapping[str, tuple[float, ...]],
    source: str,
    more: Ranges | None = None,
    snr: float = 60.0,
    fields: Mapping[str, str] | None = None,
) -> TissueRecipe:
    """Recipe of a relaxation time with its ranges in tissues and lesions, and those of other parameters."""
    return TissueRecipe(
        tissues={tissue: {"S0": _DENSITY[tissue], parameter: times[tissue], **(more or {})} for tissue in times},
        lesions={name: {"S0": _DENSITY["GM"], parameter: limits} for name, limits in lesions.items()},
        source=f"Around the values at 3 T of {source}; fluid, S0 and lesions are illustrative.",
        columns=columns,
        snr=snr,
        fields=fields or {},
    )


_T2 = _relaxation(
    "T2",
    {"WM": (65.0, 85.0), "GM": (85.0, 120.0), "CSF": (1200.0, 2000.0)},
    {"oedema": (130.0, 180.0)},
    {"TE": tuple(12.0 * k for k in range(1, 13))},
    "Wansapura et al. (Journal of Magnetic Resonance Imaging 1999;9:531-538)",
)

_T2STAR = _relaxation(
    "T2star",
    {"WM": (45.0, 60.0), "GM": (55.0, 75.0), "CSF": (200.0, 500.0)},
    {"iron": (8.0, 20.0)},
    {"TE": tuple(4.0 + 6 * k for k in range(8))},
    "Peters et al. (Magnetic Resonance Imaging 2007;25:748-753)",
)

_T1: tuple[Ranges, Ranges] = (
    {"WM": (750.0, 950.0), "GM": (1200.0, 1500.0), "CSF": (3500.0, 4500.0)},
    {"oedema": (1600.0, 2200.0)},
)
_WANSAPURA = "Wansapura et al. (Journal of Magnetic Resonance Imaging 1999;9:531-538)"

# B1 is no property of tissue: the phantom has a smooth transmit field. Signals are 3 to 9 % of S0, to which SNRs refer.
_T1_VFA = _relaxation(
    "T1",
    *_T1,
    {"flip_angle": (2.0, 5.0, 10.0, 15.0, 20.0, 25.0), "TR": (15.0,) * 6},
    _WANSAPURA,
    {"B1": (1.0, 1.0)},
    snr=500.0,
    fields={"B1": "transmit"},
)

_T1_IR = _relaxation(
    "T1",
    *_T1,
    {"TI": (50.0, 200.0, 400.0, 800.0, 1500.0, 2500.0, 4000.0, 6000.0)},
    _WANSAPURA,
    {"inversion": (0.92, 0.98)},
)

# The protocol of Marques et al. (NeuroImage 2010;49:1271-1281) at 3 T, with partial Fourier. Signals are 1 to 7 % of
# S0.
_MP2RAGE = _relaxation(
    "T1",
    *_T1,
    {
        "TI": (700.0, 2500.0),
        "flip_angle": (4.0, 5.0),
        "TR": (7.1,) * 2,
        "TRP": (5000.0,) * 2,
        "shots_before": (44.0,) * 2,
        "shots_after": (88.0,) * 2,
    },
    _WANSAPURA,
    {"inversion": (0.96, 0.96), "B1": (1.0, 1.0)},
    snr=500.0,
    fields={"B1": "transmit"},
)

# Pool sizes around those of Dortch et al.; water alone relaxes more slowly than by a fit of one exponential.
_MACROMOLECULES: Ranges = {"WM": (0.11, 0.15), "GM": (0.05, 0.08), "CSF": (0.00, 0.005)}
_SIR_T1: Ranges = {"WM": (950.0, 1150.0), "GM": (1300.0, 1600.0), "CSF": (3500.0, 4500.0)}

_SIR_QMT = TissueRecipe(
    tissues={
        tissue: {
            "S0": _DENSITY[tissue],
            "T1": _SIR_T1[tissue],
            "PSR": share,
            "inversion": (0.92, 0.98),
            "kmf": (12.5, 12.5),
        }
        for tissue, share in _MACROMOLECULES.items()
    },
    lesions={"demyelination": {"S0": _DENSITY["GM"], "T1": (1400.0, 1700.0), "PSR": (0.04, 0.07)}},
    source="Pool sizes and T1 around those of Dortch et al. (Magnetic Resonance in Medicine 2011;66:1346-1352); fluid, "
    "S0 and lesions are illustrative.",
    columns={"TI": (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 600.0, 1200.0, 2400.0), "TD": (2500.0,) * 9},
    snr=250.0,  # as the ratio of the pools needs
)

# A train of our own, of no paper: three lobes of flip angles, and repetition times that vary a little.
REPETITIONS = 300
_TIMES: Mapping[str, Ranges] = {
    "WM": {"T1": (750.0, 950.0), "T2": (65.0, 85.0)},
    "GM": {"T1": (1200.0, 1500.0), "T2": (85.0, 120.0)},
    "CSF": {"T1": (3500.0, 4500.0), "T2": (1200.0, 2000.0)},
}

_MRF_FISP = TissueRecipe(
    tissues={
        tissue: {"S0": _DENSITY[tissue], **times, "phase": (0.0, 0.0), "B1": (1.0, 1.0)}
        for tissue, times in _TIMES.items()
    },
    lesions={"oedema": {"S0": _DENSITY["GM"], "T1": (1600.0, 2200.0), "T2": (130.0, 180.0)}},
    source=f"Around the values at 3 T of {_WANSAPURA}; fluid, S0 and lesions are illustrative. The train of pulses is "
    "that of no paper.",
    columns={
        "flip_angle": tuple(
            3.0 + (22.0, 47.0, 67.0)[k // 100] * math.sin(math.pi * (k % 100 + 0.5) / 100) for k in range(REPETITIONS)
        ),
        "TR": tuple(13.0 + 1.5 * math.sin(k / 17) for k in range(REPETITIONS)),
        "TE": (3.0,) * REPETITIONS,
        "TI": (20.0,) * REPETITIONS,
    },
    basis=("mrffisp", 10),
    fields={"B1": "transmit"},
)

# Around the values at 3 T that Sled reviewed (NeuroImage 2018;182:128-135).
_SATURATED: Mapping[str, Ranges] = {
    "WM": {"PSR": (0.12, 0.17), "kmf": (20.0, 30.0), "T2m": (10.0, 12.0), "T2R1": (0.03, 0.05)},
    "GM": {"PSR": (0.05, 0.09), "kmf": (25.0, 40.0), "T2m": (9.0, 11.0), "T2R1": (0.04, 0.07)},
    "CSF": {"PSR": (0.00, 0.005), "kmf": (20.0, 40.0), "T2m": (9.0, 11.0), "T2R1": (0.25, 0.45)},
}
_OFFSETS = (1000.0, 1500.0, 2500.0, 4000.0, 7000.0, 12000.0, 20000.0)

_QMT_RAMANI = TissueRecipe(
    tissues={
        tissue: {"S0": _DENSITY[tissue], **ranges, "T1": (1000.0, 1000.0), "R1m": (1.0, 1.0), "B1": (1.0, 1.0)}
        for tissue, ranges in _SATURATED.items()
    },
    lesions={"demyelination": {"S0": _DENSITY["GM"], "PSR": (0.04, 0.07), "T2R1": (0.05, 0.08)}},
    source="Illustrative, white and grey matter around published values at 3 T; T1 of all tissues is that which the "
    "fit holds.",
    columns={"offset": (20000.0,) * 2 + _OFFSETS * 2, "saturation": (0.0,) * 2 + (2.0,) * 7 + (5.0,) * 7},
    snr=200.0,  # as the ratio of the pools needs
    fields={"B1": "transmit"},
)

# White matter around the values that Mao et al. simulate (arXiv:2312.11468); the others are illustrative. The cycle is
# ours, like the paper's in structure: parts that begin with a crushed inversion, whose pulses change in angle (degrees)
# and duration (ms) along straight lines between these nodes. A pulse of 90 degrees lasts a quarter of a ms or more.
_PARTS: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = (
    ((23.0, 80.0, 10.0, 10.0, 66.0), (0.4, 0.1, 0.4, 0.5, 0.45)),
    ((69.0, 10.0, 80.0, 22.0, 10.0), (0.35, 0.5, 0.35, 0.4, 0.35)),
    ((10.0, 10.0, 14.0, 45.0, 22.0), (0.35, 0.5, 0.4, 0.4, 0.45)),
)
PULSES_OF_PART = 200


def _between(nodes: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Values on straight lines between nodes."""
    found = []
    for k in range(n):
        whole, part = divmod(k * (len(nodes) - 1) / (n - 1), 1)
        low, high = nodes[int(whole)], nodes[min(int(whole) + 1, len(nodes) - 1)]
        found.append(low + part * (high - low))
    return tuple(found)


def _cycle() -> dict[str, tuple[float, ...]]:
    """Pulses of the cycle."""
    angles: list[float] = []
    durations: list[float] = []
    for nodes in _PARTS:
        turns, times = (_between(values, PULSES_OF_PART)[1:] for values in nodes)
        angles += [180.0, *turns]
        durations += [0.5, *(max(time, turn / 360) for time, turn in zip(times, turns, strict=True))]
    n = len(angles)
    return {
        "flip_angle": tuple(angles),
        "pulse_duration": tuple(durations),
        "TR": (3.5,) * n,
        "crushed": tuple(float(k % PULSES_OF_PART == 0) for k in range(n)),
    }


_POOLS: Mapping[str, Ranges] = {
    "WM": {"m0s": (0.17, 0.23), "R1f": (0.45, 0.60), "R2f": (11.5, 14.5), "Rx": (14.0, 19.0), "R1s": (2.7, 3.3)},
    "GM": {"m0s": (0.08, 0.12), "R1f": (0.38, 0.48), "R2f": (9.5, 12.0), "Rx": (12.0, 17.0), "R1s": (2.4, 3.0)},
    "CSF": {"m0s": (0.00, 0.005), "R1f": (0.22, 0.28), "R2f": (0.4, 0.8), "Rx": (14.0, 18.0), "R1s": (2.7, 3.3)},
}
_OF_SCANNER: Ranges = {"phase": (0.0, 0.0), "B1": (1.0, 1.0), "f0": (0.0, 0.0)}

_QMT_GBLOCH = TissueRecipe(
    tissues={
        tissue: {"S0": _DENSITY[tissue], **pools, "T2s": (11.5, 13.5), **_OF_SCANNER}
        for tissue, pools in _POOLS.items()
    },
    lesions={"demyelination": {"S0": _DENSITY["GM"], "m0s": (0.08, 0.12), "R1f": (0.38, 0.48), "R2f": (8.0, 10.0)}},
    source="White matter around the values of Mao et al. (arXiv:2312.11468); the rest is illustrative. The cycle of "
    "pulses is that of no paper.",
    columns=_cycle(),
    basis=("qmtgbloch", 15),
    fields={"B1": "transmit", "f0": "resonance"},
    snr=500.0,  # as T2 of the macromolecules needs
)

_ANY_DIRECTION: Ranges = {"direction_polar": (0.0, math.pi / 2), "direction_azimuth": (0.0, 2 * math.pi)}

# Illustrative: white matter is dense and aligned, grey matter sparse and dispersed, as in the maps of Zhang et al.
_NODDI = TissueRecipe(
    tissues={
        "WM": {"S0": (0.25, 0.35), "NDI": (0.50, 0.70), "ODI": (0.05, 0.25), "FISO": (0.00, 0.10), **_ANY_DIRECTION},
        "GM": {"S0": (0.35, 0.50), "NDI": (0.30, 0.45), "ODI": (0.35, 0.60), "FISO": (0.00, 0.15), **_ANY_DIRECTION},
        "CSF": {"S0": (0.80, 1.00), "NDI": (0.10, 0.40), "ODI": (0.40, 0.90), "FISO": (0.90, 1.00), **_ANY_DIRECTION},
    },
    lesions={
        "neurite-loss": {"NDI": (0.25, 0.35)},
        "dispersion": {"ODI": (0.40, 0.55)},
        "oedema": {"S0": (0.35, 0.50), "FISO": (0.30, 0.50)},
    },
    b_values=(0, 0, 0, 0, 0, 0, 0, 0, 1000, 2500),
    n_directions=32,
    source="Illustrative; densities and dispersions as in the maps of Zhang et al. (NeuroImage 2012;61:1000-1016).",
    axis="direction",
)

# Illustrative: mean diffusivities of tissue around 0.7 um^2/ms, as Pierpaoli et al. found them throughout the brain.
_TENSOR: Mapping[str, Ranges] = {
    "WM": {"S0": (0.25, 0.35), "MD": (0.65, 0.85), "FA": (0.35, 0.80), **_ANY_DIRECTION},
    "GM": {"S0": (0.35, 0.50), "MD": (0.70, 0.95), "FA": (0.05, 0.25), **_ANY_DIRECTION},
    "CSF": {"S0": (0.80, 1.00), "MD": (2.70, 3.10), "FA": (0.00, 0.08), **_ANY_DIRECTION},
}
_TENSOR_SOURCE = "Illustrative; mean diffusivities as of Pierpaoli et al. (Radiology 1996;201:637-648)"

_DTI = TissueRecipe(
    tissues=_TENSOR,
    lesions={
        "stroke": {"MD": (0.40, 0.55)},
        "degeneration": {"S0": (0.30, 0.45), "MD": (0.95, 1.15), "FA": (0.15, 0.30)},
        "oedema": {"S0": (0.35, 0.50), "MD": (1.30, 1.70), "FA": (0.10, 0.25)},
    },
    b_values=(0, 0, 0, 0, 1000),
    n_directions=32,
    source=f"{_TENSOR_SOURCE}.",
    axis="direction",
    made="diffusion",
)

# Tissue of the table above; fluid is free water with hardly any tissue.
_FWDTI = TissueRecipe(
    tissues={
        "WM": {**_TENSOR["WM"], "fw": (0.00, 0.10)},
        "GM": {**_TENSOR["GM"], "fw": (0.05, 0.20)},
        "CSF": {**_TENSOR["GM"], "S0": (0.80, 1.00), "fw": (0.90, 1.00)},
    },
    lesions={
        "oedema": {"S0": (0.35, 0.50), "fw": (0.30, 0.50)},
        "degeneration": {"S0": (0.30, 0.45), "MD": (0.95, 1.15), "FA": (0.15, 0.30)},
    },
    b_values=(0, 0, 0, 0, 500, 1500),
    n_directions=32,
    source=f"{_TENSOR_SOURCE}; fractions of free water are illustrative.",
    axis="direction",
    made="diffusion",
)


def _compartments(
    share: tuple[float, float],
    fibres: tuple[tuple[float, float], tuple[float, float]],
    around: tuple[tuple[float, float], tuple[float, float]],
) -> Ranges:
    """Share of fibres, and axial and radial diffusivity of both compartments."""
    of_parts = {"fibre": fibres, "around": around}
    return {"share": share} | {
        f"{part}_{kind}": limits
        for part, pair in of_parts.items()
        for kind, limits in zip(("axial", "radial"), pair, strict=True)
    }


# Illustrative: mean kurtosis is about 1 in white and 0.6 in grey matter, as in the maps of Jensen et al., and next to
# nothing in fluid.
_DKI = TissueRecipe(
    tissues={
        "WM": {
            "S0": (0.25, 0.35),
            **_compartments((0.35, 0.45), ((0.5, 0.8), (0.05, 0.10)), ((2.2, 2.6), (0.6, 0.8))),
            **_ANY_DIRECTION,
        },
        "GM": {
            "S0": (0.35, 0.50),
            **_compartments((0.30, 0.45), ((0.35, 0.50), (0.25, 0.35)), ((1.2, 1.5), (1.0, 1.2))),
            **_ANY_DIRECTION,
        },
        "CSF": {
            "S0": (0.80, 1.00),
            **_compartments((0.00, 0.05), ((2.5, 2.8), (2.5, 2.7)), ((2.8, 3.1), (2.8, 3.0))),
            **_ANY_DIRECTION,
        },
    },
    lesions={
        "stroke": _compartments((0.50, 0.60), ((0.25, 0.40), (0.03, 0.06)), ((1.0, 1.3), (0.5, 0.7))),
        "degeneration": _compartments((0.15, 0.25), ((0.5, 0.8), (0.05, 0.10)), ((1.9, 2.3), (0.9, 1.1))),
    },
    b_values=(0, 0, 0, 0, 1000, 2000),
    n_directions=30,
    source="Illustrative; kurtosis of two compartments, as large as in the maps of Jensen et al. (Magnetic Resonance "
    "in Medicine 2005;53:1432-1440).",
    axis="direction",
    made="kurtosis",
)

# Illustrative, the liver within what Li et al. gathered from many studies (Quantitative Imaging in Medicine and Surgery
# 2017;7:59-78). Signals at b = 0 follow the short T2 of liver and muscle; fat is suppressed.
_ABDOMEN_IVIM = TissueRecipe(
    tissues={
        "liver": {"S0": (0.16, 0.26), "D": (0.9, 1.3), "f": (0.15, 0.30), "Dstar": (40.0, 90.0)},
        "spleen": {"S0": (0.35, 0.50), "D": (0.7, 0.9), "f": (0.08, 0.16), "Dstar": (30.0, 80.0)},
        "kidney": {"S0": (0.35, 0.60), "D": (1.6, 2.1), "f": (0.12, 0.28), "Dstar": (15.0, 40.0)},
        "muscle": {"S0": (0.10, 0.18), "D": (1.2, 1.6), "f": (0.04, 0.12), "Dstar": (15.0, 40.0)},
        "bone": {"S0": (0.08, 0.16), "D": (0.3, 0.6), "f": (0.05, 0.15), "Dstar": (10.0, 30.0)},
        "fluid": {"S0": (0.80, 1.00), "D": (2.6, 3.0), "f": (0.00, 0.02), "Dstar": (10.0, 20.0)},
        "bowel": {"S0": (0.15, 0.50), "D": (1.0, 2.4), "f": (0.05, 0.20), "Dstar": (10.0, 40.0)},
        "fat": {"S0": (0.02, 0.05), "D": (0.1, 0.3), "f": (0.00, 0.05), "Dstar": (5.0, 15.0)},
    },
    lesions={
        "hypoperfused": {"S0": (0.35, 0.50), "D": (0.8, 1.1), "f": (0.03, 0.10), "Dstar": (15.0, 40.0)},
        "hyperperfused": {"S0": (0.30, 0.45), "D": (0.9, 1.3), "f": (0.30, 0.45), "Dstar": (50.0, 90.0)},
    },
    b_values=(0, 0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 400, 600, 800),
    n_directions=3,
    source="Illustrative; liver within what Li et al. gathered (Quantitative Imaging in Medicine and Surgery "
    "2017;7:59-78).",
    host="liver",
)

_ABDOMEN_ADC = TissueRecipe(
    tissues={
        tissue: {name: limits for name, limits in ranges.items() if name in ("S0", "D")}
        for tissue, ranges in _ABDOMEN_IVIM.tissues.items()
    },
    lesions={name: {key: r[key] for key in ("S0", "D")} for name, r in _ABDOMEN_IVIM.lesions.items()},
    b_values=(0, 0, 50, 400, 800),
    n_directions=3,
    source=f"S0 and D of the phantom of ivim. {_ABDOMEN_IVIM.source}",
    host="liver",
)

#: Models that have a phantom.
RECIPES: Mapping[str, TissueRecipe] = {
    "adc": _ADC,
    "dki": _DKI,
    "dti": _DTI,
    "fwdti": _FWDTI,
    "ivim": _IVIM,
    "noddi": _NODDI,
    "qmtgbloch": _QMT_GBLOCH,
    "qmtramani": _QMT_RAMANI,
    "sirqmt": _SIR_QMT,
    "smt2": _SMT2,
    "smt3": _SMT3,
    "mp2rage": _MP2RAGE,
    "mrffisp": _MRF_FISP,
    "t1ir": _T1_IR,
    "t1vfa": _T1_VFA,
    "t2": _T2,
    "t2star": _T2STAR,
}
ABDOMEN_RECIPES: Mapping[str, TissueRecipe] = {"adc": _ABDOMEN_ADC, "ivim": _ABDOMEN_IVIM}


def recipe(model: str, anatomy: str = "head") -> TissueRecipe:
    """The recipe of a model for the head or the abdomen; raises `UsageError` if it has none."""
    recipes = ABDOMEN_RECIPES if anatomy == "abdomen" else RECIPES
    if model not in recipes:
        raise UsageError(
            f"The model {model!r} has no table of tissues of the {anatomy}, so no phantom. These have: "
            f"{', '.join(recipes)}."
        )
    return recipes[model]
