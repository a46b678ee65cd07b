"""What the benchmarks share: one quiet core, the data, and Markdown tables.

Import it before NumPy: it limits the threads of the linear algebra libraries, which would otherwise wait busily on
the other cores and spoil the timing of whoever is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import NamedTuple

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
from numpy.typing import ArrayLike, NDArray  # noqa: E402

from bidsfit import models  # noqa: E402
from bidsfit.acquisition import Acquisition, DirectionAverage  # noqa: E402
from bidsfit.models.signal_model import SignalModel  # noqa: E402
from bidsfit.noise import add_noise  # noqa: E402

#: Where the figures of the benchmarks are kept.
FIGURES = Path(__file__).parent / "figures"
DATA = Path(os.environ.get("BIDSFIT_BENCHMARK_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))

#: 16 b-values, dense where blood still gives signal.
IVIM_B_VALUES = (0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800)
#: Gyori et al. 2022, 32 directions a shell.
SMT_B_VALUES = (0, 1000, 2000, 3500, 5000)


class Case(NamedTuple):
    """Averaged signals that a model is fitted to, scaled to 1 at the lowest b-value."""

    name: str
    model: SignalModel
    acquisition: Acquisition
    signals: NDArray[np.float64]


def options(description: str | None, voxels: int) -> argparse.ArgumentParser:
    """A command line with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=voxels, help="simulated voxels (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that the command works")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real datasets (default %(default)s)")
    return parser


CORES = sorted(os.sched_getaffinity(0))


def use_cores(n: int) -> int:
    """Keep this process, and the threads it will start, on ``n`` cores; return how many it got."""
    cores = CORES[-n:]
    os.sched_setaffinity(0, cores)
    return len(cores)


def machine() -> str:
    """Processor and number of cores, in words."""
    text = Path("/proc/cpuinfo").read_text()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    return f"{name}, {os.cpu_count()} cores"


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process that some work takes."""
    start = process_time()
    work()
    return process_time() - start


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def percent(share: float | np.floating) -> str:
    """A share in per cent."""
    return f"{100 * share:.2f} %"


def multiple(ratios: NDArray[np.float64]) -> str:
    """Median and range of ratios."""
    return f"**{np.median(ratios):,.0f}** ({ratios.min():,.0f} to {ratios.max():,.0f})"


def simulated(name: str, n_voxels: int, snr: float, rng: np.random.Generator) -> Case:
    """Voxels of uniformly drawn parameters with Rician noise, SNR at S0 (for smt2: of one direction).

    The ranges are those from which Kaandorp et al. and Gyori et al. train and test their networks.
    """
    model = models.get(name)
    draw = lambda low, high: rng.uniform(low, high, n_voxels)  # noqa: E731
    truth: dict[str, ArrayLike]
    if name == "ivim":
        acquisition = Acquisition(IVIM_B_VALUES)
        truth = {"S0": 1.0, "f": draw(0, 0.5), "D": draw(0, 3), "Dstar": draw(3, 100)}
    elif name == "smt2":
        counts = [8, *[32] * (len(SMT_B_VALUES) - 1)]
        acquisition = Acquisition(np.repeat(SMT_B_VALUES, counts), directions=sphere(sum(counts)))
        truth = {"S0": 1.0, "vcyl": draw(0, 1), "lambda": draw(0, 3)}
    else:
        acquisition = Acquisition([b for b in IVIM_B_VALUES if b == 0 or b >= 100])
        truth = {"S0": 1.0, "D": draw(0, 3)}
    single = DirectionAverage(acquisition, "arithmetic" if model.averaging else "none")
    clean = model.signal(truth, single.acquisition)
    sigma = 1 / snr / np.sqrt(single.acquisition.weights)  # of the averages: their noise is nearly Gaussian
    noisy = add_noise(clean, sigma, "gaussian" if model.averaging else "rician", rng)
    return scaled(f"{name}, simulated, SNR {snr:g}", model, single.acquisition, noisy)


def sphere(n: int) -> NDArray[np.float64]:
    """Directions spread evenly over the half sphere (a Fibonacci spiral)."""
    z = (np.arange(n) + 0.5) / n
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    return np.column_stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z])


def real(name: str, dataset: str, folder: Path) -> Case | None:
    """Voxels of a real image inside its mask, or None (and a line that says so) where the data are not there."""
    import nibabel as nib

    from bidsfit.bids.acquisitions import read_acquisition
    from bidsfit.bids.images import image_shape, open_image, read_data, read_mask

    found = sorted((folder / dataset).glob("sub-*/dwi/*_dwi.nii.gz"))
    masks = sorted((folder / dataset).glob("derivatives/masks/sub-*/dwi/*_mask.nii.gz"))
    if not found or not masks:
        print(f"Skipped {name} on {dataset}: no such dataset in {folder} (see --data).\n")
        return None
    path, mask_path = found[0], masks[0]
    stem = path.name.removesuffix(".nii.gz")
    image = open_image(path)
    assert isinstance(image, nib.Nifti1Image)
    acquisition = read_acquisition(path.with_name(f"{stem}.bval"), path.with_name(f"{stem}.bvec"))
    shape = image_shape(image, len(acquisition), path)
    mask = read_mask(mask_path, image, path)
    signals = read_data(image, path).astype(float).reshape(shape)[mask]
    model = models.get(name)
    used = model.usable(acquisition)
    average = DirectionAverage(acquisition.select(used))
    return scaled(f"{name}, {dataset}", model, average.acquisition, average(signals[:, used]))


def scaled(name: str, model: SignalModel, acquisition: Acquisition, signals: NDArray[np.float64]) -> Case:
    """Leave out voxels without a signal, and scale the others to 1 at the lowest b-value."""
    first = signals[:, np.argmin(acquisition.b_values)]
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(signals).all(axis=1) & (first > 0)
    return Case(name, model, acquisition, signals[usable] / first[usable, None])


def figure_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where figures go."""
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures (default %(default)s)")


def figure_folder(arguments: argparse.Namespace) -> Path:
    """Where figures go: a quick run does not replace those that are kept."""
    if arguments.quick and arguments.figures == FIGURES:
        return Path(tempfile.gettempdir()) / "bidsfit-benchmarks"
    folder: Path = arguments.figures
    return folder
