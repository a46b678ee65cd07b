"""Workflow of one image: mask, noise, fits of all models and estimators, maps and figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bidsfit import __version__
from bidsfit.bids.outputs import file_output, json_path, lookup_path, map_outputs
from bidsfit.interfaces.comparison import PlotComparison, comparison_figure_paths
from bidsfit.interfaces.derivatives import WriteVolume
from bidsfit.interfaces.figures import PlotImage, image_figure_paths
from bidsfit.interfaces.fit import FitImage, fit_figure_paths
from bidsfit.interfaces.image import PrepareImage
from bidsfit.planning.fits import Fit
from bidsfit.planning.methods import fit_methods
from bidsfit.planning.plan import ImagePlan, disagreements
from bidsfit.reports.records import is_drawn
from bidsfit.workflows.preprocessing import add_assessment, add_scan
from bidsfit.workflows.training import TrainedStore, fit_name, init_sampling_node, init_training_node, node_name

#: Memory of Python with its libraries, GB.
BASE_MEMORY = 0.5

#: What fits need: the image that is fitted, and what `PrepareImage` finds; ``noise_map`` is there only where the noise
#: level is a map.
IMAGE = ("in_file", "bval", "bvec", "sidecar")
FOUND = ("mask", "facts", "noise_map")

#: Arrays of the size of a map that a fit holds at a time.
ARRAYS = 16


def init_image_wf(
    plan: ImagePlan,
    *,
    output_dir: Path,
    omp_nthreads: int,
    scratch: str = "",
    training: TrainedStore | None = None,
) -> pe.Workflow:
    """Build the workflow of one image.

    .. code-block:: text

        volumes -> [preprocessing_wf ->] scan -> prepare -> plot_image, assess
           |-> write_mask (if no mask was given), write_noise (with MP-PCA)
           |-> <model>_<estimator>_wf: [[sample ->] train ->] fit   (one for each fit)
                                                               '-> compare_<model>   (if a model has several estimators)

    Parameters
    ----------
    plan : ImagePlan
    output_dir : Path
    omp_nthreads : int
        Number of threads of a fit.
    scratch : str
        Folder of an unpacked copy of every image that is read, which is mapped; by default images are held in memory.
    training : TrainedStore, optional
        Folder of trained estimators, and device; by default a folder below ``output_dir``, and the processor.

    Outputs
    -------
    Files in ``output_dir``; a node whose files are missing runs again, and no other.
    """
    image = plan.image
    workflow = pe.Workflow(name=f"{node_name(image.name)}_wf")
    scan = add_scan(workflow, plan, output_dir=output_dir, omp_nthreads=omp_nthreads, scratch=scratch)
    prepare = pe.Node(
        PrepareImage(
            models=[row["name"] for row in plan.support if row["fitted"]],
            sigma="map" if plan.chain is not None and plan.chain.tells_noise else plan.noise.level,
            noise_kind=plan.noise.kind,
            body=plan.chain is not None and plan.chain.body,
            scratch=scratch,
            version=__version__,
        ),
        name="prepare",
        mem_gb=_memory(plan, in_memory=not scratch),
    )
    if image.mask is not None:
        prepare.inputs.in_mask = str(image.mask)
    workflow.connect(
        [
            (
                scan,
                prepare,
                [
                    *((name, name) for name in (*IMAGE, "left_out", "noise_words")),
                    ("noise_map", "in_noise"),
                ],
            )
        ]
    )
    common = {"image": image.to_dict(), "mask_name": plan.mask_name, "output_dir": str(output_dir)}

    plot_image = pe.Node(
        PlotImage(models=list(plan.support), warnings=list(plan.warnings), noise=plan.noise.settings, **common),
        name="plot_image",
        mem_gb=1,
    )
    plot_image.overwrite = _missing(image_figure_paths(output_dir, image).values())
    workflow.connect(
        [
            (prepare, plot_image, [(name, name) for name in ("mask", "mask_doubt", "facts", "reference", "voxels")]),
            (scan, plot_image, [(name, name) for name in IMAGE[1:]]),
        ]
    )

    add_assessment(workflow, plan, scan, prepare, output_dir=output_dir, omp_nthreads=omp_nthreads, scratch=scratch)
    own = {"mask": image.mask is None, "noise": prepare.inputs.sigma == "mppca"}
    for kind in (kind for kind, wanted in own.items() if wanted):
        target = output_dir / file_output(kind, image)
        write = pe.Node(WriteVolume(kind=kind, image=image.to_dict(), output_dir=str(output_dir)), name=f"write_{kind}")
        write.overwrite = _missing([target, json_path(target)])
        if kind == "mask":
            write.inputs.method = plan.mask_name
            workflow.connect(prepare, "mask_doubt", write, "doubt")
        workflow.connect(prepare, {"mask": "mask", "noise": "noise_map"}[kind], write, "in_file")

    fitted: dict[str, list[tuple[Fit, pe.Workflow]]] = {}
    for fit in plan.fits:
        fit_wf = init_fit_wf(
            plan, fit, output_dir=output_dir, omp_nthreads=omp_nthreads, scratch=scratch, training=training
        )
        workflow.connect(
            [
                (prepare, fit_wf, [(name, f"inputnode.{name}") for name in FOUND]),
                (scan, fit_wf, [(name, f"inputnode.{name}") for name in IMAGE]),
            ]
        )
        fitted.setdefault(fit.model, []).append((fit, fit_wf))

    for model, fits in fitted.items():
        if len(fits) < 2:
            continue
        compare = pe.Node(
            PlotComparison(
                image=image.to_dict(),
                model=model,
                fits=[{"organ": f.organ, "estimator": f.estimator, "options": f.options} for f, _ in fits],
                noise=plan.noise.settings,
                mask_name=plan.mask_name,
                trust=fits[0][0].trust,
                output_dir=str(output_dir),
            ),
            name=f"compare_{node_name(model)}",
            mem_gb=_memory(plan, in_memory=False),
        )
        apart = [output_dir / path for found in disagreements(plan) if found.model == model for path in found.paths]
        drawn = comparison_figure_paths(output_dir, image, fits[0][0].signal_model).values()
        compare.overwrite = _missing([*drawn, *apart, *map(json_path, apart)])
        workflow.connect([(prepare, compare, [("mask", "mask")]), (scan, compare, [(n, n) for n in IMAGE[1:]])])
        merge = pe.Node(niu.Merge(len(fits)), name=f"results_{node_name(model)}", run_without_submitting=True)
        for i, (_, fit_wf) in enumerate(fits, start=1):
            workflow.connect(fit_wf, "fit.result", merge, f"in{i}")
        workflow.connect(merge, "out", compare, "results")
    return workflow


def init_fit_wf(
    plan: ImagePlan,
    fit: Fit,
    *,
    output_dir: Path,
    omp_nthreads: int,
    scratch: str = "",
    training: TrainedStore | None = None,
) -> pe.Workflow:
    """Build the workflow of one fit.

    .. code-block:: text

        inputnode -> [[sample ->] train ->] fit
             '------------------------------^

    The parameters are those of `init_image_wf`.

    Inputs
    ------
    in_file, bval, bvec, sidecar
        The fitted image.
    mask, facts, noise_map
        Outputs of `PrepareImage`.
    """
    image, chosen = plan.image, training or TrainedStore(output_dir / "trained")
    inputnode = pe.Node(niu.IdentityInterface([*IMAGE, *FOUND], mandatory_inputs=False), name="inputnode")
    estimator = fit.built
    node = pe.Node(
        FitImage(
            image=image.to_dict(),
            mask_name=plan.mask_name,
            output_dir=str(output_dir),
            model=fit.model,
            organ=fit.organ,
            estimator=fit.estimator,
            options=fit.options,
            trust=fit.trust,
            device=chosen.device if fit.takes_device else "cpu",
            noise=plan.noise.settings,
            noise_kind=plan.noise.kind,
            methods=fit_methods(estimator, fit.trust),
            label=f"{image.name} {fit.model} {fit.name}",
            threads=omp_nthreads,
            scratch=scratch,
            version=__version__,
        ),
        name="fit",
        n_procs=omp_nthreads,
        mem_gb=_memory(plan, in_memory=not scratch),
    )
    if image.covariate is not None:
        node.inputs.covariate = str(image.covariate)
    outputs = map_outputs(image, estimator.model, estimator, fit.trust)
    maps = [output_dir / output.path for output in outputs.values()]
    files = [*maps, *map(json_path, maps)]
    if "flags" in outputs:
        files.append(lookup_path(output_dir / outputs["flags"].path))
    record = fit_figure_paths(output_dir, image, estimator)["record"]
    node.overwrite = True if _missing(files) or not is_drawn(record, output_dir) else None

    workflow = pe.Workflow(name=fit_name(fit))
    workflow.connect([(inputnode, node, [(name, name) for name in (*IMAGE, *FOUND)])])
    if fit.trains:
        train = init_training_node(plan, fit, training=chosen, omp_nthreads=omp_nthreads)
        workflow.connect(
            [
                (inputnode, train, [(name, name) for name in (*IMAGE, "facts")]),
                (train, node, [("trained", "trained")]),
            ]
        )
        if fit.scope is not None:
            sample = init_sampling_node(plan, fit, scratch=scratch, mem_gb=_memory(plan, in_memory=not scratch))
            workflow.connect([(inputnode, sample, [(name, name) for name in (*IMAGE, *FOUND)])])
            workflow.connect(sample, "voxels", train, "voxels")
    elif fit.trained is not None:
        node.inputs.trained = str(fit.trained)
    return workflow


def _memory(plan: ImagePlan, *, in_memory: bool) -> float:
    """Memory of a node that reads the image, GB: the maps, and the image if it is decompressed in memory."""
    held = plan.n_bytes if in_memory and plan.image.path.suffix == ".gz" else 0
    maps = np.prod(plan.shape[:3]) * 8 * ARRAYS
    return float(BASE_MEMORY + (held + maps) / 1e9)


def _missing(paths: Iterable[Path]) -> bool | None:
    """True if a file is missing, so that the node must run again; else None, which leaves the decision to Nipype."""
    return True if any(not path.exists() for path in paths) else None
