"""The participant level: find the images, plan, run the workflow, make the reports, and say how it went."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock
from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import PluginBase

from bidsfit import __version__
from bidsfit.bids.anatomy import is_subjects_folder
from bidsfit.bids.conflicts import refuse_earlier_names
from bidsfit.bids.inputs import (
    Dataset,
    Folder,
    choose_participants,
    describes_derivative,
    find_images,
    open_dataset,
    read_filters,
)
from bidsfit.bids.left_out import in_words
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import is_label
from bidsfit.bids.outputs import earlier_description, prepare_dataset
from bidsfit.bids.validation import require_valid
from bidsfit.choices import read_yaml
from bidsfit.exceptions import BidsfitError, UnknownNameError, UnusableInputError, UsageError
from bidsfit.files import needing_space, remove_abandoned, write_text
from bidsfit.interfaces.figures import image_figure_paths
from bidsfit.interfaces.fsl import installed
from bidsfit.interfaces.quality import quality_record_path
from bidsfit.planning.fits import Fit, NoiseChoice, PoolChoice, make_fits
from bidsfit.planning.helping_images import find_helping_images
from bidsfit.planning.methods import fit_methods, methods_of, methods_text
from bidsfit.planning.plan import ImagePlan, ParticipantPlan, make_plan
from bidsfit.planning.preprocessing import PreprocessingChoice
from bidsfit.reports.bibliography import write_citation
from bidsfit.reports.records import (
    ComparisonRecord,
    ErrorRecord,
    FitRecord,
    ImageRecord,
    PreprocessingRecord,
    read_record,
    read_records,
)
from bidsfit.reports.report import write_report
from bidsfit.run.description import describe_plan, describe_replaced, summarise_plan
from bidsfit.run.failures import explain, read_crash
from bidsfit.run.progress import Progress
from bidsfit.run.replacing import replace_earlier
from bidsfit.run.scheduler import Finished, Scheduler
from bidsfit.run.settings import Settings
from bidsfit.run.work_folder import clean, held
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.participant import WORKFLOW, image_part, init_participants_wf, log_folder
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


class Reports:
    """The reports of a run's participants, and what went wrong with each."""

    def __init__(self, settings: Settings, raw: Dataset, plans: Sequence[ParticipantPlan]) -> None:
        self.settings, self.raw = settings, raw
        self.errors = {
            plan.label: [
                *(ErrorRecord("An image was left out", problem) for problem in plan.problems),
                *(ErrorRecord("A fit was left out", words) for words in plan.unmet),
            ]
            for plan in plans
        }
        self.written: set[str] = set()

    def write(self, plan: ParticipantPlan, run_uuid: str) -> None:
        """Write the report of a participant, once, with what failed in a run; and say what did."""
        if plan.label in self.written:
            return
        errors = [*self.errors[plan.label], *read_crashes(self.settings, plan, run_uuid)]
        make_report(self.settings, self.raw, plan, errors)
        for record in filter(None, (preprocessing_record(image, self.settings.output_dir) for image in plan.images)):
            say_refused(record)
        say_left_out(self.settings, plan)
        self.errors[plan.label] = errors
        self.written.add(plan.label)
        say_errors(self.settings, plan.label, errors)


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


def methods_of_plans(plans: Sequence[ParticipantPlan]) -> str:
    """Methods text of what is planned."""
    images = [image for plan in plans for image in plan.images]
    fits = {(fit.model, fit.name): fit.built for image in images for fit in image.fits}
    chains = [image.chain for image in images if image.chain is not None]
    return methods_text(
        [image.mask_name for image in images],
        map(fit_methods, fits.values()),
        [sentence for chain in chains for sentence in chain.methods.values()],
    )


def preprocessing_record(image: ImagePlan, output_dir: Path) -> PreprocessingRecord | None:
    """What a run told of the preprocessing of an image; None where there is no such run yet."""
    path = quality_record_path(output_dir, image.image)
    record = read_record(path) if path.exists() else None
    return record if isinstance(record, PreprocessingRecord) else None


def validate(settings: Settings) -> None:
    """Run the BIDS validator on the input dataset, unless it is a derivative one or the user said not to."""
    if not settings.skip_bids_validation and not describes_derivative(settings.bids_dir):
        labels = choose_participants(settings.bids_dir, settings.participant_label)
        require_valid(settings.bids_dir, [label for label in labels if is_label(label)])


def plan_run(settings: Settings, fits: Sequence[Fit]) -> tuple[Dataset, list[Folder], list[ParticipantPlan]]:
    """The input dataset, the derivative datasets, and what every participant gets."""
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

    Participants that another run works on in the same folder are left to it.
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
    """Run the graph of participants that nobody else works on."""
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


def configure_nipype(settings: Settings) -> None:
    """Tell Nipype how to run; nothing leaves this machine."""
    from nipype import config
    from nipype import logging as nipype_logging

    config.update_config(
        {
            "execution": {
                "crashfile_format": "txt",
                "check_version": "false",
                "create_report": "false",
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
    arguments: dict[str, Any] = {"n_procs": settings.nprocs}
    if settings.mem_gb is not None:
        arguments["memory_gb"] = settings.mem_gb
    return {"plugin": "MultiProc", "plugin_args": arguments}


def started(
    plugin: Mapping[str, Any], plans: Sequence[ParticipantPlan], finished: Callable[[Finished], None]
) -> PluginBase:
    """The plugin; bidsfit's scheduler in the place of those that run on this machine, whose workers start here."""
    name, arguments = plugin["plugin"], plugin.get("plugin_args") or {}
    if name not in ("Linear", "MultiProc"):
        return getattr(plugins, f"{name}Plugin")(plugin_args=arguments)
    return Scheduler(
        1 if name == "Linear" else arguments.get("n_procs", len(os.sched_getaffinity(0))),
        arguments.get("memory_gb"),
        order=[image_part(image) for plan in plans for image in plan.images],
        finished=finished,
    )


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


def read_crashes(settings: Settings, plan: ParticipantPlan, run_uuid: str) -> list[ErrorRecord]:
    """What failed for one participant in a run, from Nipype's crash files."""
    images = {image_part(image): image for image in plan.images}
    records = []
    for path in sorted((log_folder(settings.output_dir, plan.label) / run_uuid).glob("crash-*.txt")):
        crash = read_crash(path)
        title, message = explain(crash, images.get(crash.part))
        records.append(ErrorRecord(title, message, path.relative_to(settings.output_dir).as_posix(), crash.traceback))
    return records


def make_report(settings: Settings, raw: Dataset, plan: ParticipantPlan, errors: Sequence[ErrorRecord]) -> None:
    """Write the report of one participant from all records in its folder, those of earlier runs included."""
    records = read_records(settings.output_dir, plan.label)
    write_report(
        settings.output_dir / f"sub-{plan.label}.html",
        participant=f"sub-{plan.label}",
        images=[record for record in records if isinstance(record, ImageRecord)],
        fits=[record for record in records if isinstance(record, FitRecord)],
        errors=errors,
        about=about(settings, raw),
        methods=methods_of(records),
        comparisons=[record for record in records if isinstance(record, ComparisonRecord)],
        preprocessing=[record for record in records if isinstance(record, PreprocessingRecord)],
    )


def write_methods(output_dir: Path, planned: Sequence[ParticipantPlan] = ()) -> str:
    """Write the methods text of all that an output folder holds; where it holds nothing yet, of what is planned.

    Returns
    -------
    str
        What it tells of; empty where nothing was written.
    """
    with FileLock(output_dir / ".bidsfit.lock"):
        told, text = "what was done", methods_of(read_records(output_dir))
        if not text and planned:
            told, text = "what is planned", methods_of_plans(planned)
        if not text:
            return ""
        write_citation(output_dir / "logs", text)
    return told


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


def say_left_out(settings: Settings, plan: ParticipantPlan) -> None:
    """Say on the standard error which volumes of a participant's images were left out."""
    for image in plan.images:
        path = image_figure_paths(settings.output_dir, image.image)["record"]
        record = read_record(path) if path.exists() else None
        if isinstance(record, ImageRecord) and record.left_out:
            sys.stderr.write(f"Warning, {record.name}: {in_words(record.left_out)}\n")
    sys.stderr.flush()


def say_errors(settings: Settings, label: str, errors: Sequence[ErrorRecord]) -> None:
    """Say on the standard error what went wrong with a participant."""
    for error in errors:
        sys.stderr.write(f"sub-{label}: {error.title}. {error.message}\n")
        if error.crash_file:
            sys.stderr.write(f"  Details: {settings.output_dir / error.crash_file}\n")
        if settings.verbosity >= 2 and error.traceback:
            sys.stderr.write(error.traceback + "\n")
    sys.stderr.flush()


def say_refused(record: PreprocessingRecord) -> None:
    """Say on the standard error which planned steps an image had to do without, and why."""
    for row in record.steps:
        if row.get("refused"):
            sys.stderr.write(f"{record.image}: {row['title']} was left out: {row['refused']}\n")
    sys.stderr.flush()


def say_outcome(
    settings: Settings, plans: Sequence[ParticipantPlan], errors: Mapping[str, Sequence[ErrorRecord]]
) -> int:
    """Say how it went; return the exit code."""
    failed = [plan.label for plan in plans if errors[plan.label]]
    say(f"Reports: {settings.output_dir}{'' if len(plans) > 1 else f'/sub-{plans[0].label}.html'}")
    if failed:
        say(f"Done, with errors for {len(failed)} of {len(plans)} participants: {', '.join(failed)}.")
        return 1
    say(f"Done: {len(plans)} participant{'s' if len(plans) != 1 else ''}.")
    return 0
