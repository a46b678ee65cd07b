"""Plan of a run: the fits of every image, and why others are left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage

from bidsfit.acquisition import B0_TOLERANCE, Acquisition, sampling_in_words
from bidsfit.bids.acquisitions import listed, read_acquisition, read_b_values
from bidsfit.bids.conflicts import (
    Conflict,
    conflicts_of_fit,
    conflicts_of_preprocessing,
    conflicts_of_segmentation,
    refuse,
)
from bidsfit.bids.fieldmaps import UNWEIGHTED
from bidsfit.bids.helping_images import HelpingImages
from bidsfit.bids.images import image_shape, on_grid, open_image, read_mask, read_on_grid
from bidsfit.bids.inputs import Folder, InputImage, Inputs
from bidsfit.bids.metadata import interpolation, read_sidecar
from bidsfit.bids.outputs import (
    LEFT_OUT,
    disagreement_outputs,
    disagreement_settings,
    file_output,
    fit_settings,
    image_folder,
    json_path,
    map_outputs,
    own_uri,
    region_output,
)
from bidsfit.bids.segmentations import Segmentation, find_segmentations
from bidsfit.bids.series import read_covariate, series_shape
from bidsfit.exceptions import UnsupportedProtocolError, UnusableInputError
from bidsfit.models import get
from bidsfit.models.organs import has_presets, organ_of, preset_in_words
from bidsfit.models.signal_model import SignalModel
from bidsfit.planning.fits import DEFAULT_NOISE, Fit, NoiseChoice
from bidsfit.planning.preprocessing import Chain, body_part, nothing_done, plan_chain
from bidsfit.preprocessing.gradients import NO_WEIGHTING, refuse_scaled_directions
from bidsfit.preprocessing.interpolation import shared_noise
from bidsfit.steps.step import PreprocessingChoice
from bidsfit.trust.disagreement import reference_of

#: Where a mask comes from that no dataset has.
FOUND_MASK = "Otsu's threshold on the mean images of the lowest b-value and of that nearest to 1000 s/mm²"
FOUND_BODY = "voxels of at least half the median of the mean image of the lowest b-value"
#: The same of a series.
FOUND_IN_SERIES = "Otsu's threshold on the brightest image of the series"
FOUND_BODY_IN_SERIES = "voxels of at least half the median of the brightest image of the series"

#: Why maximum likelihood and least squares give the same maps, and how to tell them apart.
MLE_IS_LSQ = (
    "mle gives the maps of lsq, because with Gaussian noise the most likely parameters are those of least squares"
)
MLE_APART = (
    " (the bias of the Rician noise floor is taken out of the signals before they are fitted; --skip rician leaves it "
    "to mle)"
)
NO_BIAS = "--debias removes nothing, because the bias of the Rician noise floor is taken out before the fit"

#: Sources of a noise level that are the image itself, and what to know where that was preprocessed elsewhere.
FOUND_LEVEL = ("auto", "repeats", "b0", "residuals", "mppca")
FOUND_IN_PREPROCESSED = (
    "The image was preprocessed before this run, and its noise level is found in it. Where it was denoised or "
    "resampled, it scatters less than it errs, and standard deviations, bounds and what is expected of the errors are "
    "too small. Give the noise level of the raw image if it is known: --sigma NUMBER, or a noise map with --sigma map."
)


@dataclass(frozen=True)
class ImagePlan:
    """An image, what its protocol supports, and its fits.

    ``image`` is the one that is fitted: if the ``chain`` changes signals, the preprocessed one that the run will write.
    Rows of ``support`` are name, title, fitted, complete (by all estimators) and reason. ``remarks``, part of the
    ``warnings``, are about files that can only be used in part.
    """

    image: InputImage
    shape: tuple[int, int, int, int]
    n_bytes: int
    acquisition: Acquisition
    fits: tuple[Fit, ...]
    support: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    noise: NoiseChoice = DEFAULT_NOISE
    chain: Chain | None = None
    segmentations: tuple[Segmentation, ...] = ()

    @property
    def given(self) -> Path:
        """The image of the dataset, raw if it is preprocessed first."""
        return self.image.path if self.chain is None else self.chain.raw.path

    @property
    def mask_name(self) -> str:
        """Source of the mask, in words for sidecars and reports."""
        found = (FOUND_BODY_IN_SERIES, FOUND_IN_SERIES) if self.image.series else (FOUND_BODY, FOUND_MASK)
        return self.image.mask_uri or found[0 if self.chain is not None and self.chain.body else 1]


@dataclass
class ParticipantPlan:
    """The images of one participant, and why others are left out.

    ``unmet``: models, estimators or segmentations that the user named but an image does not get, with the reason.
    """

    label: str
    images: list[ImagePlan] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)


def make_plan(
    inputs: Inputs,
    participants: Sequence[str],
    fits: Sequence[Fit],
    *,
    asked: Sequence[str] = (),
    output_dir: Path,
    noise: NoiseChoice = DEFAULT_NOISE,
    organ: str = "auto",
    leave_one_out: bool = False,
    preprocessing: PreprocessingChoice | None = None,
    helping_images: Mapping[str, HelpingImages] | None = None,
    overwrite: bool = False,
) -> list[ParticipantPlan]:
    """Decide which steps and fits every image gets.

    Parameters
    ----------
    fits : sequence of Fit
        Each image gets those whose model its protocol supports.
    asked : sequence of str
        Models named by the user; each must be supported by some image.
    output_dir : Path
        Existing outputs must have been made in the same way.
    organ : str
        Preset of the models that have them, a key of `bidsfit.models.organs.ORGANS` or "general"; "auto" takes what
        BodyPart in the sidecar says.
    leave_one_out : bool
        Do not train an estimator on the participant that it fits.
    preprocessing : PreprocessingChoice, optional
        None fits images as they are.
    helping_images : mapping of image name to HelpingImages, optional
        Other images needed to preprocess each.
    overwrite : bool
        Conflicting outputs will be moved away instead of being an error.

    Raises
    ------
    UsageError, UnsupportedProtocolError
        If an option or an existing output invalidates the whole run, or no image supports a model that was asked for.
    """
    plans = {label: ParticipantPlan(label) for label in participants}
    for problem in inputs.problems:
        plans[problem.participant].problems.append(problem.message)
    known = _Known()
    joined = {path for helping in (helping_images or {}).values() for path in helping.joined}
    for image in inputs.images:
        if image.path in joined and _is_unweighted(image):
            continue  # it is there to help another image, and holds nothing to fit
        plan = plans[image.participant]
        own = every = [fit for fit in fits if image.suffix in fit.signal_model.suffixes]
        if image.series:  # a series is none of the reasons to name an estimator that does not suit it
            own = [fit for fit in own if not fit.unsuitable or fit.model in asked]
        if not own:
            continue
        own = [fit.without(f"sub-{image.participant}") for fit in own] if leave_one_out else own
        helping = (helping_images or {}).get(image.name, HelpingImages())
        try:
            found = _plan_image(image, own, noise, organ, preprocessing, helping, output_dir, overwrite, known)
            plan.images.append(found)
            plan.unmet.extend(_unmet(found, own, every, asked))
        except UnusableInputError as error:
            plan.problems.append(str(error))
    _require_each_model(plans.values(), asked)
    if not overwrite:
        for plan in plans.values():
            for image_plan in plan.images:
                refuse(conflicts(image_plan, output_dir))
    return list(plans.values())


def add_segmentations(
    plans: Sequence[ParticipantPlan],
    atlases: Sequence[str],
    datasets: Sequence[Folder],
    output_dir: Path,
    overwrite: bool = False,
) -> None:
    """Find the segmentations of every image (see `find_segmentations`).

    Raises
    ------
    UnusableInputError
        If no image gets one of them.
    ConflictError
        If there are tables of another segmentation of the same name, unless ``overwrite``.
    """
    if not atlases:
        return
    for plan in plans:
        for i, image in enumerate(plan.images):
            found, problems = find_segmentations(atlases, datasets, image.image, open_image(image.given))
            plan.images[i] = replace(image, segmentations=tuple(found))
            plan.unmet += problems
            if not overwrite:
                refuse(_conflicts_of_segmentations(plan.images[i], output_dir))
    images = [image for plan in plans for image in plan.images]
    if images and not any(image.segmentations for image in images):
        reasons = [words for plan in plans for words in plan.unmet]
        raise UnusableInputError("\n  ".join([f"--atlas {' '.join(atlases)}: no image has one.", *reasons[:1]]))


@dataclass
class _Known:
    """What images share: acquisitions, fits with their estimators, and why fits are impossible for a protocol."""

    acquisitions: dict[tuple[object, ...], Acquisition] = field(default_factory=dict)
    fits: dict[tuple[object, ...], Fit] = field(default_factory=dict)
    obstacles: dict[tuple[object, ...], str] = field(default_factory=dict)

    def same(self, acquisition: Acquisition) -> Acquisition:
        """The first acquisition with the same content, which keeps what was computed of it."""
        arrays = (acquisition.directions, acquisition.counts, acquisition.n_directions, acquisition.basis)
        content = tuple(None if array is None else array.tobytes() for array in arrays)
        columns = tuple((name, column.tobytes()) for name, column in sorted(acquisition.columns.items()))
        if acquisition.frames is not None:
            columns += tuple((name, column.tobytes()) for name, column in sorted(acquisition.frames.columns.items()))
        return self.acquisitions.setdefault((columns, content, acquisition.frame), acquisition)

    def in_organ(self, fit: Fit, organ: str) -> Fit:
        """See `Fit.in_organ`; equal fits are one, so that their estimator is built once."""
        key = (fit.model, fit.name, organ, fit.left_out, fit.unsuitable, str(fit.options))
        if key not in self.fits:
            self.fits[key] = fit.in_organ(organ)
        return self.fits[key]

    def obstacle(self, fit: Fit, acquisition: Acquisition) -> str:
        """See `_obstacle`."""
        key = (fit.model, fit.organ, fit.name, fit.unsuitable, fit.trained, id(acquisition))
        if key not in self.obstacles:
            self.obstacles[key] = _obstacle(fit, acquisition)
        return self.obstacles[key]


def _is_unweighted(image: InputImage) -> bool:
    """Whether all volumes of an image have one b-value and no diffusion weighting."""
    if image.bval is None:
        return False
    try:
        b_values = read_b_values(image.bval)
        return bool(np.all(b_values <= UNWEIGHTED)) and len(Acquisition(b_values).shells) == 1
    except UnusableInputError:
        return False


def _plan_image(
    image: InputImage,
    fits: Sequence[Fit],
    noise: NoiseChoice,
    organ: str,
    preprocessing: PreprocessingChoice | None,
    helping: HelpingImages,
    output_dir: Path,
    overwrite: bool,
    known: _Known,
) -> ImagePlan:
    """Check header, b-values and mask of an image, and choose the models that its protocol supports."""
    header = open_image(image.path)
    if image.bval is None:
        shape = (*series_shape((*image.series, *image.imaginary, *image.polarity))[:3], len(image.series))
    else:
        shape = image_shape(header, read_b_values(image.bval).size, image.path, image.bval)
    acquisition = known.same(read_acquisition(image.bval, image.bvec, image.sidecar))
    if image.bval is not None and image.bvec is not None and acquisition.directions is not None:
        try:
            refuse_scaled_directions(acquisition.b_values, acquisition.directions)
        except ValueError as error:
            raise UnusableInputError(
                f"{image.path}: {error}. Write these b-values to {image.bval.name}; where the lengths mean nothing, "
                f"scale the directions in {image.bvec.name} to a length of 1."
            ) from error
    if image.mask is not None:
        read_mask(image.mask, header, image.path)
    if image.covariate is not None:
        read_covariate(image.covariate, header)
    if image.noise_map is not None:
        read_on_grid(image.noise_map, header, image.path, "noise map")
    chain = None
    if preprocessing is not None:
        chain = plan_chain(image, shape, acquisition, preprocessing, helping, sigma=noise.level)
        refused = {} if overwrite else _refused_before(image, output_dir)
        chain = chain.without(refused) if chain is not None and refused else chain
    corrected = _without_rician_bias(image, chain)
    debiased_again = corrected and any(fit.options.get("debias") for fit in fits)
    if corrected or image.polarity or image.imaginary:
        noise = replace(noise, kind="gaussian")
        fits = [fit.with_noise("gaussian") for fit in fits]
    organ, why = _organ(image, organ)
    fits = [known.in_organ(fit, organ) for fit in fits]
    rows: dict[str, dict[str, Any]] = {}
    chosen: list[Fit] = []
    for name in dict.fromkeys(fit.model for fit in fits):
        its_fits = [fit for fit in fits if fit.model == name]
        obstacles = {fit.name: known.obstacle(fit, acquisition) for fit in its_fits}
        usable = [fit for fit in its_fits if not obstacles[fit.name]]
        if usable:
            said = [f"has {usable[0].signal_model.support(acquisition).used}"]
            said += [f"{preset_in_words(organ)} ({why})"] if has_presets(usable[0].signal_model) else []
            said += [f"not with {estimator}: {why}" for estimator, why in obstacles.items() if why]
            said += [NO_BIAS] if debiased_again else []
            covariate = usable[0].signal_model.covariate
            if covariate is not None and image.covariate_uri:
                said.append(f"{covariate.parameter} of {image.covariate_uri}")
            if any(fit.estimator == "mle" for fit in usable) and noise.kind == "gaussian":
                said.append(MLE_IS_LSQ + (MLE_APART if corrected else ""))
            reason = "; ".join(said)
        else:
            reason = next(iter(obstacles.values()))
        title = its_fits[0].signal_model.title
        complete = len(usable) == len(its_fits)
        rows[name] = {"name": name, "title": title, "fitted": bool(usable), "complete": complete, "reason": reason}
        chosen += usable
    if not chosen:
        reasons = " ".join(f"{row['name']}: {row['reason']}." for row in rows.values())
        raise UnusableInputError(f"{image.path}: its protocol supports none of the models. {reasons}")
    its_models = [fit.signal_model for fit in chosen]
    if not any(model.covariate for model in its_models):
        image = replace(image, covariate=None, covariate_uri=None)
    remarks = tuple(_remarks(image, shape, acquisition, its_models, noise))
    return ImagePlan(
        image=_preprocessed(image, output_dir) if chain is not None and chain.changes else image,
        shape=shape,
        n_bytes=int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize,
        acquisition=acquisition,
        fits=tuple(chosen),
        support=tuple(rows.values()),
        warnings=(*remarks, *_image_warnings(image, chain, acquisition, its_models, header, noise)),
        remarks=remarks,
        noise=noise,
        chain=chain,
    )


def _organ(image: InputImage, choice: str) -> tuple[str, str]:
    """Organ whose presets an image is fitted with, and why."""
    if choice != "auto":
        return choice, "--organ"
    told, words = body_part(image.sidecar)
    return organ_of(words), told or "the sidecar has no BodyPart; --organ chooses another"


def _without_rician_bias(image: InputImage, chain: Chain | None) -> bool:
    """Whether this or an earlier run removes the Rician bias before the fit."""
    if chain is not None:
        return any(chain.method(name) for name in ("phase", "rician"))
    earlier = image.sidecar.get("Preprocessing")
    return (
        image.preprocessed
        and isinstance(earlier, dict)
        and any(earlier.get(name, "none") != "none" for name in ("Phase", "Rician"))
    )


def _refused_before(image: InputImage, output_dir: Path) -> dict[str, str]:
    """Steps that an earlier run could not apply to its preprocessed image, and why."""
    path = output_dir / file_output("preproc", image)
    if image.preprocessed or not path.exists():
        return {}
    try:
        left_out = read_sidecar(json_path(path)).get(LEFT_OUT)
    except UnusableInputError:
        return {}  # what made it is not known, which is refused later
    return {name.lower(): str(why) for name, why in left_out.items()} if isinstance(left_out, dict) else {}


def _preprocessed(image: InputImage, output_dir: Path) -> InputImage:
    """The preprocessed image that a run writes for a raw one."""
    path = file_output("preproc", image)
    base = output_dir / path.parent / path.name.split(".")[0]
    return replace(
        image,
        path=output_dir / path,
        bval=base.with_suffix(".bval"),
        bvec=None if image.bvec is None else base.with_suffix(".bvec"),
        uri=own_uri(path),
        preprocessed=True,
    )


def _obstacle(fit: Fit, acquisition: Acquisition) -> str:
    """Why a fit is impossible, in words; else empty."""
    if fit.unsuitable:
        return fit.unsuitable
    missing = () if fit.named else fit.signal_model.support(acquisition).missing
    lacking = missing or fit.built.lacking(acquisition)
    return "missing: " + "; ".join(lacking) if lacking else ""


def _remarks(
    image: InputImage, shape: Sequence[int], acquisition: Acquisition, chosen: Sequence[SignalModel], noise: NoiseChoice
) -> Iterable[str]:
    """Remarks about files of an image that cannot be used as they are, and about its directions."""
    if image.odd_metadata:
        yield image.odd_metadata
    if not image.preprocessed and (how := interpolation(image.sidecar, shape)):
        yield shared_noise(how) + (" --sigma mppca finds its level too low." if noise.level == "mppca" else "")
    if image.bvec is None or acquisition.directions is None:
        return
    weighted = acquisition.b_values > NO_WEIGHTING
    unknown = weighted & ~acquisition.directions.any(axis=1)
    if unknown.any() and (unknown.sum() < weighted.sum() or any(model.averaging for model in chosen)):
        yield (
            f"{image.bvec.name} has zero or NaN for the directions of volumes {listed(np.flatnonzero(unknown))} "
            f"(counted from 0) although b is above {NO_WEIGHTING:g} s/mm²; they count as unknown."
        )
    averaged = [model.name for model in chosen if model.averaging]
    if averaged and (words := sampling_in_words(acquisition)):
        names = " and ".join(dict.fromkeys(averaged))
        yield f"Few or uneven directions, of which {names} takes the mean over the sphere: {words}."


def _image_warnings(
    image: InputImage,
    chain: Chain | None,
    acquisition: Acquisition,
    chosen: Sequence[SignalModel],
    stored: SpatialImage,
    noise: NoiseChoice,
) -> Iterable[str]:
    if image.preprocessed and noise.level in FOUND_LEVEL:
        yield FOUND_IN_PREPROCESSED
    if not image.preprocessed and (chain is None or not chain.changes):
        yield "The image is fitted as it is: no denoising, motion or distortion correction was applied by this run."
    if chain is not None and chain.helping.unusable and not chain.method("susceptibility"):
        yield f"The susceptibility distortion was not corrected: {chain.helping.no_reversed_phase}"
    if image.mask is None:
        found = "was found by Otsu's threshold, by a rule for brains"
        if chain is not None and chain.body:
            found = f"holds {FOUND_BODY_IN_SERIES if image.series else FOUND_BODY}"
        yield f"{image.no_mask or 'No mask was given.'} The mask {found}. Check its outline."
    if image.covariate is None:
        for covariate in (model.covariate for model in chosen if model.covariate is not None):
            yield (
                f"No {covariate.suffix} (fmap/) belongs to the image, and {covariate.parameter} is taken for 1: where "
                f"flip angles are not the nominal ones, {covariate.without}."
            )
    elif not on_grid(image.covariate, image.path):
        yield f"{image.covariate.name} has another grid; it is interpolated linearly to that of the image."
    if image.bvec is None and any(model.averaging for model in chosen):
        yield "There is no .bvec file; the directions of each shell are not known."
    lowest = acquisition.shells[0].b_value
    if lowest > B0_TOLERANCE:
        yield f"There is no image at b = 0: the lowest b-value is {lowest:.0f} s/mm², and S0 is extrapolated."
    if len(stored.shape) == 3 and len(acquisition) > 1 and not image.series:
        yield "The image has three dimensions; the third was read as the volumes of a single slice."
    if isinstance(stored, Nifti1Image) and not (stored.header["qform_code"] or stored.header["sform_code"]):
        yield (
            f"The header of {image.path.name} does not say how the image lies in space (qform_code and sform_code are "
            "0): where left and right are is a guess. Convert it again."
        )


def _require_each_model(plans: Iterable[ParticipantPlan], asked: Sequence[str]) -> None:
    """Raise an error unless every requested model is supported by some image."""
    images = [image for plan in plans for image in plan.images]
    for name in asked:
        if images and not any(fit.model == name for image in images for fit in image.fits):
            rows = ((image, row) for image in images for row in image.support if row["name"] == name)
            reason = next((f"{image.image.path.name}: {row['reason']}" for image, row in rows), "")
            reason = reason or f"It is fitted to images called {' or '.join(get(name).suffixes)}, and there is none"
            raise UnsupportedProtocolError(
                f"No image supports the model {name!r} of --model. {reason}. Leave the model out to fit the others."
            )


def _unmet(plan: ImagePlan, fits: Sequence[Fit], every: Sequence[Fit], asked: Sequence[str]) -> Iterable[str]:
    """Named models, and estimators with any of their models, that an image does not get.

    Why an estimator does not suit the models of the image is told by ``every`` fit of images of its kind.
    """
    for row in plan.support:
        if row["name"] in asked and not row["fitted"]:
            yield f"{plan.given}: {row['name']} of --model is not fitted, {row['reason']}."
    its_models = {fit.model for fit in plan.fits}
    for name in dict.fromkeys(fit.name for fit in fits):
        if name not in {fit.name for fit in plan.fits}:
            own = sorted((fit for fit in every if fit.name == name), key=lambda fit: fit.model not in its_models)
            reason = _obstacle(own[0], plan.acquisition).removesuffix(".")
            yield f"{plan.given}: {name} of --estimators fits nothing. {own[0].model}: {reason}."


class Disagreement(NamedTuple):
    """Maps of the disagreement of a fit with the reference, relative to the output folder, and their settings."""

    model: str
    paths: tuple[Path, ...]
    settings: Mapping[str, Any]


def disagreements(plan: ImagePlan) -> Iterator[Disagreement]:
    """Maps of the disagreement of every fit of an image with the reference among those of its model."""
    for model in dict.fromkeys(fit.model for fit in plan.fits if fit.trust != "off"):
        own = {fit.name: fit.built for fit in plan.fits if fit.model == model}
        reference = reference_of(own)
        for name, built in own.items():
            if reference is not None and name != reference:
                outputs = disagreement_outputs(plan.image, built.model, built, own[reference])
                settings = disagreement_settings(built, own[reference], plan.mask_name, plan.noise.settings)
                yield Disagreement(model, tuple(output.path for output in outputs.values()), settings)


def is_done(plan: ImagePlan, output_dir: Path) -> bool:
    """Whether all maps of an image exist."""
    maps = [
        output.path
        for fit in plan.fits
        for output in map_outputs(plan.image, fit.signal_model, fit.built, fit.trust).values()
    ]
    return all((output_dir / path).exists() for path in chain(maps, *(found.paths for found in disagreements(plan))))


def _conflicts_of_segmentations(plan: ImagePlan, output_dir: Path) -> Iterator[Conflict]:
    """Labels of earlier runs that are another segmentation's of the same name."""
    for one in plan.segmentations:
        labels = region_output("dseg", plan.image, one.words)
        yield from conflicts_of_segmentation(output_dir, labels, [one.uri, plan.image.uri])


def conflicts(plan: ImagePlan, output_dir: Path) -> Iterator[Conflict]:
    """Outputs of earlier runs that the plan would make differently."""
    if not (output_dir / image_folder(plan.image)).is_dir():
        return
    for fit in plan.fits:
        settings = fit_settings(fit.signal_model, fit.built, plan.mask_name, plan.noise.settings)
        outputs = [output.path for output in map_outputs(plan.image, fit.signal_model, fit.built, fit.trust).values()]
        yield from conflicts_of_fit(output_dir, plan.image, outputs, settings)
    for found in disagreements(plan):
        yield from conflicts_of_fit(output_dir, plan.image, found.paths, found.settings)
    raw, steps = (plan.image, nothing_done()) if plan.chain is None else (plan.chain.raw, plan.chain.settings)
    yield from conflicts_of_preprocessing(output_dir, raw, steps)
    yield from _conflicts_of_segmentations(plan, output_dir)
