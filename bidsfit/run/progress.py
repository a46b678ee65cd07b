"""Progress of a run: a line for every image, and a report for every participant when its images are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bidsfit.planning.plan import ParticipantPlan
from bidsfit.run.scheduler import Finished
from bidsfit.workflows.participant import image_part


class Progress:
    """Prints a line for every finished image, and reports participants that are complete.

    Parameters
    ----------
    say : callable
        Called with a line of text.
    complete : callable
        Called with the plan of a participant whose images are all finished.
    """

    def __init__(
        self,
        plans: Sequence[ParticipantPlan],
        say: Callable[[str], None],
        complete: Callable[[ParticipantPlan], None],
    ) -> None:
        self.say, self.complete = say, complete
        self.names = {image_part(image): image.image.title for plan in plans for image in plan.images}
        self.left = {plan.label: {image_part(image) for image in plan.images} for plan in plans}
        self.plans = {part: plan for plan in plans for part in map(image_part, plan.images)}
        self.start = time.monotonic()
        self.n_finished = self.n_worked = 0

    def __call__(self, part: Finished) -> None:
        """Record a finished image."""
        self.n_finished += 1
        self.n_worked += part.worked
        n = len(self.names)
        verb = "failed" if part.failed else "done" if part.worked else "was done before"
        where = f" ({self.n_finished} of {n} images{self._time_left()})" if n > 1 else ""
        self.say(f"{self.names[part.name]}: {verb}{where}")
        plan = self.plans[part.name]
        self.left[plan.label].remove(part.name)
        if not self.left[plan.label]:
            self.complete(plan)

    def _time_left(self) -> str:
        """Estimate of the remaining time from that of finished images; empty if unknown."""
        n_left = len(self.names) - self.n_finished
        if not n_left or not self.n_worked:
            return ""
        return f", about {duration((time.monotonic() - self.start) / self.n_worked * n_left)} left"


def duration(seconds: float) -> str:
    """A rounded time as text.

    Examples
    --------
    >>> duration(42), duration(700), duration(9000)
    ('40 s', '12 min', '2 h 30 min')
    """
    if seconds < 95:
        return f"{max(round(seconds, -1), 10):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
