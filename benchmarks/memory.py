"""Memory of a fit beside the image: chunks, not copies.

A whole brain of IVIM data (int16, scaled) is written to disk, and fitted through the view that the app uses. The
process's resident memory, files that are mapped into it not counted, is read ten times a second while it fits, and
compared with that before the image is opened; each fit has a process of its own, without and with what is expected of
its errors (`--trust`). "Image as float64" is what a copy of the image would take.
"""

from __future__ import annotations

from _common import IVIM_B_VALUES, machine, options, table, use_cores  # isort: skip (limits threads)

import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import sleep

import nibabel as nib
import numpy as np

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.images import MaskedSignals, open_image
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.fitting import fit
from bidsfit.trust.cache import Trust

SHAPE = (96, 96, 60)
REPEATS = 6  # of every b-value
SIGMA = 40.0
RANGES = ((1000, 1000), (0, 0.5), (0, 3), (3, 100))  # of S0, f, D, D*


def main() -> None:
    parser = options(__doc__, voxels=int(np.prod(SHAPE)))
    parser.add_argument("--threads", type=int, default=2, help="threads and cores (default %(default)s)")
    arguments = parser.parse_args()
    shape = (24, 24, 20) if arguments.quick else (*SHAPE[:2], max(arguments.voxels // (SHAPE[0] * SHAPE[1]), 1))
    cores = use_cores(arguments.threads)
    acquisition = Acquisition(np.repeat(IVIM_B_VALUES, REPEATS))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".nii", ".nii.gz"):
            path = Path(folder) / f"dwi{suffix}"
            write_image(path, shape, acquisition)
            for trust in ("off", "light"):
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    rows.append(process.submit(measure, path, shape, acquisition, arguments.threads, trust).result())
    print(f"{machine()}; {arguments.threads} threads on {cores} cores.\n")
    volumes = f"{' x '.join(map(str, shape))} voxels, {len(acquisition)} volumes"
    print(f"Memory in MB of fitting ivim to all voxels of an image of {volumes}:\n")
    header = ["image", "trust", "stored", "image as float64", "opened", "maps"]
    header += ["peak of the fit", "beside image and maps"]
    print(table(header, rows))


def write_image(path: Path, shape: tuple[int, ...], acquisition: Acquisition) -> None:
    """Write an image of noisy IVIM signals."""
    model, rng, n = models.get("ivim"), np.random.default_rng(0), int(np.prod(shape))
    data = np.empty((n, len(acquisition)), dtype=np.int16)
    for start in range(0, n, 20_000):
        rows = slice(start, min(start + 20_000, n))
        count = rows.stop - rows.start
        truth = np.column_stack([rng.uniform(low, high, count) for low, high in RANGES])
        signal = model.signal(truth, acquisition)
        data[rows] = np.abs(signal + rng.normal(0, SIGMA, signal.shape))
    image = nib.Nifti1Image(data.reshape(*shape, -1, order="F"), np.diag([2, 2, 2, 1]), dtype=np.int16)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, path)


def measure(
    path: Path, shape: tuple[int, int, int], acquisition: Acquisition, threads: int, trust: Trust
) -> list[object]:
    """Fit an image on disk; a row of the table."""
    estimator = LeastSquares(models.get("ivim"))
    # Compiles, and simulates what is expected of the errors, which is kept in the cache folder.
    fit(estimator, np.ones((2, len(acquisition))), acquisition, SIGMA, trust=trust, threads=threads)
    mask = np.ones(shape, dtype=bool)
    before = resident()
    signals = MaskedSignals(open_image(path), (*shape, len(acquisition)), mask, path)
    opened = resident()
    peak, finished = opened, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.is_set():
            peak = max(peak, resident())
            sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = fit(estimator, signals, acquisition, SIGMA, trust=trust, threads=threads)
    finished.set()
    watcher.join()
    size = sum(values.nbytes for values in result.values.values()) / 1e6
    n = mask.size * len(acquisition)
    values = [n * 2 / 1e6, n * 8 / 1e6, opened - before, size, peak - before, peak - opened - size]
    return [path.name.removeprefix("dwi"), trust, *[f"{value:,.0f}" for value in values]]


def resident() -> float:
    """Resident memory of this process that is not a mapped file, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


if __name__ == "__main__":
    main()
