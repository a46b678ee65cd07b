"""Values of a cohort arranged according to its design, and notes about the fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.fitted import FitFacts, FittedImage, settings_that_differ
from bidsfit.bids.inputs import InputProblem
from bidsfit.cohort.design import Design
from bidsfit.cohort.region_values import ParticipantValues, RegionValues
from bidsfit.statistics.precision import FEWEST_VOXELS

#: Model and estimator.
FitName = tuple[str, str]


@dataclass
class FitNotes:
    """How the fits of a study were made.

    Attributes
    ----------
    differing : dict of FitName to set of str
        Settings that differ between fits of one model by one estimator.
    trained_on : dict of FitName to set of str
        Trained estimators.
    trained : set of FitName
        Of estimators that were trained.
    versions : set of str
        Versions of bidsfit.
    problems : list of InputProblem
        What could not be read or found.
    """

    differing: dict[FitName, set[str]] = field(default_factory=dict)
    trained_on: dict[FitName, set[str]] = field(default_factory=dict)
    trained: set[FitName] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    problems: list[InputProblem] = field(default_factory=list)
    _first: dict[tuple[FitName, str], FitFacts] = field(default_factory=dict)

    def rows(self, people: Iterable[ParticipantValues]) -> Iterator[RegionValues]:
        """Pass on the values of all participants, noting how their fits were made."""
        for person in people:
            self.problems += person.problems
            for fitted, facts in person.facts:
                self._note(fitted, facts)
            yield from person.rows

    def _note(self, fitted: FittedImage, facts: FitFacts) -> None:
        name = fitted.model, facts.estimator
        left_out = "" if facts.training is None else facts.training.left_out
        earlier = [self._first.setdefault((name, group), facts) for group in dict.fromkeys(("", left_out))]
        if different := settings_that_differ([*earlier, facts]):
            self.differing.setdefault(name, set()).update(different)
        if facts.version:
            self.versions.add(facts.version)
        if facts.training is not None:
            self.trained.add(name)
            if facts.training.holds(fitted.participant):
                self.trained_on.setdefault(name, set()).add(fitted.participant)


@dataclass
class VoxelCounts:
    """Numbers of voxels of all participants, and of those whose estimate carries little information."""

    used: int = 0
    at_bound: int = 0
    prior_only: int = 0
    unlike_training: int = 0
    undetermined: int = 0

    def add(self, row: RegionValues) -> None:
        self.used += row.n_used
        self.at_bound += row.n_at_bound
        self.prior_only += row.n_prior_only
        self.unlike_training += row.n_unlike_training
        self.undetermined += row.n_undetermined

    def share(self, count: int) -> float:
        """A count as a fraction of the used voxels."""
        return count / self.used if self.used else 0.0


class RegionParameter(NamedTuple):
    """What values are compared for: a parameter of a fit, in a region of comparable images."""

    model: str
    estimator: str
    region: str
    parameter: str
    unit: str
    series: str


@dataclass(frozen=True)
class Arranged:
    """Values in the order of a design, in internal units; NaN if missing.

    Attributes
    ----------
    repeats : ndarray, shape (n_repeated, n_sessions)
        One row per entry of `Design.repeatability`, padded with NaN at the end.
    change : ndarray, shape (n_treated, 2)
        Before and after, one row per entry of `Design.treatment`.
    healthy, patients : ndarray, shape (n,)
        First session of each of `Design.healthy` and `Design.patients`.
    """

    what: RegionParameter
    repeats: NDArray[np.float64]
    change: NDArray[np.float64]
    healthy: NDArray[np.float64]
    patients: NDArray[np.float64]


@dataclass
class CohortValues:
    """Values of a cohort arranged for the statistics, and other quantities of the rows.

    Rows are processed as a stream; only the values needed are kept.

    Attributes
    ----------
    column : str
        Column that is compared: "median", "mean", a quantile, "sd", "correlation".
    precision : dict of RegionParameter to dict of participant to float
        Parameter-to-noise ratio at the first session: mean over standard deviation of the voxels.
    correlation : dict of RegionParameter to dict of participant to float
        Rank correlation over the voxels at the first session with the parameter of the condition.
    first : dict of RegionParameter to dict of participant to float
        Compared value at the first session.
    voxels : dict of RegionParameter to VoxelCounts
        Counts over all sessions.
    expected : dict of RegionParameter to list of (float, float)
        Response and expected bias of the estimator in every image where they are known.
    """

    design: Design
    column: str = "median"
    first: dict[RegionParameter, dict[str, float]] = field(default_factory=dict)
    precision: dict[RegionParameter, dict[str, float]] = field(default_factory=dict)
    correlation: dict[RegionParameter, dict[str, float]] = field(default_factory=dict)
    voxels: dict[RegionParameter, VoxelCounts] = field(default_factory=dict)
    expected: dict[RegionParameter, list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables: dict[RegionParameter, tuple[NDArray[np.float64], ...]] = {}
        self._places: dict[tuple[str, str], list[tuple[int, tuple[int, ...]]]] = {}
        for table, place, participant, session in _slots(self.design):
            self._places.setdefault((participant, session), []).append((table, place))
        self._members = frozenset(members(self.design))

    def watch(self, rows: Iterable[RegionValues]) -> Iterator[RegionValues]:
        """Pass rows on, collecting the values that the design needs."""
        baseline = self.design.baseline or {}
        for row in rows:
            if row.participant in self._members:
                what = RegionParameter(row.model, row.estimator, row.region, row.parameter, row.unit, row.series)
                self.voxels.setdefault(what, VoxelCounts()).add(row)
                if math.isfinite(row.response):
                    self.expected.setdefault(what, []).append((row.response, row.expected_bias))
                self._arrange(what, row)
                if baseline.get(row.participant) == row.session:
                    self._note(what, row)
            yield row

    @property
    def arranged(self) -> list[Arranged]:
        """Values of the rows so far, in order of appearance, without those that the design does not use."""
        return [Arranged(what, *tables) for what, tables in self._tables.items()]

    def _arrange(self, what: RegionParameter, row: RegionValues) -> None:
        places = self._places.get((row.participant, row.session), ())
        if places and what not in self._tables:
            design = self.design
            most = max((len(one.sessions) for one in design.repeatability), default=2)
            shapes = (
                (len(design.repeatability), most),
                (len(design.treatment), 2),
                len(design.healthy),
                len(design.patients),
            )
            self._tables[what] = tuple(np.full(shape, np.nan) for shape in shapes)
        for table, place in places:
            self._tables[what][table][place] = getattr(row, self.column)

    def _note(self, what: RegionParameter, row: RegionValues) -> None:
        self.first.setdefault(what, {})[row.participant] = getattr(row, self.column)
        if row.n_used >= FEWEST_VOXELS and row.sd > 0:
            self.precision.setdefault(what, {})[row.participant] = row.mean / row.sd
        if math.isfinite(row.correlation):
            self.correlation.setdefault(what, {})[row.participant] = row.correlation


def members(design: Design) -> list[str]:
    """Sorted labels of everyone whose values are compared."""
    scanned = {one.participant for one in design.repeatability} | {one.participant for one in design.treatment}
    return sorted(scanned.union(design.healthy, design.patients))


def _slots(design: Design) -> Iterator[tuple[int, tuple[int, ...], str, str]]:
    """Table, index, participant and session of every value of a design."""
    for i, repeats in enumerate(design.repeatability):
        yield from ((0, (i, j), repeats.participant, session) for j, session in enumerate(repeats.sessions))
    for i, pair in enumerate(design.treatment):
        yield from ((1, (i, j), pair.participant, session) for j, session in enumerate((pair.first, pair.second)))
    for table, labels in ((2, design.healthy), (3, design.patients)):
        yield from ((table, (i,), label, (design.baseline or {}).get(label, "")) for i, label in enumerate(labels))


def missing_values(arranged: Sequence[Arranged], design: Design) -> list[InputProblem]:
    """Problems: values of a region, or of some of its parameters, that a participant lacks and others have."""
    slots = list(_slots(design))
    every: dict[tuple[str, str], set[RegionParameter]] = {}
    lacking: dict[tuple[str, str, str, str], set[RegionParameter]] = {}
    for one in arranged:
        where = one.what.region, one.what.series
        every.setdefault(where, set()).add(one.what)
        tables = (one.repeats, one.change, one.healthy, one.patients)
        known = [bool(np.isfinite(table).any()) for table in tables]
        for table, place, who, session in slots:
            if known[table] and np.isnan(tables[table][place]):
                lacking.setdefault((who, session, *where), set()).add(one.what)
    problems = []
    for (who, session, region, series), quantities in sorted(lacking.items()):
        images = (f" in ses-{session}" if session else "") + (f" ({series})" if series else "")
        words = "no values"
        if len(quantities) < len(every[region, series]):
            fits = sorted({f"{what.parameter} by {what.estimator} ({what.model})" for what in quantities})
            words = f"no values of {', '.join(fits)}"
        problems.append(InputProblem(who, f"{words} in the region {region}{images}"))
    return problems
