"""Group level: quality of all images, pooled fits of healthy participants, repeatability and treatment response."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from bidsfit import __version__
from bidsfit.bids.anatomy import is_subjects_folder
from bidsfit.bids.conflicts import refuse_earlier_names
from bidsfit.bids.fitted import find_fitted
from bidsfit.bids.inputs import Folder, describes_derivative, open_dataset
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import files_of, is_label, parse_name, participant_labels
from bidsfit.bids.outputs import prepare_dataset
from bidsfit.bids.participants import healthy_participants
from bidsfit.bids.quality import ENDING, TABLE, read_group_table, write_group_table
from bidsfit.exceptions import NoInputError, UnknownParticipantError, UnusableInputError, UsageError
from bidsfit.planning.fits import bounds_of_models
from bidsfit.reports.quality_page import write_quality_page
from bidsfit.run.cohort import CohortChoice, CohortPlan, analyse, describe, plan_cohort
from bidsfit.run.pooling import plan_poolings, pool_fits
from bidsfit.run.reports import say, write_methods, write_overview
from bidsfit.run.settings import Settings

#: So many participants and sessions without maps are named.
MOST_NAMES = 50

#: Packages whose versions the page of repeatability and response states.
PACKAGES = ("numpy", "scipy", "statsmodels", "nibabel")


def run_group(settings: Settings) -> int:
    """Run the group level and return the exit code; raises `BidsfitError` if a request cannot be met."""
    describes_derivative(settings.bids_dir)  # refuses what is no dataset
    if not settings.output_dir.is_dir():
        raise NoInputError(
            f"{settings.output_dir} does not exist: the group level needs what the participant level leaves there. Run "
            f"first: bidsfit {settings.bids_dir} {settings.output_dir} participant --estimators lsq"
        )
    refuse_earlier_names(settings.output_dir, participant_labels(settings.output_dir))
    choice = cohort_choice(settings)
    plan = plan_cohort(settings.bids_dir, settings.output_dir, choice) if choice.asked else None
    for words in without_maps(settings):
        say(words)
    quality = report_quality(settings.output_dir, dry_run=settings.dry_run)
    for words in quality:
        say(words)
    asked = settings.healthy or settings.model or settings.participant_label
    failure = None
    try:
        pool_healthy(settings)
    except (UnusableInputError, UsageError) as error:
        if asked and not choice.asked:
            raise
        failure = error
    compared = compare_cohort(settings, choice, plan)
    if failure is not None:
        if not (quality or compared):
            raise failure
        say(f"No fits were pooled. {failure}")
    if not settings.dry_run:
        write_methods(settings.output_dir)
        write_overview(settings.output_dir)
    return 0


def without_maps(settings: Settings) -> list[str]:
    """A message that names the participants and sessions with images and without maps; none if all have some."""
    fitted = {(image.participant, image.session) for image in find_fitted(settings.output_dir, estimators=None)}
    labels = [label.removeprefix("sub-") for label in settings.participant_label]
    scanned = {
        (label, parse_name(path.name).entities.get("ses", ""))
        for label in labels or filter(is_label, participant_labels(settings.bids_dir))
        for path in files_of(settings.bids_dir, label, "dwi")[0]
        if path.name.endswith(("_dwi.nii", "_dwi.nii.gz"))
    }
    missing = [f"sub-{label}{f' ses-{session}' * bool(session)}" for label, session in sorted(scanned - fitted)]
    if not fitted or not missing:
        return []
    more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
    names = f"{', '.join(missing[:MOST_NAMES])}{more}"
    return [f"Without maps, as their runs failed or were not made: {names}. The others are used."]


def cohort_choice(settings: Settings) -> CohortChoice:
    """Options of the comparisons."""
    return CohortChoice(
        repeatability=settings.repeatability,
        treatment=settings.treatment,
        healthy=settings.healthy,
        sessions=settings.sessions,
        condition=settings.condition,
        regions=settings.regions,
        statistic=settings.statistic,
        correction=settings.correction,
        participants=tuple(label.removeprefix("sub-") for label in settings.participant_label),
        session_labels=tuple(label.removeprefix("ses-") for label in settings.session_label),
        models=settings.model,
    )


def compare_cohort(settings: Settings, choice: CohortChoice, plan: CohortPlan | None) -> bool:
    """Compute repeatability and response; return whether there was anything to compare.

    ``plan`` is None if nothing was requested; unreadable files are then only reported.
    """
    if plan is None:
        try:
            plan = plan_cohort(settings.bids_dir, settings.output_dir, choice)
        except (UnusableInputError, UsageError) as error:
            say(f"Repeatability and response: nothing was compared. {error}")
            return False
    if settings.dry_run or plan.empty:
        for words in describe(plan):
            say(words)
        return not plan.empty
    folders = [Folder(name, path) for name, path in (settings.derivatives or {}).items()]
    prepare_dataset(settings.output_dir, Folder("raw", settings.bids_dir), folders)
    for words in analyse(
        plan, settings.output_dir, folders, processes=settings.nprocs, about=about(settings.bids_dir, settings)
    ):
        say(words)
    return True


def about(root: Path, settings: Settings) -> dict[str, Any]:
    """Information about the run for the page, without what differs between equal runs."""
    return {
        "version": __version__,
        "command": settings.command,
        "dataset": read_sidecar(root / "dataset_description.json").get("Name", root.name),
        "software": {package: version(package) for package in PACKAGES},
        "settings": {"Input": str(settings.bids_dir), "Output": str(settings.output_dir)},
    }


def pool_healthy(settings: Settings) -> None:
    """Pool the fits of healthy participants.

    Raises
    ------
    UnusableInputError, UsageError
        If there are no healthy participants, or nothing can be pooled.
    """
    healthy, chosen = healthy_participants(settings.bids_dir, settings.healthy)
    wanted = [label.removeprefix("sub-") for label in settings.participant_label]
    for label in wanted:
        if label not in healthy:
            raise UnknownParticipantError(f"healthy participant ({chosen})", label, healthy)
    labels = sorted(wanted) or healthy
    poolings, left_out = plan_poolings(
        settings.output_dir,
        labels,
        settings.model,
        bounds=bounds_of_models(settings.bounds or {}),
        bids_dir=settings.bids_dir,
    )
    say(f"Healthy ({chosen}): {len(labels)} participant{'s' if len(labels) != 1 else ''}.")
    for words in left_out:
        say(f"  left out, {words}")
    if settings.dry_run:
        for pooling in poolings:
            say(f"{pooling.model.name}: would pool the fits of {', '.join(image.image for image in pooling.images)}.")
        return
    segmentations = [
        Folder(name, path) if is_subjects_folder(path) else open_dataset(path, name, derivative=True)
        for name, path in (settings.derivatives or {}).items()
    ]
    prepare_dataset(settings.output_dir, Folder("raw", settings.bids_dir), segmentations)
    for pooling in poolings:
        for words in pool_fits(pooling, settings.output_dir, segmentations, healthy=chosen):
            say(words)


def report_quality(output_dir: Path, *, dry_run: bool = False) -> list[str]:
    """Collect the quality of all images in a table and a page; return messages, none if no image was assessed.

    With ``dry_run`` only say what would be made.

    Raises
    ------
    UnusableInputError
        If the numbers of an image cannot be read.
    """
    if next(output_dir.glob(f"sub-*/**/dwi/*{ENDING}"), None) is None:
        return []
    if dry_run:
        return [f"Quality: would gather all images in {TABLE}."]
    table = write_group_table(output_dir)
    rows = read_group_table(table)
    page = write_quality_page(table.with_suffix(".html"), rows, about={"bidsfit": __version__})
    return [f"Quality of {len(rows)} image{'s' if len(rows) != 1 else ''}: {table.name}, {page.name}"]
