"""The tensor beside DIPY and MRtrix, on real heads: agreement and speed.

All voxels of the two brain datasets whose signals are positive at every measurement of at most 1500 s/mm^2, and whose
first image lies above its 60th percentile (no mask: scalp, eyes and fluid are among them). Compared are the voxels that
bidsfit calls converged: DIPY raises negative eigenvalues, MRtrix and bidsfit do not, which calls them implausible.
Directions have unit length, as DIPY and MRtrix multiply b by the square of it. OLS and WLS of DIPY are compared with
``ols`` and ``wls``, NLLS with ``lsq``; of MRtrix ``dwi2tensor -ols -iter 0`` with ``ols``, and ``dwi2tensor -ols`` with
two weighted fits. MRtrix is skipped where it is not installed.
"""

from __future__ import annotations

from _common import machine, options, percent, table, use_cores  # isort: skip

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import nibabel as nib
import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel, fractional_anisotropy
from numpy.typing import NDArray

from bidsfit import Acquisition, LeastSquares, OrdinaryLogLinear, Status, WeightedLogLinear, models
from bidsfit.estimators.estimator import Estimator
from bidsfit.models.dti import tensors

DATASETS = ("ds-brain-1shell", "ds-brain-2shell")
MODEL = models.get("dti")
PEERS: dict[str, Estimator] = {
    "DIPY OLS": OrdinaryLogLinear(MODEL),
    "DIPY WLS": WeightedLogLinear(MODEL),
    "DIPY NLLS": LeastSquares(MODEL),
    "MRtrix -ols -iter 0": OrdinaryLogLinear(MODEL),
    "MRtrix -ols": WeightedLogLinear(MODEL, iterations=2),
}


def main() -> None:
    parser = options(__doc__, voxels=20_000)
    arguments = parser.parse_args()
    use_cores(1)
    rows = []
    for dataset in DATASETS:
        images = sorted((arguments.data / dataset).glob("sub-*/dwi/*_dwi.nii.gz"))
        if not images:
            print(f"Skipped {dataset}: it is not in {arguments.data} (see --data).\n")
            continue
        signals, acquisition = read(images[0], 300 if arguments.quick else arguments.voxels)
        rows += [row for name in PEERS if (row := compare(dataset, name, signals, acquisition))]
    print(f"{machine()}; everything on one core.\n")
    header = ["dataset", "peer", "voxels", "compared", "largest difference of D", "beyond 1e-4", "of FA", "beyond 1e-4"]
    print("Differences in 10⁻³ mm²/s; speed as a multiple of the peer's (processor time; MRtrix with its files).\n")
    print(table([*header, "bidsfit, voxels a second", "times the peer"], rows))


def read(path: Path, most: int) -> tuple[NDArray[np.float64], Acquisition]:
    """Signals and acquisition of what the tensor describes; directions of unit length."""
    stem = path.with_name(path.name.removesuffix(".nii.gz"))
    acquisition = Acquisition.from_files(stem.with_suffix(".bval"), stem.with_suffix(".bvec"))
    used = MODEL.usable(acquisition)
    acquisition = acquisition.select(used)
    data = np.asarray(nib.load(path).dataobj, dtype=float)[..., used]
    signals = data[(data > 0).all(axis=-1) & (data[..., 0] > np.percentile(data[..., 0], 60))]
    chosen = np.random.default_rng(0).permutation(len(signals))[:most]
    return signals[chosen], Acquisition(acquisition.b_values, acquisition.variable("direction"))


def compare(dataset: str, name: str, signals: NDArray[np.float64], acquisition: Acquisition) -> list[object]:
    """A row of the table; empty where the peer is not installed."""
    peer, *words = name.split()
    if peer == "MRtrix" and shutil.which("dwi2tensor") is None:
        print(f"Skipped {name}: MRtrix is not installed.\n")
        return []
    fit: Callable[..., NDArray[np.float64]] = {"DIPY": by_dipy, "MRtrix": by_mrtrix}[peer]
    fit(signals[:10], acquisition, words)
    start = used()
    theirs = fit(signals, acquisition, words)
    their_time = used() - start
    estimator = PEERS[name]
    estimator.warm_up(acquisition)
    estimator.estimate(signals[:10], acquisition)
    start = used()
    estimate = estimator.estimate(signals, acquisition)
    own_time = used() - start
    inside = estimate.status == Status.CONVERGED
    own = tensors(np.column_stack([estimate.parameters[parameter] for parameter in MODEL.names]))
    off = np.abs(own - theirs).max(axis=(1, 2))[inside]
    fa = fractional_anisotropy(np.linalg.eigvalsh(theirs[inside])[:, ::-1])
    off_fa = np.abs(estimate.derived["FA"][inside] - fa)
    n = len(signals)
    differences = [
        f"{off.max():.1e}",
        percent((off > 1e-4).mean()),
        f"{off_fa.max():.1e}",
        percent((off_fa > 1e-4).mean()),
    ]
    speeds = [f"{n / own_time:,.0f}", f"{their_time / own_time:.1f}"]
    return [dataset, name, f"{n:,}", percent(inside.mean()), *differences, *speeds]


def used() -> float:
    """Processor time of this process and of those that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def by_dipy(signals: NDArray[np.float64], acquisition: Acquisition, words: list[str]) -> NDArray[np.float64]:
    gradients = gradient_table(acquisition.b_values, bvecs=acquisition.directions)
    return np.asarray(1e3 * TensorModel(gradients, fit_method=words[0]).fit(signals).quadratic_form)


def by_mrtrix(signals: NDArray[np.float64], acquisition: Acquisition, words: list[str]) -> NDArray[np.float64]:
    """In an image whose determinant is negative, so that the axes of .bvec files are those of the scanner but for x."""
    assert acquisition.directions is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = nib.Nifti1Image(signals[:, None, None], np.diag([-1.0, 1, 1, 1]))
        nib.save(image, folder / "dwi.nii")
        np.savetxt(folder / "bvec", acquisition.directions.T)
        np.savetxt(folder / "bval", acquisition.b_values[None])
        command = ["dwi2tensor", "-quiet", "-nthreads", "0", "-fslgrad", "bvec", "bval", *words, "dwi.nii", "dt.nii"]
        subprocess.run(command, cwd=folder, check=True)
        elements = 1e3 * np.asarray(nib.load(folder / "dt.nii").dataobj, dtype=float).reshape(-1, 6)
    found = elements[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3)
    flip = np.array([-1.0, 1, 1])
    return found * flip[:, None] * flip


if __name__ == "__main__":
    main()
