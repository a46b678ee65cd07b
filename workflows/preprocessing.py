"""From a raw image to one that can be fitted, and its quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.bids.fieldmaps import phase_encoding_of
from bidsfit.bids.left_out import left_out_of, without_in_sidecar
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.outputs import file_output, json_path
from bidsfit.interfaces.derivatives import WriteVolume
from bidsfit.interfaces.fsl import Eddy, Topup
from bidsfit.interfaces.preprocessed import WritePreprocessed
from bidsfit.interfaces.preprocessing import (
    CorrectMotion,
    CorrectRician,
    Denoise,
    EstimateField,
    FindNoise,
    LoadRaw,
    RemoveRinging,
    slice_axis,
)
from bidsfit.interfaces.quality import AssessQuality, quality_record_path
from bidsfit.interfaces.tissue import SegmentTissue
from bidsfit.interfaces.volumes import LeaveOutVolumes
from bidsfit.planning.plan import ImagePlan
from bidsfit.preprocessing.steps import CHANGING

#: Memory of Python with its libraries, GB, and how many copies of the image a step holds at most.
BASE_MEMORY, COPIES = 0.7, 4

#: What is known of an image after volumes that do not belong were left out, and what else the fits need.
KEPT = ("in_file", "bval", "bvec", "sidecar", "left_out")
NOISE = ("noise_map", "noise_words")
SCAN = (*KEPT, *NOISE)

#: What is told of the way there.
TOLD = ("stages", "stage_names", "facts", "fact_names", "transforms", "pictures")


def is_preprocessed(plan: ImagePlan, output_dir: Path) -> bool:
    """Whether an earlier run left everything that preprocessing and its assessment leave."""
    chain, image = plan.chain, plan.image
    kinds = ["confounds", "quality"]
    paths = [quality_record_path(output_dir, image)]
    if chain is not None and chain.changes:
        kinds += ["preproc", *(["level"] if chain.measures_noise else [])]
        paths += [image.bval, *([image.bvec] if image.bvec else [])]
    return all(path.exists() for path in [*paths, *(output_dir / file_output(kind, image) for kind in kinds)])


def noise_of(plan: ImagePlan, output_dir: Path) -> tuple[str, str]:
    """The noise map that an earlier run left of the raw image, and how it was found."""
    path = output_dir / file_output("level", plan.image)
    return str(path), str(read_sidecar(json_path(path)).get("Method", path.name))


def add_scan(
    workflow: pe.Workflow, plan: ImagePlan, *, output_dir: Path, omp_nthreads: int, low_memory: bool = False
) -> pe.Node:
    """Add the node that gives the image that is fitted, and what is told of it.

    Volumes that do not belong are left out first. Then the image is taken as it is, or preprocessed; or it is taken as
    an earlier run left it.
    """
    image, chain = plan.image, plan.chain
    scan = pe.Node(niu.IdentityInterface([*SCAN, *TOLD], mandatory_inputs=False), name="scan")
    changes = chain is not None and chain.changes
    done = changes and is_preprocessed(plan, output_dir)
    if image.noise_map is not None and (done or not changes):
        scan.inputs.noise_map = str(image.noise_map)
    if done:
        rows = left_out_of(json_path(image.path))
        scan.inputs.in_file, scan.inputs.bval, scan.inputs.left_out = str(image.path), str(image.bval), rows
        scan.inputs.sidecar = without_in_sidecar(image.sidecar, rows)
        if image.bvec is not None:
            scan.inputs.bvec = str(image.bvec)
        if chain is not None and chain.tells_noise:
            scan.inputs.noise_map, scan.inputs.noise_words = noise_of(plan, output_dir)
        return scan
    raw = image if chain is None else chain.raw
    leave_out = pe.Node(
        LeaveOutVolumes(
            in_file=str(raw.path),
            bval=str(raw.bval),
            sidecar=raw.sidecar,
            low_memory=low_memory,
            version=__version__,
        ),
        name="volumes",
        mem_gb=_memory(plan),
    )
    if raw.bvec is not None:
        leave_out.inputs.bvec = str(raw.bvec)
    if changes:
        preprocessing_wf = init_preprocessing_wf(plan, output_dir=output_dir, omp_nthreads=omp_nthreads)
        workflow.connect(
            [
                (leave_out, preprocessing_wf, [(name, f"inputnode.{name}") for name in KEPT]),
                (preprocessing_wf, scan, [(f"outputnode.{name}", name) for name in (*SCAN, *TOLD)]),
            ]
        )
    else:
        workflow.connect([(leave_out, scan, [(name, name) for name in KEPT])])
    return scan


def add_assessment(
    workflow: pe.Workflow, plan: ImagePlan, scan: pe.Node, prepare: pe.Node, *, output_dir: Path
) -> None:
    """Add the nodes that say how good the image is, and which tissue each voxel holds; none where that was done.

    Parameters
    ----------
    workflow : Workflow
    plan : ImagePlan
    scan : Node
        Of `add_scan`.
    prepare : Node
        `PrepareImage`: the mask, and the mean of the images of the lowest b-value.
    output_dir : Path
    """
    image, chain = plan.image, plan.chain
    if is_preprocessed(plan, output_dir):
        return
    raw = image if chain is None else chain.raw
    assess = pe.Node(
        AssessQuality(
            image=image.to_dict(),
            source=raw.uri,
            steps=[] if chain is None else chain.rows,
            methods={} if chain is None else chain.methods,
            slice_axis=slice_axis(raw.sidecar),
            output_dir=str(output_dir),
            version=__version__,
        ),
        name="assess",
        mem_gb=_memory(plan),
    )
    assess.overwrite = True  # what it leaves is not all there
    given = ("in_file", "bval", "bvec", "left_out", "noise_map", *TOLD)
    workflow.connect([(scan, assess, [(name, name) for name in given])])
    workflow.connect(prepare, "mask", assess, "mask")
    if chain is None or not chain.method("tissue"):
        return
    assert chain.helping.anatomy is not None
    tissue = pe.Node(
        SegmentTissue(anatomy=chain.helping.anatomy.to_dict(), version=__version__), name="tissue", mem_gb=4
    )
    write = pe.Node(WriteVolume(kind="tissue", image=image.to_dict(), output_dir=str(output_dir)), name="write_tissue")
    workflow.connect(
        [
            (prepare, tissue, [("reference", "reference"), ("mask", "mask")]),
            (tissue, write, [("dseg", "in_file"), ("table", "table")]),
            (tissue, assess, [("dseg", "tissue"), ("anatomical", "anatomical"), ("facts", "tissue_facts")]),
        ]
    )


def _memory(plan: ImagePlan) -> float:
    """Memory of a step, GB: a few copies of the image as 32-bit floats."""
    return float(BASE_MEMORY + COPIES * np.prod(plan.shape, dtype=float) * 4 / 1e9)


def init_preprocessing_wf(plan: ImagePlan, *, output_dir: Path, omp_nthreads: int) -> pe.Workflow:
    """Build the workflow that prepares one raw image; steps that its chain leaves out are not in it.

    .. code-block:: text

        inputnode -> load -> denoise -> gibbs -> noise, rician -> susceptibility -> motion -> write -> outputnode
                                                                  (or topup -> eddy)

    Parameters
    ----------
    plan : ImagePlan
        With a chain that changes the signals.
    output_dir : Path
    omp_nthreads : int
        Threads of one step.

    Inputs
    ------
    in_file, bval, bvec, sidecar, left_out
        The raw image as `LeaveOutVolumes` gives it.

    Outputs
    -------
    in_file, bval, bvec, sidecar, left_out, noise_map, noise_words
        The preprocessed image in ``output_dir``, and the noise level of the raw one.
    """
    chain = plan.chain
    assert chain is not None
    raw, body = chain.raw, chain.body
    workflow = pe.Workflow(name="preprocessing_wf")
    memory = _memory(plan)
    outputnode = pe.Node(niu.IdentityInterface([*SCAN, *TOLD], mandatory_inputs=False), name="outputnode")

    def node(interface: type, name: str, threads: int = 1, **inputs: object) -> pe.Node:
        given = {key: value for key, value in inputs.items() if value is not None}
        made = interface(label=f"{raw.name} {name}", threads=threads, version=__version__, **given)
        return pe.Node(made, name=name, n_procs=threads, mem_gb=memory)

    inputnode = pe.Node(niu.IdentityInterface([*KEPT], mandatory_inputs=False), name="inputnode")
    load = node(LoadRaw, "load", in_mask=None if raw.mask is None else str(raw.mask), body=body)
    write = pe.Node(
        WritePreprocessed(image=raw.to_dict(), steps=chain.settings, output_dir=str(output_dir)),
        name="write",
        mem_gb=memory,
    )
    workflow.connect(
        [
            (inputnode, load, [(name, name) for name in ("in_file", "bval", "bvec", "left_out")]),
            (inputnode, write, [(name, name) for name in ("bval", "sidecar", "left_out")]),
            (inputnode, outputnode, [(name, name) for name in ("sidecar", "left_out")]),
        ]
    )
    steps: dict[str, pe.Node] = {"load": load}  # in their order; what each finds is told
    last = load

    def add(name: str, step: pe.Node) -> pe.Node:
        """Put a step behind the last one."""
        workflow.connect(last, "out_file", step, "in_file")
        steps[name] = step
        return step

    if chain.method("denoise"):
        last = add("denoise", node(Denoise, "denoise", omp_nthreads, method=chain.method("denoise")))
        workflow.connect(load, "region", last, "region")
    if chain.method("gibbs"):
        last = add("gibbs", node(RemoveRinging, "gibbs", omp_nthreads, slice_axis=slice_axis(raw.sidecar)))
    if chain.measures_noise:
        noise = node(FindNoise, "noise", omp_nthreads, sigma=plan.noise.level)
        workflow.connect(inputnode, "bval", noise, "bval")
        if raw.noise_map is not None:
            noise.inputs.in_noise = str(raw.noise_map)
        workflow.connect([(load, noise, [("out_file", "in_file"), ("region", "region"), ("bvec", "bvec")])])
        if chain.method("denoise") == "mppca":
            workflow.connect(steps["denoise"], "noise_map", noise, "mppca_map")
        workflow.connect([(noise, write, [("noise_map", "noise_map"), ("words", "noise_words")])])
    if chain.method("rician"):
        last = add("rician", node(CorrectRician, "rician"))
        workflow.connect(noise, "noise_map", last, "noise_map")

    directions = load
    if chain.method("susceptibility") or chain.method("motion"):
        last = directions = add("motion", _place(node, workflow, plan, load, last, steps, omp_nthreads))
    workflow.connect(
        [
            (last, write, [("out_file", "in_file")]),
            (directions, write, [("bvec", "bvec")]),
            (load, write, [("missing", "missing")]),
            (write, outputnode, [("out_file", "in_file"), *((name, name) for name in ("bval", "bvec", *NOISE))]),
        ]
    )
    stages = ["load", *(name for name in CHANGING if name in steps and name != "susceptibility")]
    for port, output, names in (("stage", "out_file", stages), ("fact", "facts", list(steps))):
        merge = pe.Node(niu.Merge(len(names)), name=f"merge_{port}s", run_without_submitting=True)
        for i, name in enumerate(names, start=1):
            workflow.connect(steps[name], output, merge, f"in{i}")
        workflow.connect(merge, "out", outputnode, f"{port}s")
        setattr(outputnode.inputs, f"{port}_names", names)
    workflow.connect(merge, "out", write, "facts")
    write.inputs.fact_names = names
    return workflow


def _place(
    node: Callable[..., pe.Node],
    workflow: pe.Workflow,
    plan: ImagePlan,
    load: pe.Node,
    last: pe.Node,
    steps: dict[str, pe.Node],
    omp_nthreads: int,
) -> pe.Node:
    """The node that brings every volume to its place; the distortion is found before it."""
    chain = plan.chain
    assert chain is not None
    inputnode, direction = workflow.get_node("inputnode"), phase_encoding_of(chain.raw.sidecar)
    field = None
    if chain.method("susceptibility"):
        assert chain.helping.reversed_phase is not None
        interface = {"topup": Topup, "pyhysco": EstimateField}[chain.method("susceptibility")]
        field = node(
            interface,
            "susceptibility",
            omp_nthreads,
            reversed_phase=chain.helping.reversed_phase.to_dict(),
        )
        steps["susceptibility"] = field
        workflow.connect([(last, field, [("out_file", "in_file")]), (inputnode, field, [("left_out", "left_out")])])
        workflow.connect(field, "pictures", workflow.get_node("outputnode"), "pictures")
    method = chain.method("motion") or "none"
    if method == "eddy":
        place = node(Eddy, "motion", omp_nthreads, sidecar=chain.raw.sidecar)
        if chain.method("susceptibility") == "topup":
            workflow.connect(field, "topup", place, "topup")
    else:
        place = node(CorrectMotion, "motion", omp_nthreads, method=method, direction=direction)
        workflow.connect(inputnode, "left_out", place, "left_out")
        if field is not None:
            workflow.connect(field, "field", place, "field")
    workflow.connect([(load, place, [("bvec", "bvec"), ("region", "region")]), (inputnode, place, [("bval", "bval")])])
    workflow.connect(place, "transforms", workflow.get_node("outputnode"), "transforms")
    return place
