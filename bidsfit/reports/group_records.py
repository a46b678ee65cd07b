"""What the page of repeatability and treatment response is made of.

The numbers are computed elsewhere: a record carries the results of `bidsfit.statistics` as they are, in the units of
reports (diffusivities in 10^-3 mm^2/s), with the names that belong to them.
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
        Change: after minus before. NaN where a value is missing.
    called_by : frozenset of str
        Methods of those limits that the change lies beyond.
    p_value : float
        Of no change, from the repeated scans; NaN where it was not tested.
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
    """Changes of several participants.

    Parameters
    ----------
    participants : sequence of str
    sessions : sequence of (str, str)
    before, after : array_like, shape (n_participants,)
    calls : sequence of ChangeCalls
        Of these participants in this order, one for each kind of limits; none for repeated scans.
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
    """Participants that belong together, and how they were chosen.

    Attributes
    ----------
    name : str
        Such as "Repeated scans", "Treated", "Healthy".
    n_participants : int
    chosen : str
        Words: the column and value, or the rule.
    sessions : str
        Words: which sessions, and how they were put in order.
    """

    name: str
    n_participants: int
    chosen: str
    sessions: str = ""


@dataclass(frozen=True)
class Values:
    """Values of one cohort at one session, for the distributions.

    Attributes
    ----------
    cohort : str
        As it is read beside its strip: "healthy", "treated, before".
    participants : tuple of str
    values : tuple of float
    """

    cohort: str
    participants: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Normative:
    """Patients against the healthy participants.

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
    """One parameter in one region by one estimator. What could not be computed is None, and `missing` says why.

    Attributes
    ----------
    estimator : str
    repeats : tuple of Change
        Repeated scans; of participants with more than two, any two.
    treated : tuple of Change
    repeatability : Repeatability or None
    limits : tuple of ChangeLimits
        In the order of `METHODS`; empty without repeatability.
    calls : tuple of ChangeCalls
        One for each of the limits; empty where nobody was treated.
    response : CohortResponse or None
    against : DifferenceInChange or None
        The response against the change of those repeated scans whose participants were not treated.
    adjusted_p_value, adjusted_wilcoxon_p_value : float
        After the correction that the `GroupRecord` names; NaN without a response.
    distributions : tuple of Values
    normative : Normative or None
    trained_on : tuple of str
        Participants of these cohorts that are in the pool that the estimator was trained on.
    more : mapping of str to object
        What `GROUP_STATISTICS` computed, by name.
    remarks : tuple of str
        What a reader of these must know, a sentence each.
    warnings, missing : tuple of str
        A sentence each.
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
    more: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParameterRecord:
    """One parameter in one region by all estimators.

    Attributes
    ----------
    name, latex, unit, description : str
        As in the participant's report; the unit is empty for fractions.
    estimators : tuple of EstimatorRecord
    detections : mapping of method of the limits to DetectionComparison
        Who was called changed, between estimators.
    precision : EstimatorComparison or None
        Parameter-to-noise ratio of each participant, by estimator.
    warnings : tuple of str
        About all estimators at once.
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
        Of the two parameters.
    across : Correlation or None
        Of the participants' values.
    within, within_lower, within_upper : float
        Of the voxels of a participant: median over participants, and quartiles.
    n_within : int
        Participants of whom it is known.
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
    """One model in one region.

    Attributes
    ----------
    model, model_title, region : str
    parameters : tuple of ParameterRecord
    confounding : tuple of Confounding
    series : str
        Entities of the images, where those of a session are several; empty otherwise.
    warnings : tuple of str
        About the region as a whole.
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
    """A distribution that estimators were trained on, with the pool behind it.

    Attributes
    ----------
    title : str
    figure : path
        Of a PNG file.
    words : str
        Which participants and voxels were pooled, and by which estimator.
    """

    title: str
    figure: Path | str
    words: str = ""


@dataclass(frozen=True)
class LeftOut:
    """What is not in the numbers.

    Attributes
    ----------
    what : str
        Such as a participant, or a participant's session and region.
    where : str
        From what it was left out.
    reason : str
    """

    what: str
    where: str
    reason: str


@dataclass(frozen=True)
class GroupRecord:
    """All of the page.

    Attributes
    ----------
    cohorts : tuple of CohortRecord
    regions : tuple of RegionRecord
        In the order in which they are shown.
    statistic : str
        Over the voxels of a region: "median".
    correction : {"holm", "benjamini-hochberg", "none"}
        Of the p-values of responses.
    n_corrected : int
        Tests that the correction is over: parameters and regions of an estimator.
    training : tuple of TrainingRecord
    left_out : tuple of LeftOut
    warnings : tuple of str
        About the study as a whole.
    methods : str
        Paragraphs with citations ``[@key]`` and equations ``$...$``.
    tables : mapping of path to str
        Files written beside the page, and what they hold.
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
