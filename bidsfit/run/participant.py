"""Participant level: find the images and plan what each gets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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
from bidsfit.bids.outputs import earlier_description
from bidsfit.bids.validation import require_valid
from bidsfit.exceptions import NoMatchError, UnusableInputError, UsageError
from bidsfit.interfaces.fsl import installed
from bidsfit.planning.fits import Fit, NoiseChoice, PoolChoice, make_fits
from bidsfit.planning.plan import ParticipantPlan, add_segmentations, make_plan
from bidsfit.run.description import describe_plan
from bidsfit.run.engine import read_plugin
from bidsfit.run.settings import Settings
from bidsfit.steps.step import PreprocessingChoice


def run_participants(settings: Settings) -> int:
    """Run the participant level and return the exit code; raises `BidsfitError` if nothing can be run."""
    fits = fits_of(settings)
    require_use(settings, fits)
    plugin = read_plugin(settings)
    with ThreadPoolExecutor() as pool:
        validity = pool.submit(validate, settings)
        raw, derivatives, plans, unmatched = plan_run(settings, fits)
    problems = [problem for plan in plans for problem in (*plan.problems, *plan.unmet)]
    if settings.dry_run:
        print(describe_plan(plans, settings.output_dir, overwrite=settings.overwrite), flush=True)
    if not any(plan.images for plan in plans):
        error = NoMatchError if unmatched else UnusableInputError
        raise error("Nothing can be run.\n" + "\n".join(f"  {problem}" for problem in problems))
    validity.result()
    if settings.dry_run:
        return int(bool(problems))

    from bidsfit.run.execution import carry_out  # which takes a second to import, and a plan needs none of it

    return carry_out(settings, raw, derivatives, fits, plans, plugin)


def fits_of(settings: Settings) -> list[Fit]:
    """Combinations of the models and estimators of a run."""
    return make_fits(
        settings.model,
        settings.estimators,
        options=settings.estimator_options,
        bounds=settings.bounds,
        noise=noise_choice(settings),
        pools=PoolChoice(settings.output_dir, settings.bids_dir),
        trust=settings.trust,
    )


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


def require_use(settings: Settings, fits: Sequence[Fit]) -> None:
    """Raise an error if the device does not exist, or an option of the training has no effect."""
    if settings.leave_one_out and not any(fit.pool for fit in fits):
        raise UsageError("--leave-one-out: no estimator of this run is trained on the fits of participants.")
    if settings.train_only and not any(fit.trains for fit in fits if not fit.unsuitable):
        names = ", ".join(dict.fromkeys(fit.name for fit in fits))
        raise UsageError(f"--train-only: no estimator of this run is trained ({names}).")
    if settings.device == "cpu" or not any(fit.trains or fit.takes_device for fit in fits if not fit.unsuitable):
        return
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks without starting what workers cannot inherit
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here. Leave the option out to use the processor.")


def validate(settings: Settings) -> None:
    """Run the BIDS validator on the input dataset, unless it is a derivative one or the user declined."""
    if not settings.skip_bids_validation and not describes_derivative(settings.bids_dir):
        labels = choose_participants(settings.bids_dir, settings.participant_label)
        require_valid(settings.bids_dir, [label for label in labels if is_label(label)])


def plan_run(settings: Settings, fits: Sequence[Fit]) -> tuple[Dataset, list[Folder], list[ParticipantPlan], bool]:
    """Input dataset, derivative datasets, plans of all participants, and whether the filters left no image at all."""
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
        suffixes=list(dict.fromkeys(suffix for fit in fits for suffix in fit.signal_model.suffixes)),
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
    add_segmentations(plans, settings.atlas, [*derivatives, raw], settings.output_dir, settings.overwrite)
    unmatched = not inputs.images and all(problem.unmatched for problem in inputs.problems)
    return raw, [*derivatives, *heads], plans, unmatched
