"""Methods text that describes the workflows, with equations and citations.

Paragraphs are separated by empty lines; ``[@key]`` cites references.bib, ``$$...$$`` is an equation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bidsfit import __version__
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.estimator import Estimator
from bidsfit.models.organs import ORGANS
from bidsfit.planning.plan import FOUND_BODY, FOUND_BODY_IN_SERIES, FOUND_IN_SERIES, FOUND_MASK, ParticipantPlan
from bidsfit.reports.records import FitRecord, ImageRecord, PreprocessingRecord, Record
from bidsfit.reports.words import with_unit
from bidsfit.trust.cache import Trust
from bidsfit.trust.companions import is_simulated

#: How the masks that a run finds are told of; others came with the data.
MASKS = {
    FOUND_MASK: "masks found by Otsu's threshold [@otsu1979; @dipy] on the median-filtered mean images of the lowest "
    "b-value and of that nearest to 1000 s/mm², without thin bridges and islands, and with holes filled",
    FOUND_BODY: "voxels whose mean signal at the lowest b-value is at least half its median",
    FOUND_IN_SERIES: "masks found by Otsu's threshold [@otsu1979; @dipy] on the median-filtered brightest "
    "image of the series, without thin bridges and islands, and with holes filled",
    FOUND_BODY_IN_SERIES: "voxels whose signal in the brightest image of the series is at least half its median",
}

#: How the errors of an estimator were found, where they were simulated.
SIMULATED = (
    "Its errors were simulated: parameters drawn from the priors of the model and uniformly within its bounds were "
    "measured with this protocol at a signal-to-noise ratio between 3 and 300, with noise of the kind of the data, and "
    "estimated. Bias, standard deviation and response (the change of the mean estimate per change of the truth) are "
    "smooth functions of parameters and noise, averaged over the truths that an estimate may come from; intervals that "
    "the estimator does not state itself are conformal [@lei2018]."
)


def methods_of(records: Iterable[Record]) -> str:
    """Methods text about the fitted images, from their records; empty without fits."""
    masks: dict[str, set[str]] = {}  # what is said, and of which images
    steps: dict[str, set[str]] = {}
    fits: dict[tuple[str, ...], None] = {}
    fitted: set[str] = set()
    for record in records:
        if isinstance(record, FitRecord):
            fits[tuple(record.methods)] = None
            fitted.add(record.image)
        elif isinstance(record, ImageRecord):
            masks.setdefault(record.mask_description, set()).add(record.name)
        elif isinstance(record, PreprocessingRecord):
            for sentence in record.methods:
                steps.setdefault(sentence, set()).add(record.image)
    if not fits:
        return ""
    in_masks, in_steps = ([words for words, images in said.items() if images & fitted] for said in (masks, steps))
    return methods_text(in_masks, fits, in_steps, diffusion=any(name.endswith("_dwi") for name in fitted))


def methods_text(
    masks: Iterable[str],
    fits: Iterable[Sequence[str]],
    preprocessing: Iterable[str] = (),
    *,
    diffusion: bool = True,
) -> str:
    """Assemble the methods text for a paper; repeated texts appear once.

    Parameters
    ----------
    masks : iterable of str
        Source of the mask of each image.
    preprocessing : iterable of str
        Sentences about the applied steps.
    fits : iterable of [str, str]
        Texts of `fit_methods`.
    diffusion : bool
        Whether there are diffusion images.
    """
    phrases = dict.fromkeys(MASKS.get(mask, "masks that came with the data") for mask in masks)
    models, estimators = zip(*fits, strict=True)
    return "\n\n".join(
        [
            f"{'Diffusion MRI' if diffusion else 'MRI'} data organised according to the Brain Imaging Data Structure "
            f"[@gorgolewski2016] were analysed with bidsfit {__version__}, a BIDS App [@gorgolewski2017] based on "
            "Nipype [@nipype] and NiBabel [@nibabel].",
            *([" ".join(steps)] if (steps := dict.fromkeys(preprocessing)) else []),
            f"Fits were restricted to {' and to '.join(phrases)}.",
            *dict.fromkeys(models),
            *dict.fromkeys(estimators),
            "Equations were differentiated with SymPy [@sympy] and compiled with Numba [@numba]; arrays are "
            "NumPy's [@numpy], and further numerics SciPy's [@scipy].",
        ]
    )


def methods_of_plans(plans: Sequence[ParticipantPlan]) -> str:
    """Methods text of planned runs."""
    images = [image for plan in plans for image in plan.images]
    fits = {(fit.model, fit.name): fit for image in images for fit in image.fits}
    chains = [image.chain for image in images if image.chain is not None]
    return methods_text(
        [image.mask_name for image in images],
        [fit_methods(fit.built, fit.trust) for fit in fits.values()],
        [sentence for chain in chains for sentence in chain.methods.values()],
        diffusion=not all(image.image.series for image in images),
    )


def fit_methods(estimator: Estimator, trust: Trust = "off") -> list[str]:
    """Texts about the model of a fit, with equation and bounds, and about its estimator and its errors."""
    model = estimator.model
    bounds = "; ".join(
        f"${p.latex}$ {with_unit(f'{lower:g} to {upper:g}', REPORT_UNITS[p.unit].name)}"
        for p, (lower, upper) in zip(model.parameters, estimator.bounds, strict=True)
        if p.name != model.scale
    )
    preset = ""
    if model.organ in ORGANS:
        preset = (
            f" Bounds, starting values and priors were those of {ORGANS[model.organ].title}, from published values"
            f"{_cite(ORGANS[model.organ].references)}."
        )
    limit = ""
    if np.isfinite(model.maximum_b):
        limit = f" Measurements up to b = {model.maximum_b:g} s/mm² were fitted"
        limit += (
            "."
            if model.excluded_b is None
            else ", without those between {:g} and {:g} s/mm².".format(*model.excluded_b)
        )
    return [
        f"{model.title} ({model.name}){_cite(model.references)}. {model.description} The signal is\n\n"
        f"$${model.latex}$$\n\n"
        f"Bounds: {bounds}.{preset}{limit}",
        f"{estimator.title}{_cite(estimator.references)}. {estimator.methods}"
        + (f" {SIMULATED}" if is_simulated(estimator, trust) else ""),
    ]


def _cite(keys: Sequence[str]) -> str:
    return f" [{'; '.join('@' + key for key in keys)}]" if keys else ""
