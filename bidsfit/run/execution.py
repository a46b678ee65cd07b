"""Participant level: run the workflow of a plan, write reports and messages."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, chdir, suppress
from datetime import datetime
from typing import Any

from bidsfit.bids.inputs import Dataset, Folder
from bidsfit.bids.names import is_label, participant_labels
from bidsfit.bids.outputs import prepare_dataset
from bidsfit.exceptions import BidsfitError, CannotCreateError, NoInputError
from bidsfit.files import needing_space, remove_abandoned, write_text
from bidsfit.planning.fits import Fit
from bidsfit.planning.plan import ParticipantPlan
from bidsfit.reports.records import ErrorRecord
from bidsfit.run.description import describe_replaced, summarise_plan
from bidsfit.run.engine import configure_nipype, started
from bidsfit.run.progress import Progress
from bidsfit.run.replacing import replace_earlier
from bidsfit.run.reports import (
    Reports,
    read_crashes,
    runs_of,
    say,
    say_errors,
    say_outcome,
    write_methods,
    write_overview,
)
from bidsfit.run.scheduler import Finished
from bidsfit.run.settings import Settings
from bidsfit.run.work_folder import clean, held
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.participant import WORKFLOW, image_part, init_participants_wf, log_folder, unpacked_folder
from bidsfit.workflows.training import TrainedStore

#: With more participants in the output folder, a run of chosen ones leaves what tells of all to a later command: to
#: read all records takes longer than a small job, and every job would do it.
MANY = 1000


def carry_out(
    settings: Settings,
    raw: Dataset,
    derivatives: Sequence[Folder],
    fits: Sequence[Fit],
    plans: Sequence[ParticipantPlan],
    plugin: Mapping[str, Any],
) -> int:
    """Run what was planned, write reports and the methods text, and return the exit code.

    ``fits`` are those that were asked for, also where no image got them, so that equal commands on other images
    describe the dataset alike.
    """
    prepare_dataset(settings.output_dir, raw, derivatives, [fit.built for fit in fits if not fit.unsuitable])
    if settings.boilerplate_only:
        told = write_methods(settings.output_dir, plans)
        say(f"Methods text of {told}: {settings.output_dir / 'logs' / 'CITATION.md'}")
        return int(any(plan.problems or plan.unmet for plan in plans))

    named = [plan for plan in plans if is_label(plan.label)]  # no file gets a label that BIDS does not allow
    reports = Reports(settings, raw, plans)
    for plan in plans:
        if plan not in named:
            say_errors(settings, plan.label, reports.errors[plan.label])
    if settings.reports_only:
        runs = {plan.label: runs_of(settings, plan.label) for plan in named}
        if not any(runs.values()):
            names = " or ".join(f"sub-{label}" for label in [*runs][:3])
            raise NoInputError(f"--reports-only: {settings.output_dir} holds no run of {names}. Run it first.")
        for plan in named:
            if not runs[plan.label]:
                words = f"{settings.output_dir} holds no run of sub-{plan.label}."
                reports.errors[plan.label].append(ErrorRecord("It was not run", words))
            reports.write(plan, *runs[plan.label])
    else:
        say(summarise_plan(plans))
        run_workflow(settings, named, plugin, reports)
    chosen = settings.participant_label and not settings.reports_only
    if not settings.train_only and chosen and len(participant_labels(settings.output_dir)) > MANY:
        say(f"With more than {MANY:,} participants, the group level or --reports-only renews what tells of all.")
    elif not settings.train_only:
        write_methods(settings.output_dir)
        write_overview(settings.output_dir)
    return say_outcome(settings, plans, reports.errors)


def training_choice(settings: Settings) -> TrainedStore:
    """Options of training and storage of estimators."""
    when = "first" if settings.train_only else "never" if settings.no_training else "missing"
    return TrainedStore(settings.store, settings.device, when)


def run_workflow(
    settings: Settings, plans: Sequence[ParticipantPlan], plugin: Mapping[str, Any], reports: Reports
) -> None:
    """Run the graph, and write the report of every participant when it is done.

    Participants that another run in the same folder works on are skipped.
    """
    folder = settings.work_dir / WORKFLOW
    with ExitStack() as stack:
        try:
            labels = [plan.label for plan in plans]
            elsewhere = stack.enter_context(held(folder, labels, settings.run_uuid, settings.command))
        except OSError as error:
            raise CannotCreateError(
                f"The work folder {settings.work_dir} cannot be written: {error.strerror}."
            ) from error
        mine = [plan for plan in plans if plan.label not in elsewhere]
        for label, run in elsewhere.items():
            words = (
                f"Another run works on sub-{label} in {settings.work_dir} ({run}). Wait for it, or choose another -w."
            )
            reports.errors[label].append(ErrorRecord("It was left out", words))
        if not any(plan.images for plan in mine):
            raise CannotCreateError("\n".join(reports.errors[label][-1].message for label in elsewhere))
        for label in elsewhere:
            say_errors(settings, label, reports.errors[label])
        if settings.overwrite and not settings.train_only:
            replaced = replace_earlier(mine, settings.output_dir, datetime.now())
            clean(folder, [one.image for one in replaced if one.conflict.whole])
            if replaced:
                say(describe_replaced(replaced))
        if settings.clean_workdir:
            clean(folder, [image for plan in mine for image in plan.images])
        run_graph(settings, mine, plugin, reports)


def run_graph(
    settings: Settings, plans: Sequence[ParticipantPlan], plugin: Mapping[str, Any], reports: Reports
) -> None:
    """Run the graph of participants that no other run works on."""
    for folder in (settings.store, *(settings.output_dir / name for name in ("", "prov", "logs"))):
        remove_abandoned(folder)
    for plan in plans:
        remove_abandoned(settings.output_dir / f"sub-{plan.label}", "**/")
        folder = log_folder(settings.output_dir, plan.label) / settings.run_uuid
        write_text(folder / "bidsfit.toml", settings.to_toml())
    configure_nipype(settings)
    workflow = init_participants_wf(
        plans,
        work_dir=settings.work_dir,
        output_dir=settings.output_dir,
        run_uuid=settings.run_uuid,
        omp_nthreads=settings.omp_nthreads,
        training=training_choice(settings),
    )
    if settings.write_graph:
        write_graph(workflow, settings, plans)

    def complete(plan: ParticipantPlan) -> None:
        with suppress(Exception):  # what stands in the way of a report stops no other work; it is tried again below
            reports.write(plan, settings.run_uuid)

    progress = Progress(plans, say, complete)
    unpacked = {image_part(image): unpacked_folder(settings.work_dir, image) for plan in plans for image in plan.images}

    def finished(part: Finished) -> None:
        shutil.rmtree(unpacked[part.name], ignore_errors=True)
        progress(part)

    gc.freeze()  # what is imported stays: neither this process nor its workers need look through it again
    failure: Exception | None = None
    try:
        with (
            chdir(settings.work_dir),
            needing_space(settings.work_dir),
        ):  # what Nipype leaves beside its nodes stays here
            workflow.run(plugin=started(plugin, list(unpacked), finished))
    except (BidsfitError, OSError):
        raise
    except Exception as error:  # Nipype raises RuntimeError where a step failed
        failure = error
    finally:
        for folder in unpacked.values():  # other plugins do not tell what is finished
            shutil.rmtree(folder, ignore_errors=True)
    if failure is not None and not any(read_crashes(settings, plan, settings.run_uuid) for plan in plans):
        words = f"Nipype gave up: {type(failure).__name__}: {failure}. The same command runs the steps that are left."
        reports.errors[plans[0].label].append(ErrorRecord("The run stopped", words))
    for plan in plans:
        reports.write(plan, settings.run_uuid)


def write_graph(workflow: Any, settings: Settings, plans: Sequence[ParticipantPlan]) -> None:
    """Write the graph of the first image in DOT, and as SVG if Graphviz is installed."""
    image = next(image for plan in plans for image in plan.images)
    graph = init_image_wf(
        image,
        output_dir=settings.output_dir,
        omp_nthreads=settings.omp_nthreads,
        training=training_choice(settings),
    )
    target = settings.output_dir / "logs" / "graph.dot"
    kind = "svg" if shutil.which("dot") else "dot"
    graph.write_graph(dotfilename=str(target), graph2use="colored", format=kind)
