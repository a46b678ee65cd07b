"""Reports and messages of a run: participants that are done, failures, and what was left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from bidsfit import __version__
from bidsfit.bids.fitted import TRAININGS, FitFacts, find_fitted, read_facts, series_of, settings_that_differ
from bidsfit.bids.inputs import Dataset
from bidsfit.bids.left_out import in_words
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.outputs import image_folder
from bidsfit.bids.provenance import write_provenance, write_table_of_records
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.figures import image_figure_paths
from bidsfit.interfaces.quality import quality_record_path
from bidsfit.planning.methods import methods_of, methods_of_plans
from bidsfit.planning.plan import ImagePlan, ParticipantPlan, is_done
from bidsfit.reports.bibliography import write_citation
from bidsfit.reports.index import write_index
from bidsfit.reports.records import (
    ComparisonRecord,
    ErrorRecord,
    FitRecord,
    ImageRecord,
    PreprocessingRecord,
    RegionsRecord,
    read_record,
    read_records,
)
from bidsfit.reports.report import write_report
from bidsfit.reports.scenes import write_scenes
from bidsfit.run.failures import explain, not_trained, read_crash
from bidsfit.run.region_tables import write_region_tables
from bidsfit.run.settings import Settings
from bidsfit.workflows.participant import image_part, log_folder

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


class Reports:
    """Reports of the participants of a run, with the errors of each."""

    def __init__(self, settings: Settings, raw: Dataset, plans: Sequence[ParticipantPlan]) -> None:
        self.settings, self.raw, self.started = settings, raw, datetime.now().astimezone()
        self.plans = plans
        self.errors = {
            plan.label: [
                *(ErrorRecord("An image was left out", problem) for problem in plan.problems),
                *(ErrorRecord("A fit or a table of regions was left out", words) for words in plan.unmet),
            ]
            for plan in plans
        }
        self.written: set[str] = set()

    def write(self, plan: ParticipantPlan, *runs: str) -> None:
        """Write the report of a participant once, with the failures of runs, and print them; record what this run made.

        A run that only trains has no report.
        """
        if plan.label in self.written:
            return
        errors = [*self.errors[plan.label], *read_crashes(self.settings, plan, *runs)]
        if self.settings.run_uuid in runs and not self.settings.train_only:
            errors += write_region_tables(plan, self.settings.output_dir)
        errors += self._lost(plan, *runs[-1:])
        if not self.settings.train_only:
            make_report(self.settings, self.raw, plan, errors)
        if self.settings.run_uuid in runs and plan.images and not self.settings.train_only:
            about = self.settings.run_uuid, self.settings.command, self.started, datetime.now().astimezone()
            for session in sorted({Path(image_folder(image.image)).parent for image in plan.images}):
                own = [image for image in plan.images if Path(image_folder(image.image)).parent == session]
                given = [image.image if image.chain is None else image.chain.raw for image in own]
                others = {uri: path for image in own for uri, path in other_files(image)}
                write_provenance(self.settings.output_dir, given, *about, others)
        for record in filter(None, (preprocessing_record(image, self.settings.output_dir) for image in plan.images)):
            say_refused(record)
        say_left_out(self.settings, plan)
        say_other_trainings(self.settings.output_dir, plan.label)
        self.errors[plan.label] = errors
        self.written.add(plan.label)
        say_errors(self.settings, plan.label, errors)

    def _lost(self, plan: ParticipantPlan, run_uuid: str = "") -> list[ErrorRecord]:
        """Fits that a participant lost because their training lacks an image of another participant."""
        if not any(fit.scope == "dataset" for image in plan.images for fit in image.fits):
            return []
        found = {}
        for other in self.plans:
            for crash in map(read_crash, crash_files(self.settings, other, run_uuid) if other is not plan else ()):
                if words := not_trained(crash, other):
                    found[words] = ErrorRecord("A fit was left out", f"A step failed for sub-{other.label}.{words}")
        return list(found.values())


def crash_files(settings: Settings, plan: ParticipantPlan, run_uuid: str) -> list[Path]:
    """Nipype's crash files of one participant in a run."""
    return sorted((log_folder(settings.output_dir, plan.label) / run_uuid).glob("crash-*.txt"))


def other_files(plan: ImagePlan) -> Iterator[tuple[str, Path]]:
    """URIs and paths of what was used beside an image and the files that belong to it, by its steps and for tables."""
    if plan.chain is not None:
        field, anatomy = plan.chain.helping.reversed_phase, plan.chain.helping.anatomy
        phase = plan.chain.helping.phase
        if phase is not None and plan.chain.method("phase"):
            yield f"{plan.chain.raw.uri.rpartition('/')[0]}/{phase.name}", phase
        if field is not None and plan.chain.method("susceptibility"):
            yield field.uri, field.path
        if anatomy is not None and plan.chain.method("tissue"):
            yield from zip(anatomy.uris, filter(None, (*anatomy.segmentation, anatomy.t1w)), strict=True)
    for segmentation in plan.segmentations:
        yield segmentation.uri, segmentation.path


def read_crashes(settings: Settings, plan: ParticipantPlan, *runs: str) -> list[ErrorRecord]:
    """Failures of a participant, from Nipype's crash files: of the last run, and of images that are still not done."""
    images = {image_part(image): image for image in plan.images}
    records: dict[str, ErrorRecord] = {}
    for run in runs:
        for path in crash_files(settings, plan, run):
            crash = read_crash(path)
            image = images.get(crash.part)
            if run != runs[-1] and (image is None or is_done(image, settings.output_dir)):
                continue
            title, message = explain(crash, image)
            message += not_trained(crash, plan)
            file = path.relative_to(settings.output_dir).as_posix()
            records[crash.node or path.name] = ErrorRecord(title, message, file, crash.traceback)
    return list(records.values())


def make_report(settings: Settings, raw: Dataset, plan: ParticipantPlan, errors: Sequence[ErrorRecord]) -> None:
    """Write the report of one participant from all its records, including those of earlier runs."""
    records = list(read_records(settings.output_dir, plan.label))
    images = [record for record in records if isinstance(record, ImageRecord)]
    others = other_trainings(settings.output_dir, plan.label)
    fits = []
    for record in (one for one in records if isinstance(one, FitRecord)):
        series = series_of(record.image.rpartition("_")[0])
        told = others.get((series, record.model, record.estimator), ())
        fits.append(replace(record, warnings=[*record.warnings, *told]))
    write_report(
        settings.output_dir / f"sub-{plan.label}.html",
        participant=f"sub-{plan.label}",
        images=images,
        fits=fits,
        errors=errors,
        about=about(settings, raw),
        methods=methods_of(records),
        comparisons=[record for record in records if isinstance(record, ComparisonRecord)],
        preprocessing=[record for record in records if isinstance(record, PreprocessingRecord)],
        regions=[record for record in records if isinstance(record, RegionsRecord)],
        voxels=settings.report_voxels,
    )
    if settings.scenes:
        write_scenes(settings.output_dir, images, fits)


def write_overview(output_dir: Path) -> None:
    """Write the page of all participants of an output folder, and whose the records of its provenance are."""
    if (output_dir / "prov").is_dir():
        write_table_of_records(output_dir)
    with FileLock(output_dir / ".bidsfit.lock"):
        write_index(output_dir, read_records(output_dir))


def write_methods(output_dir: Path, planned: Sequence[ParticipantPlan] = ()) -> str:
    """Write the methods text of an output folder, or of what is planned if it is empty.

    Return what the text is about, in words; empty if nothing was written.
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
    """Information about the run for a report."""
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


def preprocessing_record(image: ImagePlan, output_dir: Path) -> PreprocessingRecord | None:
    """Record of the preprocessing of an image; None if it was not run yet."""
    path = quality_record_path(output_dir, image.image)
    record = read_record(path) if path.exists() else None
    return record if isinstance(record, PreprocessingRecord) else None


def say_left_out(settings: Settings, plan: ParticipantPlan) -> None:
    """Print, on standard error, the volumes of a participant's images that were left out."""
    for image in plan.images:
        path = image_figure_paths(settings.output_dir, image.image)["record"]
        record = read_record(path) if path.exists() else None
        if isinstance(record, ImageRecord) and record.left_out:
            sys.stderr.write(f"Warning, {record.name}: {in_words(record.left_out)}\n")
    sys.stderr.flush()


def other_trainings(output_dir: Path, label: str) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Warnings by series, model and estimator where scans of a participant were fitted by different trainings."""
    scans: dict[tuple[str, str, str], list[FitFacts]] = {}
    with suppress(UnusableInputError):  # what cannot be read is none of this run
        for fitted in find_fitted(output_dir, [label], None):
            facts = read_facts(fitted)
            scans.setdefault((fitted.series, fitted.model, facts.estimator), []).append(facts)
    found: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for (series, model, estimator), made in scans.items():
        differing = [name.lower() for name in settings_that_differ(made) if name in TRAININGS]
        if differing:
            words = (
                f"Scans of the participant were fitted with {model} by {estimator} of different trainings "
                f"({', '.join(differing)}). Differences between them may be those of the trainings. Fit all in one run."
            )
            found[series, model, estimator] = (words,)
    return found


def say_other_trainings(output_dir: Path, label: str) -> None:
    """Print `other_trainings` on standard error."""
    for (words,) in other_trainings(output_dir, label).values():
        sys.stderr.write(f"Warning, sub-{label}. {words}\n")
    sys.stderr.flush()


def say_errors(settings: Settings, label: str, errors: Sequence[ErrorRecord]) -> None:
    """Print the errors of a participant on standard error."""
    for error in errors:
        sys.stderr.write(f"sub-{label}: {error.title}. {error.message}\n")
        if error.crash_file:
            sys.stderr.write(f"  Details: {settings.output_dir / error.crash_file}\n")
        if settings.verbosity >= 2 and error.traceback:
            sys.stderr.write(error.traceback + "\n")
    sys.stderr.flush()


def say_refused(record: PreprocessingRecord) -> None:
    """Print, on standard error, planned steps that an image did not get, and why."""
    for row in record.steps:
        if row.get("refused"):
            sys.stderr.write(f"{record.image}: {row['title']} was left out: {row['refused']}\n")
    sys.stderr.flush()


def say_outcome(
    settings: Settings, plans: Sequence[ParticipantPlan], errors: Mapping[str, Sequence[ErrorRecord]]
) -> int:
    """Print the outcome and return the exit code."""
    failed = [plan.label for plan in plans if errors[plan.label]]
    if settings.train_only:
        say(f"Trained estimators: {settings.store}")
    else:
        say(f"Reports: {settings.output_dir}{'' if len(plans) > 1 else f'/sub-{plans[0].label}.html'}")
    if failed:
        say(f"Done, with errors for {len(failed)} of {len(plans)} participants: {', '.join(failed)}.")
        return 1
    say(f"Done: {len(plans)} participant{'s' if len(plans) != 1 else ''}.")
    return 0


def runs_of(settings: Settings, label: str) -> list[str]:
    """Identifiers of the runs of a participant, the last one last."""
    folders = log_folder(settings.output_dir, label).glob("*")
    return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime)]


def say(text: str) -> None:
    """Print on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
