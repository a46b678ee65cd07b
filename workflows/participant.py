"""Workflow of the participant level, with all participants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nipype.pipeline import engine as pe

from bidsfit.planning.plan import ImagePlan, ParticipantPlan
from bidsfit.workflows.estimation import init_image_wf, node_name
from bidsfit.workflows.training import TrainedStore

#: Name of the workflow, and of its folder in the work folder.
WORKFLOW = "bidsfit_wf"


def participant_name(label: str) -> str:
    """Name of the workflow of a participant."""
    return f"sub_{node_name(label)}_wf"


def image_part(plan: ImagePlan) -> str:
    """Name of the workflow of an image, with that of its participant, as in full names of nodes."""
    return f"{participant_name(plan.image.participant)}.{node_name(plan.image.name)}_wf"


def unpacked_folder(work_dir: Path, plan: ImagePlan) -> Path:
    """Folder in which the steps of an image share unpacked copies of the images that they read."""
    return work_dir.joinpath(WORKFLOW, *image_part(plan).split("."), "unpacked")


def init_participants_wf(
    plans: Sequence[ParticipantPlan],
    *,
    work_dir: Path,
    output_dir: Path,
    run_uuid: str,
    omp_nthreads: int,
    training: TrainedStore | None = None,
) -> pe.Workflow:
    """Build the workflow of all participants with something to fit.

    Parameters
    ----------
    plans : sequence of ParticipantPlan
    work_dir : Path
        Nipype's cache, from which an interrupted run resumes.
    output_dir : Path
    run_uuid : str
        Crash files go to ``sub-X/log/<run_uuid>``.
    omp_nthreads, training
        See `init_image_wf`.
    """
    workflow = pe.Workflow(name=WORKFLOW, base_dir=str(work_dir))
    for plan in plans:
        if not plan.images:
            continue
        participant_wf = pe.Workflow(name=participant_name(plan.label))
        for image in plan.images:
            image_wf = init_image_wf(
                image,
                output_dir=output_dir,
                omp_nthreads=omp_nthreads,
                scratch=str(unpacked_folder(work_dir, image)),
                training=training,
            )
            participant_wf.add_nodes([image_wf])
        workflow.add_nodes([participant_wf])
        crash_folder = log_folder(output_dir, plan.label) / run_uuid
        for name in participant_wf.list_node_names():
            participant_wf.get_node(name).config = {"execution": {"crashdump_dir": str(crash_folder)}}
    return workflow


def log_folder(output_dir: Path, label: str) -> Path:
    """Folder of the configurations and crash files of a participant; each run has its own folder in it."""
    return output_dir / f"sub-{label}" / "log"
