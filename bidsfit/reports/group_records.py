"""Records of which the page of repeatability and treatment response is made.

They contain the results of `bidsfit.statistics`, in the units of reports (diffusivities in 10^-3 mm^2/s), with their
names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bidsfit.statistics.comparison import DetectionComparison, EstimatorComparison
from bidsfit.statistics.limits import ChangeLimits, Method
from bidsfit.statistics.multiplicity import Correction
from bidsfit.statistics.normative import NormativeScores
from bidsfit.statistics.precision import Correlation
from bidsfit.statistics.repeatability import Repeatability
from bidsfit.statistics.response import ChangeCalls, CohortResponse, DifferenceInChange

#: Limits of change in the order in which they are shown; by the first of them participants are called changed.
METHODS: tuple[Method, ...] = ("student", "normal")


@dataclass(frozen=True)
class Change:
    """Two scans of one participant.

    Attributes
    ----------
    participant : str
        With its prefix (sub-01).
    sessions : tuple of str
        Labels of the two sessions.
    before, after, change, mean : float
        ``change`` is after minus before. NaN if a value is missing.
    called_by : frozenset of str
        Methods whose limits of change are exceeded.
    p_value : float
        Test of no change, with the variance of the repeated scans; NaN if it was not tested.
    """

    participant: str
    sessions: tuple[str, str]
    before: float
    after: float
    change: float
    mean: float
    called_by: frozenset[Method] = frozenset()
    p_value: float = math.nan

    @property
    def known(self) -> bool:
        return math.isfinite(self.change)


def changes_of(
    participants: Sequence[str],
    sessions: Sequence[tuple[str, str]],
    before: ArrayLike,
    after: ArrayLike,
    calls: Sequence[ChangeCalls] = (),
) -> tuple[Change, ...]:
    """Make the changes of several participants.

    Parameters
    ----------
    participants : sequence of str
    sessions : sequence of (str, str)
    before, after : array_like, shape (n_participants,)
    calls : sequence of ChangeCalls
        Calls of the same participants in the same order, one for each method of limits; empty for repeated scans.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    return tuple(
        Change(
            participant=name,
            sessions=sessions[i],
            before=float(first[i]),
            after=float(second[i]),
            change=float(second[i] - first[i]),
            mean=float((first[i] + second[i]) / 2),
            called_by=frozenset(call.limits.method for call in calls if call.direction[i] in (-1, 1)),
            p_value=float(calls[0].p_value[i]) if calls else math.nan,
        )
        for i, name in enumerate(participants)
    )


@dataclass(frozen=True)
class CohortRecord:
    """A cohort, and how its participants were selected.

    Attributes
    ----------
    name : str
        Such as "Repeated scans", "Treated", "Healthy".
    n_participants : int
    chosen : str
        Criterion in words: column and value, or rule.
    sessions : str
        Which sessions were used, and how they were ordered, in words.
    """

    name: str
    n_participants: int
    chosen: str
    sessions: str = ""


@dataclass(frozen=True)
class Values:
    """Values of one cohort at one session, for the plot of distributions.

    Attributes
    ----------
    cohort : str
        Label in the plot: "healthy", "treated, before".
    participants : tuple of str
    values : tuple of float
    """

    cohort: str
    participants: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Normative:
    """Comparison of patients with healthy participants.

    Attributes
    ----------
    patients : tuple of str
        In the order of the scores.
    values : tuple of float
    scores : NormativeScores
    """

    patients: tuple[str, ...]
    values: tuple[float, ...]
    scores: NormativeScores


@dataclass(frozen=True)
class EstimatorRecord:
    """Results for one parameter in one region by one estimator.

    What could not be computed is None; `missing` gives the reason.

    Attributes
    ----------
    estimator : str
    repeats : tuple of Change
        Repeated scans; for participants with more than two, the first and the last with a value.
    treated : tuple of Change
    repeatability : Repeatability or None
    limits : tuple of ChangeLimits
        In the order of `METHODS`; empty without repeatability.
    calls : tuple of ChangeCalls
        One for each of the limits; empty without treated participants.
    response : CohortResponse or None
    against : DifferenceInChange or None
        Response minus the change of untreated participants with repeated scans.
    adjusted_p_value, adjusted_wilcoxon_p_value : float
        After the correction given in `GroupRecord`; NaN without a response.
    distributions : tuple of Values
    normative : Normative or None
    trained_on : tuple of str
        Participants of these cohorts whose data the estimator was trained on.
    expected_response, expected_bias : float
        Change of the mean estimate per true change, and bias, by simulation of the estimator: medians over the images;
        NaN if unknown.
    more : mapping of str to object
        Results of `GROUP_STATISTICS`, by name.
    remarks, warnings, missing : tuple of str
        Sentences.
    """

    estimator: str
    repeats: tuple[Change, ...] = ()
    treated: tuple[Change, ...] = ()
    repeatability: Repeatability | None = None
    limits: tuple[ChangeLimits, ...] = ()
    calls: tuple[ChangeCalls, ...] = ()
    response: CohortResponse | None = None
    against: DifferenceInChange | None = None
    adjusted_p_value: float = math.nan
    adjusted_wilcoxon_p_value: float = math.nan
    distributions: tuple[Values, ...] = ()
    normative: Normative | None = None
    trained_on: tuple[str, ...] = ()
    expected_response: float = math.nan
    expected_bias: float = math.nan
    more: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParameterRecord:
    """Results for one parameter in one region by all estimators.

    Attributes
    ----------
    name, latex, unit, description : str
        As in the participant's report; the unit is empty for fractions.
    estimators : tuple of EstimatorRecord
    detections : mapping of method of the limits to DetectionComparison
        Comparison of the calls of change between estimators.
    precision : EstimatorComparison or None
        Comparison of the parameter-to-noise ratios of the participants between estimators.
    warnings : tuple of str
        Sentences about all estimators.
    """

    name: str
    latex: str
    unit: str
    description: str
    estimators: tuple[EstimatorRecord, ...]
    detections: Mapping[Method, DetectionComparison] = field(default_factory=dict)
    precision: EstimatorComparison | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confounding:
    """Rank correlation of two parameters by one estimator, such as D* and f.

    Attributes
    ----------
    estimator : str
    latex : tuple of str
        Symbols of the two parameters.
    across : Correlation or None
        Across participants.
    within, within_lower, within_upper : float
        Across the voxels of a participant: median and quartiles over participants.
    n_within : int
        Number of participants with a known correlation across voxels.
    """

    estimator: str
    latex: tuple[str, str]
    across: Correlation | None = None
    within: float = math.nan
    within_lower: float = math.nan
    within_upper: float = math.nan
    n_within: int = 0


@dataclass(frozen=True)
class RegionRecord:
    """Results for one model in one region.

    Attributes
    ----------
    model, model_title, region : str
    parameters : tuple of ParameterRecord
    confounding : tuple of Confounding
    series : str
        Entities of the images, if a session has several; else empty.
    warnings : tuple of str
        Sentences about the whole region.
    """

    model: str
    model_title: str
    region: str
    parameters: tuple[ParameterRecord, ...]
    confounding: tuple[Confounding, ...] = ()
    series: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRecord:
    """A distribution of parameters on which estimators were trained.

    Attributes
    ----------
    title : str
    figure : path
        PNG file.
    words : str
        Participants, voxels and estimator of the fits in the distribution.
    """

    title: str
    figure: Path | str
    words: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Something that was excluded.

    Attributes
    ----------
    what : str
        Such as a participant, or a participant's session and region.
    where : str
        Part of the analysis from which it was excluded.
    reason : str
    """

    what: str
    where: str
    reason: str


@dataclass(frozen=True)
class GroupRecord:
    """The content of the page.

    Attributes
    ----------
    cohorts : tuple of CohortRecord
    regions : tuple of RegionRecord
    statistic : str
        Statistic over the voxels of a region: "median".
    correction : {"holm", "benjamini-hochberg", "none"}
        Correction of the p-values of responses for multiple tests.
    n_corrected : int
        Number of tests in the correction: parameters and regions of an estimator.
    training : tuple of TrainingRecord
    left_out : tuple of LeftOut
    warnings : tuple of str
        Sentences about the whole study.
    methods : str
        Paragraphs with citations ``[@key]`` and equations ``$...$``.
    tables : mapping of path to str
        Tables written with the page, and their descriptions.
    title : str
    """

    cohorts: tuple[CohortRecord, ...]
    regions: tuple[RegionRecord, ...]
    statistic: str = "median"
    correction: Correction = "holm"
    n_corrected: int = 0
    training: tuple[TrainingRecord, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    methods: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    title: str = "Repeatability and treatment response"
