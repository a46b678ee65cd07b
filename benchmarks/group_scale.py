"""Gathering the values of regions from the maps of many participants: time and memory.

Writes the maps of IVIM by three estimators of two sessions of each participant, as the participant level leaves them,
with a segmentation of three regions; most of them are hard links to a few files, so that the disk holds hardly more
than one participant. The fits are found by their names, the design is read, every map is read, and the values are
written to `group_rois.tsv`. Each number of participants has a process of its own, whose peak of resident
memory is printed, and that of its largest worker. "Processor" is the time of all of them, imports included: over the
number of cores it is what a quiet machine takes.
"""

from __future__ import annotations

from _common import machine, options, table, use_cores  # isort: skip (limits threads)

import json
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

ESTIMATORS = ("lsq", "segmented", "net-uniform")
SESSIONS = ("1", "2")
VARIANTS = 4  # different participants; the others are links to them
UNITS = {"S0": "arbitrary", "f": "1", "D": "mm^2/s", "Dstar": "mm^2/s"}
RANGES = {"S0": (500, 1500), "f": (0.02, 0.4), "D": (0.5e-3, 1.5e-3), "Dstar": (0.005, 0.05)}


def main() -> None:
    parser = options(__doc__, voxels=0)
    parser.add_argument("--participants", type=int, nargs="+", default=[50, 500], help="(default 50 500)")
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 32, 12), help="of a map (default 32 32 12)")
    parser.add_argument("--processes", type=int, default=2, help="and cores (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where maps are written (default: a temporary folder)")
    arguments = parser.parse_args()
    numbers = [4, 8] if arguments.quick else arguments.participants
    cores = use_cores(arguments.processes)
    rows = []
    for n in numbers:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            write_study(Path(folder), n, tuple(arguments.shape))
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                rows.append(process.submit(measure, Path(folder), n, arguments.processes).result())
    print(f"{machine()}; {arguments.processes} processes on {cores} cores.\n")
    shape = " x ".join(map(str, arguments.shape))
    print(f"Values of {len(ESTIMATORS)} estimators and {len(UNITS)} parameters, maps of {shape} voxels:\n")
    stages = ["find, s", "design, s", "read and write, s", "processor, s"]
    header = ["participants", "maps", *stages, "rows", "peak, MB", "peak of a worker, MB"]
    print(table(header, rows))


def measure(folder: Path, n: int, processes: int) -> list[object]:
    """Gather the values of a study; a row of the table."""
    from joblib.externals.loky import get_reusable_executor

    from bidsfit.bids.fitted import find_fitted, scanned_sessions
    from bidsfit.bids.inputs import Folder
    from bidsfit.cohort.design import read_design
    from bidsfit.cohort.region_values import region_values
    from bidsfit.cohort.tables import write_rois

    times = [perf_counter()]
    fits = find_fitted(folder / "out", estimators=None)
    times.append(perf_counter())
    design = read_design(folder, scanned_sessions(fits))
    assert len(design.repeatability) == n
    times.append(perf_counter())
    gathered = region_values(fits, [Folder("rois", folder / "rois")], processes=processes)
    path = write_rois(folder / "out", (row for person in gathered for row in person.rows))
    times.append(perf_counter())
    n_rows = path.read_bytes().count(b"\n") - 1
    get_reusable_executor().shutdown(wait=True)  # so that the workers are counted
    n_maps = sum(len(fitted.labels) + 1 for fitted in fits)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peaks = [used.ru_maxrss / 1024 for used in usage]
    processor = sum(used.ru_utime + used.ru_stime for used in usage)
    seconds = [f"{after - before:.1f}" for before, after in pairwise(times)]
    return [n, n_maps, *seconds, f"{processor:.1f}", n_rows, *(f"{peak:,.0f}" for peak in peaks)]


def write_study(folder: Path, n: int, shape: tuple[int, int, int]) -> None:
    """Write the maps, regions and tables of a study."""
    rng = np.random.default_rng(0)
    z = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    brain = (np.sum((z / (np.array(shape).reshape(3, 1, 1, 1) / 2)) ** 2, axis=0) < 1).astype(np.uint8)
    regions = brain * rng.integers(1, 4, shape).astype(np.uint8)
    (folder / "rois").mkdir()
    (folder / "rois" / "dseg.tsv").write_text("index\tname\n1\tpancreas\n2\ttumour\n3\tliver\n")
    (folder / "participants.tsv").write_text("participant_id\n" + "".join(f"sub-{i:04d}\n" for i in range(n)))
    for i in range(n):
        label = f"sub-{i:04d}"
        for session in SESSIONS:
            stem = Path(label, f"ses-{session}", "dwi")
            maps, rois = folder / "out" / stem, folder / "rois" / stem
            maps.mkdir(parents=True)
            rois.mkdir(parents=True)
            name = f"{label}_ses-{session}"
            if i < VARIANTS:
                write(rois / f"{name}_dseg.nii.gz", regions)
                write_maps(maps, name, brain, rng)
                continue
            like = f"sub-{i % VARIANTS:04d}"
            for here in (maps, rois):
                for path in Path(str(here).replace(label, like)).iterdir():
                    os.link(path, here / path.name.replace(like, label))
        sessions = "".join(f"ses-{s}\t2020-0{s}-01T09:00:00\n" for s in SESSIONS)
        (folder / label).mkdir()
        (folder / label / f"{label}_sessions.tsv").write_text(f"session_id\tacq_time\n{sessions}")


def write_maps(folder: Path, name: str, brain: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write the maps of all estimators with their sidecars."""
    for estimator in ESTIMATORS:
        stem = f"{name}_model-ivim_param-{{}}_desc-{estimator.replace('-', '')}_dwimap".format
        settings = {"Estimator": estimator, "Bounds": {"f": [0, 1], "D": [0, 0.005], "Dstar": [0.003, 0.2]}}
        for label, unit in {**UNITS, "status": "1"}.items():
            low, high = RANGES.get(label, (0, 1))
            data = brain if label == "status" else (brain * rng.uniform(low, high, brain.shape)).astype(np.float32)
            write(folder / f"{stem(label)}.nii.gz", data)
            content = {"Units": unit, "Model": {"Description": "IVIM. " * 40, "Parameters": settings}}
            (folder / f"{stem(label)}.json").write_text(json.dumps(content, indent=2))


def write(path: Path, data: NDArray) -> None:
    image = nib.Nifti1Image(data, np.diag([3, 3, 5, 1]))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    nib.save(image, path)


if __name__ == "__main__":
    main()
