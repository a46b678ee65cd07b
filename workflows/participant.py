"""Workflow of the participant level, with all participants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import networkx as nx
from nipype.pipeline import engine as pe

from bidsfit.planning.plan import ImagePlan, ParticipantPlan
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.training import TrainedStore, node_name, share_training

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


class ParticipantsWorkflow(pe.Workflow):
    """Workflow of all participants, in which nodes of one image may need what those of another one find.

    Nipype connects two workflows in one direction only, even where their nodes form no cycle. Connections between
    images are therefore made when the workflow is flattened into its nodes.

    Attributes
    ----------
    across : list of (source, output, target, input)
        Connections between nodes, which are given by their full names.
    until : str
        Name of the last nodes to run: nothing that they do not depend on runs. Empty means all.
    """

    def __init__(self, name: str, base_dir: str | None = None) -> None:
        super().__init__(name, base_dir)
        self.across: list[tuple[str, str, str, str]] = []
        self.until = ""

    def _create_flat_graph(self) -> nx.DiGraph:
        graph = super()._create_flat_graph()
        nodes = {node.fullname: node for node in graph}
        for source, output, target, field in self.across:
            graph.add_edge(nodes[source], nodes[target], connect=[(output, field)])
        if self.until:
            last = [node for node in graph if node.name == self.until]
            graph.remove_nodes_from(set(graph).difference(last, *(nx.ancestors(graph, node) for node in last)))
        return graph


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
    workflow = ParticipantsWorkflow(name=WORKFLOW, base_dir=str(work_dir))
    workflow.until = "train" if training is not None and training.when == "first" else ""
    images: dict[str, tuple[ImagePlan, pe.Workflow]] = {}
    crash_folders: dict[pe.Workflow, str] = {}
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
            images[f"{WORKFLOW}.{image_part(image)}"] = (image, image_wf)
        workflow.add_nodes([participant_wf])
        crash_folders[participant_wf] = str(log_folder(output_dir, plan.label) / run_uuid)
    workflow.across += share_training(images)
    for participant_wf, folder in crash_folders.items():
        for name in participant_wf.list_node_names():
            participant_wf.get_node(name).config = {"execution": {"crashdump_dir": folder}}
    return workflow


def log_folder(output_dir: Path, label: str) -> Path:
    """Folder of the configurations and crash files of a participant; each run has its own folder in it."""
    return output_dir / f"sub-{label}" / "log"
