"""Variation of participants, sessions and treatment. Settings only, so that a command line imports them fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from bidsfit.exceptions import UnknownNameError, UsageError

#: Coefficients of variation above it leave hardly anybody within the bounds of a model.
MAXIMUM_VARIATION = 0.5

#: Sessions of those who are scanned again, treated or not.
REPEATED = 2


@dataclass(frozen=True)
class Study:
    """A simulated study of repeatability and treatment response.

    A true value is that of the tissue times a factor of the participant, a factor of the session and, in the treated
    region after the treatment, that of the treatment. Factors of participants and sessions are log-normal with mean 1,
    independent for each parameter, and act on the whole head.

    If values before a treatment have mean m, the within-subject standard deviation of the truth is thus ``m * within *
    sqrt(1 + between**2)``.

    Parameters
    ----------
    n_retest : int
        Participants with a lesion, scanned twice without a treatment.
    n_treated : int
        Participants with a lesion, scanned before and after its treatment.
    between, within : mapping of str to float
        Coefficients of variation between participants, and between sessions of one, by parameter: 0.1 is 10 %. Others
        do not vary.
    effect : mapping of str to float
        Relative change by the treatment, by parameter: -0.2 is 20 % less.

    Raises
    ------
    UsageError
        If a number is invalid.
    """

    n_retest: int = 0
    n_treated: int = 0
    between: Mapping[str, float] = field(default_factory=dict)
    within: Mapping[str, float] = field(default_factory=dict)
    effect: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n_retest < 0 or self.n_treated < 0:
            raise UsageError("Numbers of participants cannot be negative.")
        for words, variation in (("between participants", self.between), ("within participants", self.within)):
            for parameter, amount in variation.items():
                if not 0 <= amount <= MAXIMUM_VARIATION:  # NaN is not either
                    raise UsageError(
                        f"The variation of {parameter} {words} must be 0 to {100 * MAXIMUM_VARIATION:g} %, "
                        f"found {100 * amount:g} %."
                    )
        for parameter, amount in self.effect.items():
            if not (isfinite(amount) and amount > -1):
                raise UsageError(
                    f"The effect of the treatment on {parameter} must be above -100 %, found {100 * amount:g} %."
                )
        if self.effect and self.n_treated == 0:
            raise UsageError("An effect of a treatment needs treated participants, found none.")

    @property
    def repeats(self) -> bool:
        """Whether anyone is scanned twice."""
        return self.n_retest + self.n_treated > 0

    def require_parameters(self, known: Iterable[str]) -> None:
        """Raise `UnknownNameError` for parameters that cannot vary."""
        known = list(known)
        for parameter in (*self.between, *self.within, *self.effect):
            if parameter not in known:
                raise UnknownNameError("parameter that can vary", parameter, known)


class Amounts(NamedTuple):
    """Variation of one parameter between and within participants, and its response; see `Study`."""

    between: float
    within: float
    effect: float


#: Illustrative, from no measurement: with these about half of the treated change by more than two scans of a
#: participant differ, so that a better estimator finds more of them.
AMOUNTS = {
    "D": Amounts(0.15, 0.05, 0.15),
    "f": Amounts(0.20, 0.10, 0.30),
    "Dstar": Amounts(0.20, 0.15, 0.0),
    "vcyl": Amounts(0.12, 0.05, -0.15),
    "vcsf": Amounts(0.12, 0.05, 0.0),
    "lambda": Amounts(0.10, 0.04, 0.12),
    "T1": Amounts(0.05, 0.02, -0.08),
    "inversion": Amounts(0.01, 0.005, 0.0),
    "PSR": Amounts(0.10, 0.03, -0.15),
    "m0s": Amounts(0.10, 0.03, -0.15),
    "R1f": Amounts(0.05, 0.02, 0.08),
    "R2f": Amounts(0.06, 0.02, 0.08),
    "Rx": Amounts(0.10, 0.05, 0.0),
    "R1s": Amounts(0.05, 0.02, 0.0),
    "T2s": Amounts(0.05, 0.02, 0.0),
    "kmf": Amounts(0.10, 0.05, 0.0),
    "T2m": Amounts(0.05, 0.02, 0.0),
    "T2R1": Amounts(0.06, 0.03, 0.0),
    "T2": Amounts(0.06, 0.02, -0.08),
    "T2star": Amounts(0.08, 0.03, 0.10),
    "NDI": Amounts(0.12, 0.05, -0.15),
    "ODI": Amounts(0.12, 0.05, 0.15),
    "FISO": Amounts(0.12, 0.05, 0.0),
}


def repeatability(parameters: Iterable[str]) -> Study:
    """A study of the size of that of pancreatic cancer by Kaandorp et al. [1]_: 14 retest pairs and 9 treated.

    Parameters
    ----------
    parameters : iterable of str
        Parameters of the model, of which those in `AMOUNTS` vary.

    References
    ----------
    .. [1] Kaandorp MPT, Barbieri S, Klaassen R, et al. Improved unsupervised physics-informed deep learning for
       intravoxel incoherent motion modeling and evaluation in pancreatic cancer patients. Magnetic Resonance in
       Medicine 2021;86:2250-2265.
    """
    amounts = {name: AMOUNTS[name] for name in parameters if name in AMOUNTS}
    return Study(
        n_retest=14,
        n_treated=9,
        between={name: amount.between for name, amount in amounts.items()},
        within={name: amount.within for name, amount in amounts.items()},
        effect={name: amount.effect for name, amount in amounts.items()},
    )


#: Studies that have a name, as functions of the parameters of the model.
STUDIES = {"repeatability": repeatability}
