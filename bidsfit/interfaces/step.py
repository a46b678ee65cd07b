"""Base classes and files of the preprocessing nodes.

Between nodes images are uncompressed 32-bit floats, so that single volumes can be read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined, traits
from numpy.typing import NDArray
from tqdm import tqdm

from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import open_image, read_data, write_nifti
from bidsfit.files import write_json
from bidsfit.parallel import BAR_FORMAT, Progress


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """Show a progress bar on the terminal; yields a function of the completed fraction."""
    with tqdm(total=100, desc=label, disable=None, delay=1, bar_format=BAR_FORMAT) as bar:

        def show(fraction: float) -> None:
            bar.update(round(100 * fraction) - bar.n)

        yield show


def acquisition_of(inputs: Any) -> Acquisition:
    """Acquisition of the image of a node, from those of ``bval``, ``bvec`` and ``sidecar`` that are given."""
    bval, bvec, sidecar = (
        value if isdefined(value := getattr(inputs, name, None)) and value else None
        for name in ("bval", "bvec", "sidecar")
    )
    return read_acquisition(bval and Path(bval), bvec and Path(bvec), sidecar)


def read_volumes(path: str | Path) -> tuple[NDArray[np.float32], SpatialImage]:
    """All volumes of an image, shape (x, y, z, n), and the image."""
    image = open_image(Path(path))
    data = np.asarray(read_data(image, Path(path), np.float32), dtype=np.float32)
    return data, image


def write_volumes(path: Path, data: NDArray, like: SpatialImage) -> str:
    """Write volumes on the grid of an image, numbers of 32 bits; return the path as text."""
    write_nifti(path, np.asarray(data, dtype=np.complex64 if np.iscomplexobj(data) else np.float32), like)
    return str(path)


def read_region(path: str) -> NDArray[np.bool_]:
    """Read a mask passed between nodes."""
    return read_volumes(path)[0] > 0


class StepInput(BaseInterfaceInputSpec):
    """Inputs of every step."""

    step = traits.Str(usedefault=True, desc="its name")
    label = traits.Str("preprocessing", usedefault=True, nohash=True, desc="for the progress bar")
    threads = traits.Int(1, usedefault=True, nohash=True)
    version = traits.Str(desc="of bidsfit: another version works again")


class ImageStepInput(StepInput):
    """Inputs of every step that reads the volumes."""

    in_file = File(exists=True, mandatory=True, desc="image, volumes last")


class StepOutput(TraitedSpec):
    """Outputs of a step that changes the image."""

    out_file = File(exists=True)
    facts = File(exists=True, desc="what was found, as JSON")


class StepInterface(SimpleInterface):
    """Base class of step nodes, which report their duration and findings.

    Inputs are connected by name: ``in_file`` (the image after the step before), ``bval`` and ``bvec``, ``region`` (a
    mask with a margin), ``left_out``, ``sidecar``, ``noise_map`` (noise level of the raw image), ``field`` and
    ``topup`` (the distortion that was found), ``phase`` and ``phase_unit``, ``real`` (whether the image is a real
    part), ``interpolation`` (how the image was interpolated; empty if it was not),
    ``method`` (its name), ``needed`` (whether the user named it, or nothing can replace it), ``slice_axis``,
    ``direction`` (of the phase encoding), ``moved`` (whether the step "motion" comes later), ``reversed_phase`` and
    ``anatomy``; for a step that does not change the signals ``reference`` (mean image of the lowest b-value) and
    ``mask``. Outputs of these names replace them for the following steps; ``out_file`` becomes the next ``in_file``,
    and ``pictures`` are shown in the report.
    """

    def _run_interface(self, runtime: Any) -> Any:
        start = time.perf_counter()
        facts = {"step": self.inputs.step, **self._work(Path(runtime.cwd))}
        facts |= {name: self._results[name] for name in ("out_file", "pictures") if name in self._results}
        path = Path(runtime.cwd) / "facts.json"
        write_json(path, {**facts, "seconds": time.perf_counter() - start}, allow_nan=True)
        self._results["facts"] = str(path)
        return runtime

    def _work(self, cwd: Path) -> dict[str, Any]:
        """Do the work in a folder and return findings.

        Reports use the keys ``words`` (summary), ``warnings``, ``refused`` (why the step was not applied after all) and
        ``methods`` (replaces the sentence of the method).
        """
        raise NotImplementedError
