"""The participant level: find the images, plan, run the workflow, make the reports, and say how it went."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from bidsfit import __version__
from bidsfit.bids.files import write_text
from bidsfit.bids.inputs import Dataset, choose_participants, find_images, open_dataset, read_filters
from bidsfit.bids.outputs import prepare_dataset
from bidsfit.bids.validation import require_valid
from bidsfit.cli.settings import Settings
from bidsfit.exceptions import UnusableInputError, UsageError
from bidsfit.reports.bibliography import write_citation
from bidsfit.reports.records import ErrorRecord, FitRecord, ImageRecord, read_record
from bidsfit.reports.report import write_report
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.participant import init_participants_wf, log_folder, methods_text
from bidsfit.workflows.plan import ParticipantPlan, describe_plan, make_plan

#: Packages whose versions a report states.
PACKAGES = ("numpy", "scipy", "numba", "sympy", "nibabel", "dipy", "nipype", "pybids", "matplotlib")

#: How a node's crash file shows an error that bidsfit raised on purpose.
ON_PURPOSE = re.compile(r"^\s*bidsfit\.exceptions\.(\w+): (.+)$", re.MULTILINE)


def run_participants(settings: Settings) -> int:
    """Run the participant level; return the exit code.

    Raises
    ------
    BidsfitError
        Where nothing can be run at all.
    """
    raw, derivatives, labels = open_inputs(settings)
    inputs = find_images(
        raw,
        derivatives,
        labels,
        sessions=settings.session_label,
        runs=settings.run_id,
        filters=read_filters(settings.bids_filter_file),
    )
    plans = make_plan(
        inputs,
        labels,
        model_names=settings.model,
        estimator_names=settings.estimators,
        options={"averaging": settings.average, "s0": settings.s0},
        bounds=settings.bounds,
        output_dir=settings.output_dir,
    )
    if settings.dry_run:
        say(describe_plan(plans))
    if not any(plan.images for plan in plans):
        problems = [problem for plan in plans for problem in plan.problems]
        raise UnusableInputError("Nothing can be run.\n" + "\n".join(f"  {problem}" for problem in problems))
    if settings.dry_run:
        return int(any(plan.problems for plan in plans))

    prepare_dataset(settings.output_dir, raw, derivatives)
    write_citation(settings.output_dir / "logs", methods_text([image for plan in plans for image in plan.images]))
    if settings.boilerplate_only:
        say(f"Methods text: {settings.output_dir / 'logs' / 'CITATION.md'}")
        return int(any(plan.problems for plan in plans))

    errors: dict[str, list[ErrorRecord]] = {
        plan.label: [ErrorRecord("An image was left out", problem) for problem in plan.problems] for plan in plans
    }
    if not settings.reports_only:
        say_plan(plans)
        for label, records in run_workflow(settings, plans).items():
            errors[label].extend(records)
    for plan in plans:
        make_report(settings, raw, plan, errors[plan.label])
    return say_outcome(settings, plans, errors)


def open_inputs(settings: Settings) -> tuple[Dataset, list[Dataset], list[str]]:
    """The input dataset, the derivative datasets, and the labels of the participants to run."""
    if not settings.bids_dir.is_dir():
        raise UnusableInputError(f"BIDS_DIR {settings.bids_dir} is not a folder.")
    database = settings.bids_database_dir
    labels: list[str] = []
    if (settings.bids_dir / "dataset_description.json").exists():
        labels = choose_participants(settings.bids_dir, settings.participant_label)
    chosen = labels if settings.participant_label else []
    raw = open_dataset(settings.bids_dir, "raw", participants=chosen, database=database)
    if not settings.skip_bids_validation and not raw.derivative:
        require_valid(raw.root)
    derivatives = [
        open_dataset(path, name, derivative=True, participants=chosen, database=database)
        for name, path in (settings.derivatives or {}).items()
    ]
    return raw, derivatives, labels


def run_workflow(settings: Settings, plans: Sequence[ParticipantPlan]) -> dict[str, list[ErrorRecord]]:
    """Run the graph; return what failed, by participant."""
    plugin = read_plugin(settings)
    configure_nipype(settings)
    for plan in plans:
        folder = log_folder(settings.output_dir, plan.label, settings.run_uuid)
        write_text(folder / "bidsfit.toml", settings.to_toml())
    try:
        if settings.clean_workdir:
            shutil.rmtree(settings.work_dir / "bidsfit_wf", ignore_errors=True)
        settings.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The work folder {settings.work_dir} cannot be written: {error.strerror}.") from error
    workflow = init_participants_wf(
        plans,
        work_dir=settings.work_dir,
        output_dir=settings.output_dir,
        run_uuid=settings.run_uuid,
        omp_nthreads=settings.omp_nthreads,
        low_memory=settings.low_mem,
    )
    if settings.write_graph:
        write_graph(workflow, settings, plans)
    failure: Exception | None = None
    try:
        workflow.run(**plugin)
    except Exception as error:  # Nipype raises RuntimeError, or with --stop-on-first-crash whatever the node raised
        failure = error
    errors = {plan.label: read_crashes(settings, plan.label) for plan in plans}
    if failure is not None and not any(errors.values()):
        message = f"{type(failure).__name__}: {failure}"
        errors[plans[0].label].append(ErrorRecord("The workflow stopped", message))
    return errors


def configure_nipype(settings: Settings) -> None:
    """Tell Nipype how to run; nothing leaves this machine."""
    from nipype import config
    from nipype import logging as nipype_logging

    config.update_config(
        {
            "execution": {
                "crashfile_format": "txt",
                "check_version": "false",
                "remove_unnecessary_outputs": "false",
                "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
                "poll_sleep_duration": "0.2",
            },
            "monitoring": {"enabled": str(settings.resource_monitor).lower()},
        }
    )
    if settings.resource_monitor:
        config.enable_resource_monitor()
    nipype_logging.update_logging(config)
    level = (logging.CRITICAL, logging.INFO, logging.INFO)[min(settings.verbosity, 2)]
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logger = logging.getLogger(name)
        logger.setLevel(level if settings.verbosity < 3 else logging.DEBUG)
        if settings.verbosity == 1:  # errors come as messages, without tracebacks
            logger.addFilter(lambda record: record.levelno < logging.ERROR)


def read_plugin(settings: Settings) -> dict[str, Any]:
    """Nipype's plugin and its arguments: from a file, or the cores and memory of the run."""
    if settings.nipype_plugin_file is not None:
        try:
            content = yaml.safe_load(settings.nipype_plugin_file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"The plugin file {settings.nipype_plugin_file} cannot be read: {error}.") from error
        if not isinstance(content, dict) or "plugin" not in content or set(content) - {"plugin", "plugin_args"}:
            raise UsageError(
                f"The plugin file {settings.nipype_plugin_file} must hold 'plugin' and perhaps 'plugin_args'."
            )
        return content
    if settings.nprocs == 1:
        return {"plugin": "Linear"}
    arguments: dict[str, Any] = {"n_procs": settings.nprocs, "raise_insufficient": False}
    if settings.mem_gb is not None:
        arguments["memory_gb"] = settings.mem_gb
    return {"plugin": "MultiProc", "plugin_args": arguments}


def write_graph(workflow: Any, settings: Settings, plans: Sequence[ParticipantPlan]) -> None:
    """Write the graph of the first image in Graphviz' language, and as SVG where Graphviz is installed."""
    image = next(image for plan in plans for image in plan.images)
    graph = init_image_wf(image, output_dir=settings.output_dir, omp_nthreads=settings.omp_nthreads)
    target = settings.output_dir / "logs" / "graph.dot"
    kind = "svg" if shutil.which("dot") else "dot"
    graph.write_graph(dotfilename=str(target), graph2use="colored", format=kind)


def read_crashes(settings: Settings, label: str) -> list[ErrorRecord]:
    """What failed for one participant in this run, from Nipype's crash files."""
    from nireports.assembler.misc import read_crashfile

    records = []
    for path in sorted(log_folder(settings.output_dir, label, settings.run_uuid).glob("crash-*.txt")):
        crash = read_crashfile(path)
        trace = crash.get("traceback", "")
        on_purpose = ON_PURPOSE.search(trace)
        message = on_purpose[2] if on_purpose else trace.strip().splitlines()[-1] if trace.strip() else "unknown"
        records.append(
            ErrorRecord(
                title="An image cannot be used" if on_purpose else f"A step failed: {crash.get('node', path.name)}",
                message=message,
                crash_file=path.relative_to(settings.output_dir).as_posix(),
                traceback=trace,
            )
        )
    return records


def make_report(settings: Settings, raw: Dataset, plan: ParticipantPlan, errors: Sequence[ErrorRecord]) -> None:
    """Write the report of one participant from all records in its folder, those of earlier runs included."""
    folder = settings.output_dir / f"sub-{plan.label}" / "figures"
    records = [read_record(path) for path in sorted(folder.glob("*_record.json"))]
    write_report(
        settings.output_dir / f"sub-{plan.label}.html",
        participant=f"sub-{plan.label}",
        images=[record for record in records if isinstance(record, ImageRecord)],
        fits=[record for record in records if isinstance(record, FitRecord)],
        errors=errors,
        about=about(settings, raw),
        methods=methods_text(plan.images) if plan.images else "",
    )


def about(settings: Settings, raw: Dataset) -> dict[str, Any]:
    """What a report says about the run."""
    from json import loads

    versions = {"Python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "version": __version__,
        "command": settings.command,
        "run_uuid": settings.run_uuid,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "software": versions,
        "dataset": loads((raw.root / "dataset_description.json").read_text()).get("Name", raw.root.name),
        "settings": {
            "Input": str(settings.bids_dir),
            "Output": str(settings.output_dir),
            "Processes, threads a step": f"{settings.nprocs}, {settings.omp_nthreads}",
        },
    }


def say(text: str) -> None:
    """Tell the user, on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_plan(plans: Sequence[ParticipantPlan]) -> None:
    """Say what is about to run, one line an image."""
    for plan in plans:
        for image in plan.images:
            fits = ", ".join(f"{fit.model} ({fit.estimator})" for fit in image.fits)
            say(f"{image.image.name}_dwi: {fits}")
            for row in image.support:
                if not row["fitted"]:
                    say(f"  not {row['name']}, {row['reason']}")


def say_outcome(
    settings: Settings, plans: Sequence[ParticipantPlan], errors: Mapping[str, Sequence[ErrorRecord]]
) -> int:
    """Say how it went; return the exit code."""
    for plan in plans:
        for error in errors[plan.label]:
            sys.stderr.write(f"sub-{plan.label}: {error.title}. {error.message}\n")
            if error.crash_file:
                sys.stderr.write(f"  Details: {settings.output_dir / error.crash_file}\n")
            if settings.verbosity >= 2 and error.traceback:
                sys.stderr.write(error.traceback + "\n")
    failed = [plan.label for plan in plans if errors[plan.label]]
    say(f"Reports: {settings.output_dir}{'' if len(plans) > 1 else f'/sub-{plans[0].label}.html'}")
    if failed:
        say(f"Done, with errors for {len(failed)} of {len(plans)} participants: {', '.join(failed)}.")
        return 1
    say(f"Done: {len(plans)} participant{'s' if len(plans) != 1 else ''}.")
    return 0
