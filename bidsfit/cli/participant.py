"""The participant level: find the images, plan, run the workflow, make the reports, and say how it went."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nipype.pipeline import plugins

from bidsfit import __version__
from bidsfit.bids.anatomy import is_subjects_folder
from bidsfit.bids.choices import read_yaml
from bidsfit.bids.files import remove_abandoned, write_text
from bidsfit.bids.images import read_sidecar
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
from bidsfit.bids.outputs import prepare_dataset
from bidsfit.bids.validation import require_valid
from bidsfit.cli.settings import Settings
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError
from bidsfit.interfaces.fsl import installed
from bidsfit.reports.bibliography import write_citation
from bidsfit.reports.records import (
    ComparisonRecord,
    ErrorRecord,
    FitRecord,
    ImageRecord,
    PreprocessingRecord,
    read_record,
)
from bidsfit.reports.report import write_report
from bidsfit.workflows.chain import PreprocessingChoice
from bidsfit.workflows.companions import find_all_companions
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.methods import fit_methods, methods_text
from bidsfit.workflows.multiproc import MultiProc
from bidsfit.workflows.participant import init_participants_wf, log_folder
from bidsfit.workflows.plan import (
    Fit,
    NoiseChoice,
    ParticipantPlan,
    PoolChoice,
    describe_plan,
    make_fits,
    make_plan,
    trainings_in_words,
)
from bidsfit.workflows.training import Training

#: Packages whose versions a report states.
PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "torch",
    "scikit-learn",
    "sympy",
    "nibabel",
    "dipy",
    "nipype",
    "matplotlib",
)

#: How a node's crash file shows an error that bidsfit raised on purpose.
ON_PURPOSE = re.compile(r"^\s*bidsfit\.exceptions\.(\w+): (.+)\Z", re.MULTILINE | re.DOTALL)


def run_participants(settings: Settings) -> int:
    """Run the participant level; return the exit code.

    Raises
    ------
    BidsfitError
        Where nothing can be run at all.
    """
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
    problems = [problem for plan in plans for problem in plan.problems]
    if settings.dry_run:
        say(describe_plan(plans))
    if not any(plan.images for plan in plans):
        raise UnusableInputError("Nothing can be run.\n" + "\n".join(f"  {problem}" for problem in problems))
    validity.result()
    if settings.dry_run:
        return int(bool(problems))

    prepare_dataset(settings.output_dir, raw, derivatives)
    write_citation(settings.output_dir / "logs", methods_of(plans))
    if settings.boilerplate_only:
        say(f"Methods text: {settings.output_dir / 'logs' / 'CITATION.md'}")
        return int(bool(problems))

    errors: dict[str, list[ErrorRecord]] = {
        plan.label: [ErrorRecord("An image was left out", problem) for problem in plan.problems] for plan in plans
    }
    named = [plan for plan in plans if is_label(plan.label)]  # no file gets a label that BIDS does not allow
    if settings.reports_only:
        found = {plan.label: read_crashes(settings, plan.label, last_run(settings, plan.label)) for plan in named}
    else:
        say_plan(plans)
        found = run_workflow(settings, named, plugin)
    for plan in named:
        errors[plan.label].extend(found[plan.label])
        make_report(settings, raw, plan, errors[plan.label])
    return say_outcome(settings, plans, errors)


def noise_choice(settings: Settings) -> NoiseChoice:
    """What the options say about the noise."""
    return NoiseChoice(settings.noise or "rician", settings.sigma)


def preprocessing_choice(settings: Settings) -> PreprocessingChoice | None:
    """What the options say about preprocessing; None where there is to be none."""
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


def training_choice(settings: Settings) -> Training:
    """What the options say about where estimators are trained and kept."""
    return Training(settings.store, settings.device)


def require_device(settings: Settings, fits: Sequence[Fit]) -> None:
    """Refuse a device that is not there, and --leave-one-out where nothing is trained on participants."""
    if settings.leave_one_out and not any(fit.pool for fit in fits):
        raise UsageError("--leave-one-out: no estimator of this run is trained on the fits of participants.")
    if settings.device == "cpu" or not any(fit.trains for fit in fits if not fit.unsuitable):
        return
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks without starting what workers cannot inherit
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here. Leave the option out to train on the processor.")


def methods_of(plans: Sequence[ParticipantPlan]) -> str:
    """Methods text of a run."""
    images = [image for plan in plans for image in plan.images]
    fits = {(fit.model, fit.name): fit.built for image in images for fit in image.fits}
    chains = [image.chain for image in images if image.chain is not None]
    return methods_text(
        [image.mask_name for image in images],
        map(fit_methods, fits.values()),
        [sentence for chain in chains for sentence in chain.methods.values()],
    )


def validate(settings: Settings) -> None:
    """Run the BIDS validator on the input dataset, unless it is a derivative one or the user said not to."""
    if not settings.skip_bids_validation and not describes_derivative(settings.bids_dir):
        labels = choose_participants(settings.bids_dir, settings.participant_label)
        require_valid(settings.bids_dir, [label for label in labels if is_label(label)])


def plan_run(settings: Settings, fits: Sequence[Fit]) -> tuple[Dataset, list[Folder], list[ParticipantPlan]]:
    """The input dataset, the derivative datasets, and what every participant gets."""
    raw = open_dataset(settings.bids_dir, "raw")
    labels = choose_participants(settings.bids_dir, settings.participant_label)
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
    companions = {}
    if preprocessing is not None:
        companions = find_all_companions(raw, [*derivatives, *heads], inputs)
    plans = make_plan(
        inputs,
        labels,
        fits,
        asked=settings.model,
        output_dir=settings.output_dir,
        noise=noise_choice(settings),
        leave_one_out=settings.leave_one_out,
        preprocessing=preprocessing,
        companions=companions,
    )
    return raw, [*derivatives, *heads], plans


def run_workflow(
    settings: Settings, plans: Sequence[ParticipantPlan], plugin: Mapping[str, Any]
) -> dict[str, list[ErrorRecord]]:
    """Run the graph; return what failed, by participant."""
    try:
        if settings.clean_workdir:
            shutil.rmtree(settings.work_dir / "bidsfit_wf", ignore_errors=True)
        settings.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The work folder {settings.work_dir} cannot be written: {error.strerror}.") from error
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
    failure: Exception | None = None
    try:
        with chdir(settings.work_dir), sigterm_interrupts():  # whatever Nipype leaves beside its nodes stays there
            workflow.run(**started(plugin))
    except Exception as error:  # Nipype raises RuntimeError, or with --stop-on-first-crash whatever the node raised
        failure = error
    errors = {plan.label: read_crashes(settings, plan.label, settings.run_uuid) for plan in plans}
    if failure is not None and not any(errors.values()):
        message = f"{type(failure).__name__}: {failure}"
        errors[plans[0].label].append(ErrorRecord("The workflow stopped", message))
    return errors


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, which schedulers and containers send, stop a run as Ctrl-C does: workers end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


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
    config.resource_monitor = settings.resource_monitor  # its own switch, which an earlier run may have left on
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
        content = read_yaml(settings.nipype_plugin_file, "plugin file")
        foreign = set(content) - {"plugin", "plugin_args"}
        if "plugin" not in content or foreign or not isinstance(content.get("plugin_args", {}), dict):
            raise UsageError(
                f"The plugin file {settings.nipype_plugin_file} must hold 'plugin' and perhaps a table 'plugin_args'."
            )
        if not hasattr(plugins, f"{content['plugin']}Plugin"):
            names = [name.removesuffix("Plugin") for name in vars(plugins) if name.endswith("Plugin")]
            raise UnknownNameError(f"Nipype plugin in {settings.nipype_plugin_file}:", str(content["plugin"]), names)
        return content
    if settings.nprocs == 1:
        return {"plugin": "Linear"}
    arguments: dict[str, Any] = {"n_procs": settings.nprocs, "raise_insufficient": False}
    if settings.mem_gb is not None:
        arguments["memory_gb"] = settings.mem_gb
    return {"plugin": "MultiProc", "plugin_args": arguments}


def started(plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plugin with bidsfit's `MultiProc` in the place of Nipype's; its workers start, and stay, in this folder."""
    if plugin["plugin"] != "MultiProc":
        return plugin
    return {"plugin": MultiProc(plugin_args=plugin.get("plugin_args"))}


def write_graph(workflow: Any, settings: Settings, plans: Sequence[ParticipantPlan]) -> None:
    """Write the graph of the first image in Graphviz' language, and as SVG where Graphviz is installed."""
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


def last_run(settings: Settings, label: str) -> str:
    """The last run of a participant.

    Raises
    ------
    UsageError
        Where there was none.
    """
    runs = log_folder(settings.output_dir, label)
    folders = sorted(runs.glob("*"), key=lambda folder: folder.stat().st_mtime)
    if not folders:
        raise UsageError(f"--reports-only: {settings.output_dir} holds no run of sub-{label}. Run it first.")
    return folders[-1].name


def read_crashes(settings: Settings, label: str, run_uuid: str) -> list[ErrorRecord]:
    """What failed for one participant in a run, from Nipype's crash files."""
    from nireports.assembler.misc import read_crashfile

    records = []
    for path in sorted((log_folder(settings.output_dir, label) / run_uuid).glob("crash-*.txt")):
        crash = read_crashfile(path)
        trace = crash.get("traceback", "")
        on_purpose = ON_PURPOSE.search(trace)
        message = on_purpose[2] if on_purpose else trace.strip().splitlines()[-1] if trace.strip() else "unknown"
        unusable = on_purpose is not None and on_purpose[1] == UnusableInputError.__name__
        records.append(
            ErrorRecord(
                title="An image cannot be used" if unusable else f"A step failed: {crash.get('node', path.name)}",
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
    images = [record for record in records if isinstance(record, ImageRecord)]
    fits = [record for record in records if isinstance(record, FitRecord)]
    comparisons = [record for record in records if isinstance(record, ComparisonRecord)]
    preprocessing = [record for record in records if isinstance(record, PreprocessingRecord)]
    write_report(
        settings.output_dir / f"sub-{plan.label}.html",
        participant=f"sub-{plan.label}",
        images=images,
        fits=fits,
        errors=errors,
        about=about(settings, raw),
        methods=methods_text(
            [image.mask_description for image in images],
            [fit.methods for fit in fits],
            [sentence for record in preprocessing for sentence in record.methods],
        )
        if fits
        else "",
        comparisons=comparisons,
        preprocessing=preprocessing,
    )


def about(settings: Settings, raw: Dataset) -> dict[str, Any]:
    """What a report says about the run."""
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
        "dataset": read_sidecar(raw.root / "dataset_description.json").get("Name") or raw.root.name,
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
            fits = ", ".join(f"{fit.model} ({fit.name})" for fit in image.fits)
            say(f"{image.image.name}_dwi: {fits}")
            if image.image.no_mask:
                say(f"  {image.image.no_mask}")
            for words in trainings_in_words(image):
                say(f"  {words}")
            for row in image.support:
                if not row["fitted"]:
                    say(f"  not {row['name']}, {row['reason']}")
                elif not row["complete"]:
                    say(f"  {row['name']}, {row['reason']}")


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
