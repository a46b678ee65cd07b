"""What the nodes of the preprocessing share: volumes as files, a bar of progress, and what a step says of itself.

Between them images lie in the work folder as 32-bit floats, not compressed, so that a volume can be read alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits
from numpy.typing import NDArray
from tqdm import tqdm

from bidsfit.bids.images import open_image, read_data, write_nifti


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on the terminal; call what it yields with the fraction that is done."""
    with tqdm(total=100, desc=label, unit="%", disable=None, delay=1, bar_format="{l_bar}{bar}| {elapsed}") as bar:

        def show(fraction: float) -> None:
            bar.update(round(100 * fraction) - bar.n)

        yield show


def read_volumes(path: str | Path) -> tuple[NDArray[np.float32], SpatialImage]:
    """All volumes of an image, shape (x, y, z, n), and the image."""
    image = open_image(Path(path))
    data = np.asarray(read_data(image, Path(path)), dtype=np.float32)
    return data, image


def write_volumes(path: Path, data: NDArray, like: SpatialImage) -> str:
    """Write volumes on the grid of an image, 32-bit floats; return the path as text."""
    write_nifti(path, np.asarray(data, dtype=np.float32), like)
    return str(path)


class StepInput(BaseInterfaceInputSpec):
    """What every step is told."""

    in_file = File(exists=True, mandatory=True, desc="image, volumes last")
    label = traits.Str("preprocessing", usedefault=True, nohash=True, desc="for the progress bar")
    threads = traits.Int(1, usedefault=True, nohash=True)
    version = traits.Str(desc="of bidsfit: another version works again")


class StepOutput(TraitedSpec):
    """What a step that changes the image leaves."""

    out_file = File(exists=True)
    facts = File(exists=True, desc="what was found, as JSON")


class Step(SimpleInterface):
    """A node that says how long it took, and what it found."""

    def _run_interface(self, runtime: Any) -> Any:
        start = time.perf_counter()
        facts = self._work(Path(runtime.cwd))
        path = Path(runtime.cwd) / "facts.json"
        path.write_text(json.dumps({**facts, "seconds": time.perf_counter() - start}))
        self._results["facts"] = str(path)
        return runtime

    def _work(self, cwd: Path) -> dict[str, Any]:
        """Do the work in a folder; return what is worth saying."""
        raise NotImplementedError
