"""The participant level: a graph of all participants, and the methods text of what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.workflows.estimation import init_image_wf, node_name
from bidsfit.workflows.plan import Fit, ImagePlan, ParticipantPlan


def init_participants_wf(
    plans: Sequence[ParticipantPlan],
    *,
    work_dir: Path,
    output_dir: Path,
    run_uuid: str,
    omp_nthreads: int,
    low_memory: bool = False,
) -> pe.Workflow:
    """Build the workflow of all participants that have something to fit.

    Parameters
    ----------
    plans : sequence of ParticipantPlan
    work_dir : Path
        Where Nipype keeps what it has done; a run that is started again resumes from it.
    output_dir : Path
    run_uuid : str
        Crash files go to ``sub-X/log/<run_uuid>``.
    omp_nthreads : int
    low_memory : bool
    """
    workflow = pe.Workflow(name="bidsfit_wf", base_dir=str(work_dir))
    for plan in plans:
        if not plan.images:
            continue
        participant_wf = pe.Workflow(name=f"sub_{node_name(plan.label)}_wf")
        for image in plan.images:
            image_wf = init_image_wf(image, output_dir=output_dir, omp_nthreads=omp_nthreads, low_memory=low_memory)
            participant_wf.add_nodes([image_wf])
        workflow.add_nodes([participant_wf])
        crash_folder = log_folder(output_dir, plan.label, run_uuid)
        for name in participant_wf.list_node_names():
            participant_wf.get_node(name).config = {"execution": {"crashdump_dir": str(crash_folder)}}
    return workflow


def log_folder(output_dir: Path, label: str, run_uuid: str) -> Path:
    """Where the configuration and the crash files of a run are kept for one participant."""
    return output_dir / f"sub-{label}" / "log" / run_uuid


def methods_text(images: Sequence[ImagePlan]) -> str:
    """Methods for a paper: what was done to these images, with equations and citations.

    Paragraphs are separated by empty lines; ``[@key]`` cites references.bib, ``$$...$$`` is an equation.
    """
    fits = list({(fit.model, fit.estimator): fit for image in images for fit in image.fits}.values())
    paragraphs = [
        f"Diffusion MRI data organised according to the Brain Imaging Data Structure [@gorgolewski2016] were analysed "
        f"with bidsfit {__version__}, a BIDS App [@gorgolewski2017] based on Nipype [@nipype], pybids "
        f"[@pybids] and NiBabel [@nibabel]."
    ]
    given = sum(image.image.mask is not None for image in images)
    masks = []
    if given:
        masks.append("masks that came with the data")
    if given < len(images):
        masks.append("masks found by median_otsu of DIPY [@dipy] on the mean of the images of lowest b-value")
    paragraphs.append(f"Fits were restricted to {' and to '.join(masks)}.")
    for name in dict.fromkeys(fit.model for fit in fits):
        paragraphs.extend(_model_text(next(fit for fit in fits if fit.model == name)))
    for name in dict.fromkeys(fit.estimator for fit in fits):
        estimator = next(fit for fit in fits if fit.estimator == name).build()
        paragraphs.append(f"{estimator.title}{_cite(estimator.references)}. {estimator.methods}")
    paragraphs.append(
        "Equations were differentiated with SymPy [@sympy] and compiled with Numba [@numba]; arrays are "
        "NumPy's [@numpy], and SciPy [@scipy] served the statistics."
    )
    return "\n\n".join(paragraphs)


def _model_text(fit: Fit) -> list[str]:
    """The model of a fit, its equation and bounds."""
    estimator = fit.build()
    model = estimator.model
    bounds = "; ".join(
        f"${p.latex}$ {lower:g} to {upper:g} {REPORT_UNITS[p.unit].name}".rstrip()
        for p, (lower, upper) in zip(model.parameters, estimator.bounds, strict=True)
        if p.name != model.scale
    )
    limit = ""
    if np.isfinite(model.maximum_b):
        limit = f" Measurements above b = {model.maximum_b:g} s/mm² were left out."
    return [
        f"{model.title} ({model.name}){_cite(model.references)}. {model.description} The signal is",
        f"$${model.latex}$$",
        f"Bounds: {bounds}.{limit}",
    ]


def _cite(keys: Sequence[str]) -> str:
    return f" [{'; '.join('@' + key for key in keys)}]" if keys else ""
