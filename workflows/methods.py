"""The methods text: what the workflows do, with equations and citations.

Paragraphs are separated by empty lines; ``[@key]`` cites references.bib, ``$$...$$`` is an equation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bidsfit import __version__
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.estimator import Estimator


def methods_text(masks_given: Iterable[bool], fits: Iterable[Sequence[str]]) -> str:
    """Methods for a paper.

    Parameters
    ----------
    masks_given : iterable of bool
        For each image, whether its mask came with the data.
    fits : iterable of [str, str]
        Texts of `fit_methods`; what several fits share is said once.
    """
    given = set(masks_given)
    masks = []
    if True in given:
        masks.append("masks that came with the data")
    if False in given:
        masks.append("masks found by median_otsu of DIPY [@dipy] on the mean of the images of lowest b-value")
    models, estimators = zip(*fits, strict=True)
    return "\n\n".join(
        [
            "Diffusion MRI data organised according to the Brain Imaging Data Structure [@gorgolewski2016] were "
            f"analysed with bidsfit {__version__}, a BIDS App [@gorgolewski2017] based on Nipype [@nipype], pybids "
            "[@pybids] and NiBabel [@nibabel].",
            f"Fits were restricted to {' and to '.join(masks)}.",
            *dict.fromkeys(models),
            *dict.fromkeys(estimators),
            "Equations were differentiated with SymPy [@sympy] and compiled with Numba [@numba]; arrays are "
            "NumPy's [@numpy], and SciPy [@scipy] served the statistics.",
        ]
    )


def fit_methods(estimator: Estimator) -> list[str]:
    """Texts about the model of a fit, with its equation and bounds, and about its estimator."""
    model = estimator.model
    bounds = "; ".join(
        f"${p.latex}$ {lower:g} to {upper:g} {REPORT_UNITS[p.unit].name}".rstrip()
        for p, (lower, upper) in zip(model.parameters, estimator.bounds, strict=True)
        if p.name != model.scale
    )
    limit = ""
    if np.isfinite(model.maximum_b):
        limit = f" Measurements above b = {model.maximum_b:g} s/mm² were left out."
    if model.excluded_b is not None:
        limit += " So were those between b = {:g} and {:g} s/mm².".format(*model.excluded_b)
    return [
        f"{model.title} ({model.name}){_cite(model.references)}. {model.description} The signal is\n\n"
        f"$${model.latex}$$\n\n"
        f"Bounds: {bounds}.{limit}",
        f"{estimator.title}{_cite(estimator.references)}. {estimator.methods}",
    ]


def _cite(keys: Sequence[str]) -> str:
    return f" [{'; '.join('@' + key for key in keys)}]" if keys else ""
