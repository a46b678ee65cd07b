"""Flags: what makes the estimate of a voxel doubtful, one bit for each reason."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, Status
from bidsfit.quantity import Quantity
from bidsfit.trust.performance import Expected

FLAGS = Quantity(
    key="flags",
    title="Flags",
    description="Reasons to doubt the estimate of a voxel, the sum of the bits that Levels names ({model.title};"
    " {estimator.title}).",
    unit="1",
    colours=None,
)

#: The larger of two scores is flagged beyond so many standard deviations: a probability of 0.001 under the model.
MISFIT = 3.29
#: The response is low below this share of a true change, and a signal faint below this SNR.
LOW_RESPONSE, LOW_SNR = 0.7, 5.0
#: A parameter is called biased where it is in more than this share of the truths that the estimate may come from.
BIASED_TRUTHS = 0.7


class Flag(IntFlag):
    """Reason to doubt an estimate. The message describes it and says what to do."""

    message: str

    def __new__(cls, value: int, message: str = "") -> Flag:
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    MISFIT = (
        1,
        "the signals lie farther from the model than the noise explains (p < 0.001): another tissue, motion, an "
        "artefact or a corrupted volume; look at the signals",
    )
    OUTSIDE_TRAINING = (
        2,
        "no signal of the training looks like this one: the estimate is a guess towards the training, and what is "
        "said of its errors does not hold; use an estimator that was not trained",
    )
    AT_BOUND = 4, "a parameter lies at its bound, or beyond: read its value as a limit"
    UNDETERMINED = 8, "the data do not determine a parameter: do not read it"
    LOW_RESPONSE = (
        16,
        "less than 70 % of a true change of a parameter shows in its estimate: differences between tissues and changes "
        "over time are larger than the map shows",
    )
    BIASED = (
        32,
        "in more than 70 % of the truths that the estimate of a parameter may come from, its bias is larger than half "
        "its standard deviation: averaging over voxels does not remove it",
    )
    LOW_SNR = 64, "the SNR of S0 in one measurement is below 5: the noise floor shapes the signals"


def flags(
    estimator: Estimator,
    estimate: Estimate,
    expected: Expected,
    sigma: NDArray[np.float64],
    outside: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Flags of every voxel, the sum of its bits; 0 where there is none, and where nothing was fitted.

    Parameters
    ----------
    estimator : Estimator
    estimate : Estimate
        Of rows of voxels, shape (n,).
    expected : Expected
        At the estimate.
    sigma : ndarray, shape (n,)
        Standard deviation of the noise of one measurement.
    outside : ndarray of bool, shape (n,), optional
        Where the signals are unlike the training.
    """
    model, status = estimator.model, estimate.status
    own = list(expected.lower)
    with np.errstate(invalid="ignore", divide="ignore"):
        s0 = 1.0 if model.scale is None else estimate.parameters[model.scale]
        faint = s0 / sigma < LOW_SNR
        biased = np.any([expected.biased[name] > BIASED_TRUTHS for name in own], axis=0)
        response = np.diagonal(expected.response, axis1=1, axis2=2)
        raised = {
            Flag.MISFIT: expected.misfit > MISFIT,
            Flag.OUTSIDE_TRAINING: status == Status.UNLIKE_TRAINING,
            Flag.AT_BOUND: np.isin(status, (Status.AT_BOUND, Status.OUTSIDE_BOUNDS)),
            Flag.UNDETERMINED: status == Status.UNDETERMINED,
            Flag.LOW_RESPONSE: (response < LOW_RESPONSE).any(axis=1),
            Flag.BIASED: biased,
            Flag.LOW_SNR: faint,
        }
    if outside is not None:
        raised[Flag.OUTSIDE_TRAINING] = raised[Flag.OUTSIDE_TRAINING] | outside
    found = sum(np.where(where, np.uint8(flag), np.uint8(0)) for flag, where in raised.items())
    return np.where(np.isin(status, FITTED), found, 0).astype(np.uint8)
