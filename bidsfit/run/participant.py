"""Participant level: find the images, plan, run the workflow, write reports and messages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, suppress
from datetime import datetime
from typing import Any

from bidsfit.bids.anatomy import is_subjects_folder
from bidsfit.bids.conflicts import refuse_earlier_names
from bidsfit.bids.helping_images import find_helping_images
from bidsfit.bids.inputs import (
    Dataset,
    Folder,
    choose_participants,
    describes_derivative,
    find_images,
    open_dataset,
    read_filters,
)
from bidsfit.bids.names import is_label
from bidsfit.bids.outputs import earlier_description, prepare_dataset
from bidsfit.bids.validation import require_valid
from bidsfit.exceptions import BidsfitError, UnusableInputError, UsageError
from bidsfit.files import needing_space, remove_abandoned, write_text
from bidsfit.interfaces.fsl import installed
from bidsfit.planning.fits import Fit, NoiseChoice, PoolChoice, make_fits
from bidsfit.planning.plan import ParticipantPlan, make_plan
from bidsfit.reports.records import ErrorRecord
from bidsfit.run.description import describe_plan, describe_replaced, summarise_plan
from bidsfit.run.engine import configure_nipype, read_plugin, started
from bidsfit.run.progress import Progress
from bidsfit.run.replacing import replace_earlier
from bidsfit.run.reports import Reports, last_run, read_crashes, say, say_errors, say_outcome, write_methods
from bidsfit.run.settings import Settings
from bidsfit.run.work_folder import clean, held
from bidsfit.steps.step import PreprocessingChoice
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.participant import WORKFLOW, init_participants_wf, log_folder
from bidsfit.workflows.training import TrainedStore


def run_participants(settings: Settings) -> int:
    """Run the participant level and return the exit code; raises `BidsfitError` if nothing can be run."""
    fits = make_fits(
        settings.model,
        settings.estimators,
        options=settings.estimator_options,
        bounds=settings.bounds,
        noise=noise_choice(settings),
        pools=PoolChoice(settings.output_dir, settings.bids_dir),
    )
    require_device(settings, fits)
    plugin = read_plugin(settings)
    with ThreadPoolExecutor() as pool:
        validity = pool.submit(validate, settings)
        raw, derivatives, plans = plan_run(settings, fits)
    problems = [problem for plan in plans for problem in (*plan.problems, *plan.unmet)]
    if settings.dry_run:
        say(describe_plan(plans, settings.output_dir))
    if not any(plan.images for plan in plans):
        raise UnusableInputError("Nothing can be run.\n" + "\n".join(f"  {problem}" for problem in problems))
    validity.result()
    if settings.dry_run:
        return int(bool(problems))

    prepare_dataset(settings.output_dir, raw, derivatives)
    if settings.boilerplate_only:
        told = write_methods(settings.output_dir, plans)
        say(f"Methods text of {told}: {settings.output_dir / 'logs' / 'CITATION.md'}")
        return int(bool(problems))

    named = [plan for plan in plans if is_label(plan.label)]  # no file gets a label that BIDS does not allow
    reports = Reports(settings, raw, plans)
    for plan in plans:
        if plan not in named:
            say_errors(settings, plan.label, reports.errors[plan.label])
    if settings.reports_only:
        for plan in named:
            reports.write(plan, last_run(settings, plan.label))
    else:
        say(summarise_plan(plans))
        run_workflow(settings, named, plugin, reports)
    write_methods(settings.output_dir)
    return say_outcome(settings, plans, reports.errors)


def noise_choice(settings: Settings) -> NoiseChoice:
    """Options of the noise."""
    return NoiseChoice(settings.noise or "rician", settings.sigma)


def preprocessing_choice(settings: Settings) -> PreprocessingChoice | None:
    """Options of the preprocessing; None for none."""
    if settings.preprocess == "none":
        return None
    rician = ""
    if settings.debias:
        rician = "--debias takes it out before the fit"
    elif settings.noise is not None:
        rician = f"--noise {settings.noise}: the estimators take the noise for that"
    return PreprocessingChoice(
        settings.preprocess,
        settings.skip,
        settings.denoise,
        settings.body_part,
        installed() if settings.preprocess in ("auto", "fsl") else (),
        rician,
    )


def training_choice(settings: Settings) -> TrainedStore:
    """Options of training and storage of estimators."""
    return TrainedStore(settings.store, settings.device)


def require_device(settings: Settings, fits: Sequence[Fit]) -> None:
    """Raise an error if the device does not exist, or --leave-one-out has no effect."""
    if settings.leave_one_out and not any(fit.pool for fit in fits):
        raise UsageError("--leave-one-out: no estimator of this run is trained on the fits of participants.")
    if settings.device == "cpu" or not any(fit.trains for fit in fits if not fit.unsuitable):
        return
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks without starting what workers cannot inherit
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here. Leave the option out to train on the processor.")


def validate(settings: Settings) -> None:
    """Run the BIDS validator on the input dataset, unless it is a derivative one or the user declined."""
    if not settings.skip_bids_validation and not describes_derivative(settings.bids_dir):
        labels = choose_participants(settings.bids_dir, settings.participant_label)
        require_valid(settings.bids_dir, [label for label in labels if is_label(label)])


def plan_run(settings: Settings, fits: Sequence[Fit]) -> tuple[Dataset, list[Folder], list[ParticipantPlan]]:
    """Input dataset, derivative datasets, and plans of all participants."""
    raw = open_dataset(settings.bids_dir, "raw")
    labels = choose_participants(settings.bids_dir, settings.participant_label)
    refuse_earlier_names(settings.output_dir, labels)
    filters = read_filters(settings.bids_filter_file)
    given = settings.derivatives or {}
    freesurfer = {name: path for name, path in given.items() if is_subjects_folder(path)}
    derivatives = [open_dataset(path, name, derivative=True) for name, path in given.items() if name not in freesurfer]
    inputs = find_images(
        raw,
        derivatives,
        labels,
        sessions=settings.session_label,
        runs=settings.run_id,
        filters=filters,
        noise_maps=settings.sigma == "map",
    )
    preprocessing = preprocessing_choice(settings)
    heads = [Folder(name, path) for name, path in freesurfer.items()]
    earlier_description(settings.output_dir, raw, [*derivatives, *heads])  # else what differs is the dataset
    skip = ("susceptibility", "tissue") if preprocessing is None else preprocessing.skip
    helping_images = find_helping_images(raw, [*derivatives, *heads], inputs, skip)
    plans = make_plan(
        inputs,
        labels,
        fits,
        asked=settings.model,
        output_dir=settings.output_dir,
        noise=noise_choice(settings),
        organ=settings.organ,
        leave_one_out=settings.leave_one_out,
        preprocessing=preprocessing,
        helping_images=helping_images,
        overwrite=settings.overwrite,
    )
    return raw, [*derivatives, *heads], plans


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
            raise UsageError(f"The work folder {settings.work_dir} cannot be written: {error.strerror}.") from error
        mine = [plan for plan in plans if plan.label not in elsewhere]
        for label, run in elsewhere.items():
            words = (
                f"Another run works on sub-{label} in {settings.work_dir} ({run}). Wait for it, or choose another -w."
            )
            reports.errors[label].append(ErrorRecord("It was left out", words))
        if not any(plan.images for plan in mine):
            raise UsageError("\n".join(reports.errors[label][-1].message for label in elsewhere))
        for label in elsewhere:
            say_errors(settings, label, reports.errors[label])
        if settings.overwrite:
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
    for plan in plans:
        remove_abandoned(settings.output_dir / f"sub-{plan.label}")
        folder = log_folder(settings.output_dir, plan.label) / settings.run_uuid
        write_text(folder / "bidsfit.toml", settings.to_toml())
    configure_nipype(settings)
    workflow = init_participants_wf(
        plans,
        work_dir=settings.work_dir,
        output_dir=settings.output_dir,
        run_uuid=settings.run_uuid,
        omp_nthreads=settings.omp_nthreads,
        low_memory=settings.low_mem,
        training=training_choice(settings),
    )
    if settings.write_graph:
        write_graph(workflow, settings, plans)

    def complete(plan: ParticipantPlan) -> None:
        with suppress(Exception):  # what stands in the way of a report stops no other work; it is tried again below
            reports.write(plan, settings.run_uuid)

    failure: Exception | None = None
    try:
        with (
            chdir(settings.work_dir),
            needing_space(settings.work_dir),
        ):  # what Nipype leaves beside its nodes stays here
            workflow.run(plugin=started(plugin, plans, Progress(plans, say, complete)))
    except (BidsfitError, OSError):
        raise
    except Exception as error:  # Nipype raises RuntimeError where a step failed
        failure = error
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
