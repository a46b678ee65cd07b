"""What a run would do, and why: decided from headers and b-values, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition, Shell
from bidsfit.bids.images import image_shape, open_image, read_acquisition, read_b_values, read_mask, read_on_grid
from bidsfit.bids.inputs import DwiImage, Inputs
from bidsfit.bids.outputs import fit_settings, map_outputs, refuse_conflict
from bidsfit.bids.units import FILE_UNITS
from bidsfit.estimators.estimator import Estimator
from bidsfit.exceptions import UnusableInputError, UsageError
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind

#: Where a mask comes from that no dataset has.
FOUND_MASK = "median_otsu (DIPY) on the mean image of the lowest b-value"


@dataclass(frozen=True)
class NoiseChoice:
    """What the noise is taken for, and where its level comes from: a source of --sigma, or a number as text."""

    kind: NoiseKind = "rician"
    level: str = "auto"

    @property
    def settings(self) -> dict[str, str]:
        """As a sidecar says it."""
        return {"NoiseKind": self.kind, "NoiseLevel": self.level}


#: Where no option says otherwise.
DEFAULT_NOISE = NoiseChoice()


@dataclass(frozen=True)
class Fit:
    """One fit of one image: names of model and estimator, and the estimator's options.

    ``unsuitable`` says why the options do not go with the model, where they do not.
    """

    model: str
    estimator: str
    options: dict[str, Any]
    unsuitable: str = ""

    @cached_property
    def signal_model(self) -> SignalModel:
        return models.get(self.model)

    @cached_property
    def built(self) -> Estimator:
        """The estimator, ready to estimate."""
        return estimators.get(self.estimator)(self.signal_model, **self.options)


@dataclass(frozen=True)
class ImagePlan:
    """One image, what its protocol supports, and the fits it gets.

    ``support`` rows: name, title, fitted, complete (by all estimators), reason.
    """

    image: DwiImage
    shape: tuple[int, int, int, int]
    n_bytes: int
    acquisition: Acquisition
    fits: tuple[Fit, ...]
    support: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...] = ()
    noise: NoiseChoice = DEFAULT_NOISE

    @property
    def mask_name(self) -> str:
        """Where the mask comes from, in words for sidecars and reports."""
        return self.image.mask_uri or FOUND_MASK


@dataclass
class ParticipantPlan:
    """The images of one participant, and why others are left out."""

    label: str
    images: list[ImagePlan] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def make_fits(
    model_names: Sequence[str] = (),
    estimator_names: Sequence[str] = ("lsq",),
    *,
    options: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    noise: NoiseChoice = DEFAULT_NOISE,
) -> list[Fit]:
    """Fits that an image may get: every model with every estimator.

    What does not go together is marked unsuitable; a model or an estimator that was named and goes with nothing is
    refused.

    Parameters
    ----------
    model_names : sequence of str
        Empty: all but the variants.
    estimator_names : sequence of str
    options : mapping
        Options of the estimators: each gets those that it has.
    noise : NoiseChoice
        Estimators with an option ``noise`` get its kind.
    bounds : mapping of model to parameter to (lower, upper)
        In the units of files (mm^2/s).

    Raises
    ------
    UnknownNameError, UsageError
        Where a name or an option cannot be used.
    """
    wanted = list(dict.fromkeys(model_names)) or models.without_variants()
    known = {name: set(signature(estimators.get(name)).parameters) for name in dict.fromkeys(estimator_names)}
    foreign = set(options or {}) - set().union(*known.values())
    if foreign:
        names = " or ".join(map(repr, known))
        raise UsageError(f"No estimator of this run has the option {' or '.join(sorted(foreign))} (not {names}).")
    bounds = bounds or {}
    for name in bounds:
        if models.get(name).name not in wanted:
            raise UsageError(f"--bounds names the model {name!r}, which is not among those of --model.")
    fits = []
    for name in wanted:
        for estimator, its_options in known.items():
            given = {key: value for key, value in (options or {}).items() if key in its_options}
            if "noise" in its_options:
                given["noise"] = noise.kind
            fit = Fit(name, estimator, {**given, **_bounds_option(name, bounds.get(name, {}))})
            try:
                fit.built  # noqa: B018 - refuses what the estimator refuses
            except ValueError as error:
                fit = replace(fit, unsuitable=str(error))
            fits.append(fit)
    for name in (*model_names, *bounds):
        _require_use([fit for fit in fits if fit.model == name])
    for estimator in known:
        _require_use([fit for fit in fits if fit.estimator == estimator])
    return fits


def _require_use(fits: Sequence[Fit]) -> None:
    """Refuse what the user named and what goes with nothing of the run."""
    if fits and all(fit.unsuitable for fit in fits):
        fit = fits[0]
        raise UsageError(f"The options do not suit {fit.model} with {fit.estimator}: {fit.unsuitable}")


def _bounds_option(model_name: str, bounds: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The option ``bounds`` of an estimator, in the units of the numerics; empty where there are none."""
    model = models.get(model_name)
    converted = {}
    for name, pair in bounds.items():
        if name not in model.names:
            raise UsageError(
                f"--bounds {model_name}.{name}: the model {model_name!r} has no such parameter; it has "
                f"{', '.join(model.names)}."
            )
        factor = FILE_UNITS[model[name].unit].factor
        converted[name] = (pair[0] / factor, pair[1] / factor)
    return {"bounds": converted} if converted else {}


def make_plan(
    inputs: Inputs,
    participants: Sequence[str],
    fits: Sequence[Fit],
    *,
    asked: Sequence[str] = (),
    output_dir: Path,
    noise: NoiseChoice = DEFAULT_NOISE,
) -> list[ParticipantPlan]:
    """Decide what every image gets.

    Parameters
    ----------
    inputs : Inputs
    participants : sequence of str
    fits : sequence of Fit
        Each image gets those whose model its protocol supports.
    asked : sequence of str
        Models that the user named: each must be supported by some image.
    output_dir : Path
        Maps that are there already must have been made with the same settings.
    noise : NoiseChoice

    Raises
    ------
    UsageError
        Where an option or an existing output makes the whole run unsound.
    """
    plans = {label: ParticipantPlan(label) for label in participants}
    for problem in inputs.problems:
        plans[problem.participant].problems.append(problem.message)
    for image in inputs.images:
        plan = plans[image.participant]
        try:
            plan.images.append(_plan_image(image, fits, noise))
        except UnusableInputError as error:
            plan.problems.append(str(error))
    _require_each_model(plans.values(), asked)
    for plan in plans.values():
        for image_plan in plan.images:
            for fit in image_plan.fits:
                _refuse_conflicts(image_plan, fit, output_dir)
    return list(plans.values())


def _plan_image(image: DwiImage, fits: Sequence[Fit], noise: NoiseChoice) -> ImagePlan:
    """Check an image's header, b-values and mask, and choose the models that its protocol supports."""
    header = open_image(image.path)
    shape = image_shape(header, read_b_values(image.bval).size, image.path)
    acquisition = read_acquisition(image.bval, image.bvec, image.sidecar)
    if image.mask is not None:
        read_mask(image.mask, header, image.path)
    if image.noise_map is not None:
        read_on_grid(image.noise_map, header, image.path, "noise map")
    rows: dict[str, dict[str, Any]] = {}
    chosen: list[Fit] = []
    for name in dict.fromkeys(fit.model for fit in fits):
        its_fits = [fit for fit in fits if fit.model == name]
        obstacles = {fit.estimator: _obstacle(fit, acquisition) for fit in its_fits}
        usable = [fit for fit in its_fits if not obstacles[fit.estimator]]
        if usable:
            has = f"has {usable[0].signal_model.support(acquisition).used}"
            reason = "; ".join([has, *(f"not with {estimator}: {why}" for estimator, why in obstacles.items() if why)])
        else:
            reason = next(iter(obstacles.values()))
        title = its_fits[0].signal_model.title
        complete = len(usable) == len(its_fits)
        rows[name] = {"name": name, "title": title, "fitted": bool(usable), "complete": complete, "reason": reason}
        chosen += usable
    if not chosen:
        reasons = " ".join(f"{row['name']}: {row['reason']}." for row in rows.values())
        raise UnusableInputError(f"{image.path}: its protocol supports none of the models. {reasons}")
    return ImagePlan(
        image=image,
        shape=shape,
        n_bytes=int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize,
        acquisition=acquisition,
        fits=tuple(chosen),
        support=tuple(rows.values()),
        warnings=tuple(_image_warnings(image, acquisition, [fit.signal_model for fit in chosen], header.shape)),
        noise=noise,
    )


def _obstacle(fit: Fit, acquisition: Acquisition) -> str:
    """What stands in the way of a fit; empty where nothing does."""
    if fit.unsuitable:
        return fit.unsuitable
    missing = fit.signal_model.support(acquisition).missing or fit.built.missing(acquisition)
    return "missing: " + "; ".join(missing) if missing else ""


def _image_warnings(
    image: DwiImage, acquisition: Acquisition, chosen: Sequence[SignalModel], stored: tuple[int, ...]
) -> Iterable[str]:
    if not image.preprocessed:
        yield "The image is fitted as it is: no denoising, motion or distortion correction was applied by this run."
    if image.mask is None:
        yield "No mask was given; it was found by median_otsu, which was made for brains. Check its outline."
    if image.bvec is None and any(model.averaging for model in chosen):
        yield "There is no .bvec file; the directions of each shell are not known."
    lowest = acquisition.shells[0].b_value
    if lowest > 1:
        yield f"There is no image at b = 0: the lowest b-value is {lowest:.0f} s/mm², and S0 is extrapolated."
    if len(stored) == 3 and len(acquisition) > 1:
        yield "The image has three dimensions; the third was read as the volumes of a single slice."


def _require_each_model(plans: Iterable[ParticipantPlan], asked: Sequence[str]) -> None:
    """A model that was asked for must be supported by some image; otherwise nothing is run."""
    images = [image for plan in plans for image in plan.images]
    for name in asked:
        if images and not any(fit.model == name for image in images for fit in image.fits):
            row = next(row for row in images[0].support if row["name"] == name)
            raise UsageError(
                f"No image supports the model {name!r} of --model. {images[0].image.path.name}: {row['reason']}. "
                "Leave the model out to fit the others."
            )


def _refuse_conflicts(plan: ImagePlan, fit: Fit, output_dir: Path) -> None:
    estimator = fit.built
    settings = fit_settings(estimator.model, estimator, plan.mask_name, plan.noise.settings)
    for output in map_outputs(plan.image, estimator.model, estimator).values():
        refuse_conflict(output_dir, output, settings, plan.image.uri)


def _shells_in_words(shells: Sequence[Shell]) -> str:
    """b-values, echo times where there are several, and how often each was measured."""
    several = len({shell.echo_time for shell in shells}) > 1
    return ", ".join(
        f"{shell.b_value:.0f}{f' at TE {shell.echo_time:g} ms' if several else ''} (x{shell.n_measurements})"
        for shell in shells
    )


def describe_plan(plans: Sequence[ParticipantPlan]) -> str:
    """The plan in words, one line a decision."""
    lines = []
    for plan in plans:
        lines.append(f"sub-{plan.label}")
        for image in plan.images:
            shells = _shells_in_words(image.acquisition.shells)
            lines.append(f"  {image.image.name}_dwi  {' x '.join(map(str, image.shape))}")
            lines.append(f"    b-values (s/mm²): {shells}")
            lines.append(f"    mask: {image.mask_name}")
            for row in image.support:
                verb = "fit" if row["fitted"] else "leave out"
                with_ = ", ".join(fit.estimator for fit in image.fits if fit.model == row["name"])
                lines.append(f"    {verb} {row['name']}{f' with {with_}' if with_ else ''}: {row['reason']}")
        lines.extend(f"  left out: {problem}" for problem in plan.problems)
    return "\n".join(lines)
