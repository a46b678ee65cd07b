"""Workflow from a raw image to a preprocessed one, and assessment of its quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.bids.fieldmaps import phase_encoding_of
from bidsfit.bids.left_out import left_out_of, without_in_sidecar
from bidsfit.bids.metadata import read_sidecar, slice_axis
from bidsfit.bids.outputs import file_output, json_path
from bidsfit.bids.series import SERIES
from bidsfit.interfaces.derivatives import WriteVolume
from bidsfit.interfaces.preprocessed import WritePreprocessed
from bidsfit.interfaces.quality import AssessQuality, RecordSteps, quality_record_path
from bidsfit.interfaces.raw import FindNoise, LoadRaw
from bidsfit.interfaces.volumes import JoinSeries, LeaveOutVolumes
from bidsfit.planning.plan import ImagePlan
from bidsfit.steps.step import Planned

#: Memory of Python with its libraries, GB, and how many copies of the image a step holds at most.
BASE_MEMORY, COPIES = 0.7, 4

#: Sentence of the methods text about series with a map of the transmit field.
CORRECTED = "Flip angles were those of a map of the transmit field."

#: What is known of an image after volumes that do not belong were left out, and what else the fits need.
KEPT = ("in_file", "bval", "bvec", "sidecar", "left_out")
NOISE = ("noise_map", "noise_words")
SCAN = (*KEPT, *NOISE)

#: What is told of the way there.
TOLD = ("facts", "files", "transforms")


def is_preprocessed(plan: ImagePlan, output_dir: Path) -> bool:
    """Whether all outputs of the preprocessing and of its assessment exist."""
    chain, image = plan.chain, plan.image
    if image.series:
        return quality_record_path(output_dir, image).exists()
    kinds = ["confounds", "quality"]
    paths = [quality_record_path(output_dir, image)]
    if chain is not None and chain.changes:
        kinds += ["preproc", *(["level"] if chain.measures_noise else [])]
        paths += filter(None, (image.bval, image.bvec))
    return all(path.exists() for path in [*paths, *(output_dir / file_output(kind, image) for kind in kinds)])


def noise_of(plan: ImagePlan, output_dir: Path) -> tuple[str, str]:
    """Noise map of the raw image from an earlier run, and a description of the method."""
    path = output_dir / file_output("level", plan.image)
    return str(path), str(read_sidecar(json_path(path)).get("Method", path.name))


def add_scan(
    workflow: pe.Workflow, plan: ImagePlan, *, output_dir: Path, omp_nthreads: int, scratch: str = ""
) -> pe.Node:
    """Add a node that outputs the image to be fitted, with its sidecar, left-out volumes and noise.

    A series is joined into one image. Of a diffusion image, unsuitable volumes are left out first; then it is
    preprocessed if its chain changes signals. The result of an earlier run is used if it is complete.
    """
    image, chain = plan.image, plan.chain
    scan = pe.Node(niu.IdentityInterface([*SCAN, *TOLD], mandatory_inputs=False), name="scan")
    changes = chain is not None and chain.changes
    done = changes and is_preprocessed(plan, output_dir)
    if image.noise_map is not None and (done or not changes):
        scan.inputs.noise_map = str(image.noise_map)
    if image.series:
        scan.inputs.sidecar, scan.inputs.left_out = image.sidecar, []
        files = [str(path) for path in image.series]
        join = JoinSeries(
            files=files,
            magnitudes=SERIES[image.suffix].magnitudes,
            imaginary=[str(path) for path in image.imaginary],
            polarity=[str(path) for path in image.polarity],
            phase_unit=image.phase_unit,
        )
        join = pe.Node(join, name="volumes", mem_gb=_memory(plan))
        workflow.connect(join, "out_file", scan, "in_file")
        return scan
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
            scratch=scratch,
            version=__version__,
        ),
        name="volumes",
        mem_gb=_memory(plan),
    )
    if raw.bvec is not None:
        leave_out.inputs.bvec = str(raw.bvec)
    if changes:
        preprocessing_wf = init_preprocessing_wf(
            plan, output_dir=output_dir, omp_nthreads=omp_nthreads, scratch=scratch
        )
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
    workflow: pe.Workflow,
    plan: ImagePlan,
    scan: pe.Node,
    prepare: pe.Node,
    *,
    output_dir: Path,
    omp_nthreads: int,
    scratch: str = "",
) -> None:
    """Add nodes that assess the quality of the image and segment its tissues, unless an earlier run has done so.

    Parameters
    ----------
    workflow : Workflow
    plan : ImagePlan
    scan : Node
        From `add_scan`.
    prepare : Node
        `PrepareImage`, which outputs the mask and the mean image of the lowest b-value.
    output_dir : Path
    omp_nthreads : int
        Number of threads of a step.
    scratch : str
        See `bidsfit.workflows.estimation.init_image_wf`.
    """
    image, chain = plan.image, plan.chain
    if is_preprocessed(plan, output_dir):
        return
    if image.series:
        rows = [] if chain is None else chain.rows
        methods = [CORRECTED] if image.covariate is not None else []
        record = RecordSteps(image=image.to_dict(), steps=rows, methods=methods, output_dir=str(output_dir))
        workflow.add_nodes([pe.Node(record, name="assess", overwrite=True)])
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
            scratch=scratch,
            version=__version__,
        ),
        name="assess",
        mem_gb=_memory(plan),
    )
    assess.overwrite = True  # what it leaves is not all there
    given = ("in_file", "bval", "bvec", "left_out", "noise_map")
    workflow.connect([(scan, assess, [(name, name) for name in (*given, "transforms")])])
    workflow.connect(prepare, "mask", assess, "mask")
    line = _Line(workflow, plan, omp_nthreads)
    line.ports |= {name: (scan, name) for name in given}
    line.ports |= {name: (prepare, name) for name in ("reference", "mask")}
    for step in () if chain is None else chain.steps:
        if step.method and not step.step.changes:
            line.add_step(step)
    line.tell(assess, before=[scan])
    if "dseg" in line.ports:
        write = pe.Node(
            WriteVolume(kind="tissue", image=image.to_dict(), output_dir=str(output_dir)), name="write_tissue"
        )
        workflow.connect(*line.ports["dseg"], write, "in_file")
        workflow.connect(*line.ports["table"], write, "table")


class _Line:
    """A chain of nodes. Each input is connected to the last node with an output of that name.

    ``ports`` are the node and output for each name, ``given`` the inputs that are known before the run.
    """

    def __init__(self, workflow: pe.Workflow, plan: ImagePlan, threads: int = 1) -> None:
        self.workflow, self.plan, self.threads = workflow, plan, threads
        self.ports: dict[str, tuple[pe.Node, str]] = {}
        self.steps: list[pe.Node] = []  # those that say what they found
        self.given: dict[str, Any] = {"version": __version__}
        self.image = plan.image if plan.chain is None else plan.chain.raw
        if plan.chain is not None:
            raw, helping = self.image, plan.chain.helping
            self.given |= {
                "slice_axis": slice_axis(raw.sidecar),
                "direction": phase_encoding_of(raw.sidecar),
                "reversed_phase": None if helping.reversed_phase is None else helping.reversed_phase.to_dict(),
                "anatomy": None if helping.anatomy is None else helping.anatomy.to_dict(),
                "moved": bool(plan.chain.method("motion")),
                "interpolation": plan.chain.interpolation,
                "phase": None if helping.phase is None else str(helping.phase),
                "phase_unit": helping.phase_unit or None,
                "real": bool(plan.chain.method("phase")),
            }

    def add(self, interface: Any, name: str, *, threads: int = 1, memory: float = 0.0) -> pe.Node:
        """Append a node."""
        wanted = set(interface.inputs.copyable_trait_names())
        given = {**self.given, "step": name, "label": f"{self.image.name} {name}", "threads": threads}
        for key in (wanted & given.keys()) - self.ports.keys():
            if given[key] is not None:
                setattr(interface.inputs, key, given[key])
        node = pe.Node(interface, name=name, n_procs=threads, mem_gb=max(_memory(self.plan), memory))
        self.workflow.add_nodes([node])
        for port in wanted & self.ports.keys():
            self.workflow.connect(*self.ports[port], node, port)
        for port in set(interface.output_spec().copyable_trait_names()) - {"facts", "pictures"}:
            self.ports["in_file" if port == "out_file" else port] = (node, port)
        return node

    def add_step(self, planned: Planned) -> pe.Node:
        """Append a step."""
        assert planned.how is not None
        self.given |= {"method": planned.method, "needed": planned.needed}
        node = self.add(planned.how.interface(), planned.name, threads=self.threads, memory=planned.step.memory)
        self.steps.append(node)
        return node

    def tell(self, node: pe.Node, before: Sequence[pe.Node] = ()) -> None:
        """Connect a node to the findings and files of the nodes ``before`` and of all steps."""
        for port in ("facts", "files"):
            given = [(other, port) for other in before]
            for step in self.steps:
                names = ("facts",) if port == "facts" else ("out_file", "pictures")
                given += [(step, name) for name in names if name in step.outputs.copyable_trait_names()]
            if not hasattr(node.inputs, port):
                continue
            if not self.steps:
                self.workflow.connect([(other, node, [(name, port)]) for other, name in given])
                continue
            merge = pe.Node(niu.Merge(len(given)), name=f"{node.name}_{port}", run_without_submitting=True)
            for i, source in enumerate(given, start=1):
                self.workflow.connect(*source, merge, f"in{i}")
            self.workflow.connect(merge, "out", node, port)


def _memory(plan: ImagePlan) -> float:
    """Memory of a step, GB: a few copies of the image as 32-bit floats."""
    return float(BASE_MEMORY + COPIES * np.prod(plan.shape, dtype=float) * 4 / 1e9)


def init_preprocessing_wf(plan: ImagePlan, *, output_dir: Path, omp_nthreads: int, scratch: str = "") -> pe.Workflow:
    """Build the workflow that preprocesses one raw image; it contains only the steps of its chain.

    .. code-block:: text

        inputnode -> load -> phase -> denoise -> gibbs -> rician -> susceptibility -> motion -> write -> outputnode
                      |                 |                   |                                     |
                      +-----------------+----> noise -------+-------------------------------------+

    Parameters
    ----------
    plan : ImagePlan
        Its chain must change the signals.
    output_dir : Path
    omp_nthreads : int
        Number of threads of a step.
    scratch : str
        See `bidsfit.workflows.estimation.init_image_wf`.

    Inputs
    ------
    in_file, bval, bvec, sidecar, left_out
        The raw image, from `LeaveOutVolumes`.

    Outputs
    -------
    in_file, bval, bvec, sidecar, left_out, noise_map, noise_words
        The preprocessed image in ``output_dir``, and the noise level of the raw one.
    """
    chain = plan.chain
    assert chain is not None
    raw = chain.raw
    workflow = pe.Workflow(name="preprocessing_wf")
    inputnode = pe.Node(niu.IdentityInterface([*KEPT], mandatory_inputs=False), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface([*SCAN, *TOLD], mandatory_inputs=False), name="outputnode")
    line = _Line(workflow, plan, omp_nthreads)
    line.ports |= {name: (inputnode, name) for name in KEPT}
    load = LoadRaw(body=chain.body, scratch=scratch)
    if raw.mask is not None:
        load.inputs.in_mask = str(raw.mask)
    line.steps.append(line.add(load, "load"))
    if chain.measures_noise:
        noise = FindNoise(sigma=plan.noise.level)
        if raw.noise_map is not None:
            noise.inputs.in_noise = str(raw.noise_map)
        noise = line.add(noise, "noise", threads=omp_nthreads)
    for step in chain.changing:
        line.add_step(step)
    if chain.measures_noise and "mppca_map" in line.ports:
        workflow.connect(*line.ports["mppca_map"], noise, "mppca_map")
    write = line.add(WritePreprocessed(image=raw.to_dict(), steps=chain.settings, output_dir=str(output_dir)), "write")
    line.tell(write)
    line.tell(outputnode)
    for name in (*SCAN, "transforms"):
        if name in line.ports:
            workflow.connect(*line.ports[name], outputnode, name)
    return workflow
