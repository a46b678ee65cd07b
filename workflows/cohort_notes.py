"""What is noted of fits while their values in regions are read: how they were made, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bidsfit.bids.design import Design, What
from bidsfit.bids.fitted import FitFacts, FittedImage, settings_that_differ
from bidsfit.bids.inputs import Problem
from bidsfit.bids.region_values import ParticipantValues, RegionValues
from bidsfit.statistics.precision import FEWEST_VOXELS

#: Model and estimator.
FitName = tuple[str, str]


@dataclass
class FitNotes:
    """How the fits of a study were made; memory grows with the number of participants only by their names.

    Attributes
    ----------
    differing : dict of FitName to set of str
        Settings in which fits of one model by one estimator differ.
    trained_on : dict of FitName to set of str
        Participants with maps (labels without ``sub-``) whose own fits the estimator was trained on.
    trained : set of FitName
        Of estimators that were trained.
    versions : set of str
        Of bidsfit.
    problems : list of Problem
        What could not be read or found.
    """

    differing: dict[FitName, set[str]] = field(default_factory=dict)
    trained_on: dict[FitName, set[str]] = field(default_factory=dict)
    trained: set[FitName] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _first: dict[FitName, FitFacts] = field(default_factory=dict)

    def rows(self, people: Iterable[ParticipantValues]) -> Iterator[RegionValues]:
        """Pass the values of all participants on, and note how their fits were made."""
        for person in people:
            self.problems += person.problems
            for fitted, facts in person.facts:
                self._note(fitted, facts)
            yield from person.rows

    def _note(self, fitted: FittedImage, facts: FitFacts) -> None:
        name = fitted.model, facts.estimator
        first = self._first.setdefault(name, facts)
        if different := settings_that_differ([first, facts]):
            self.differing.setdefault(name, set()).update(different)
        if facts.version:
            self.versions.add(facts.version)
        if facts.training is not None:
            self.trained.add(name)
            if facts.training.holds(fitted.participant):
                self.trained_on.setdefault(name, set()).add(fitted.participant)


@dataclass
class VoxelCounts:
    """Voxels of all participants, and of how many the estimate says little."""

    used: int = 0
    at_bound: int = 0
    prior_only: int = 0
    unlike_training: int = 0

    def add(self, row: RegionValues) -> None:
        self.used += row.n_used
        self.at_bound += row.n_at_bound
        self.prior_only += row.n_prior_only
        self.unlike_training += row.n_unlike_training

    def share(self, count: int) -> float:
        """A count as a share of the voxels that are used."""
        return count / self.used if self.used else 0.0


@dataclass
class ValueNotes:
    """What the first session of everyone in a design says beside the value itself.

    Attributes
    ----------
    precision : dict of What to dict of participant to float
        Parameter-to-noise ratio: mean over standard deviation of the voxels.
    correlation : dict of What to dict of participant to float
        Rank correlation over the voxels with the parameter that the condition names.
    values : dict of What to dict of participant to float
        Of the column that is compared.
    voxels : dict of What to VoxelCounts
        Of all sessions.
    """

    design: Design
    column: str = "median"
    values: dict[What, dict[str, float]] = field(default_factory=dict)
    precision: dict[What, dict[str, float]] = field(default_factory=dict)
    correlation: dict[What, dict[str, float]] = field(default_factory=dict)
    voxels: dict[What, VoxelCounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._members = frozenset(members(self.design))

    def watch(self, rows: Iterable[RegionValues]) -> Iterator[RegionValues]:
        """Pass rows on, and note what they say."""
        baseline = self.design.baseline or {}
        for row in rows:
            if row.participant in self._members:
                what = What(row.model, row.estimator, row.region, row.parameter, row.unit, row.series)
                self.voxels.setdefault(what, VoxelCounts()).add(row)
                if baseline.get(row.participant) == row.session:
                    self._note(what, row)
            yield row

    def _note(self, what: What, row: RegionValues) -> None:
        self.values.setdefault(what, {})[row.participant] = getattr(row, self.column)
        if row.n_used >= FEWEST_VOXELS and row.sd > 0:
            self.precision.setdefault(what, {})[row.participant] = row.mean / row.sd
        if math.isfinite(row.correlation):
            self.correlation.setdefault(what, {})[row.participant] = row.correlation


def members(design: Design) -> list[str]:
    """Everyone whose values are compared, sorted."""
    scanned = {one.participant for one in design.repeatability} | {one.participant for one in design.treatment}
    return sorted(scanned.union(design.healthy, design.patients))
