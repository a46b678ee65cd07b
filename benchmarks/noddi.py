"""NODDI beside AMICO, on a real head and on simulated voxels: agreement, errors and speed.

AMICO (Daducci et al. 2015) takes the main direction from the diffusion tensor, and fits non-negative weights of a
dictionary; its kernels, which are made once for a protocol, are not timed. It is not a dependency of bidsfit:
``pip install --no-deps dmri-amico dmri-dicelib numpydoc``. Both are on one core. Simulated voxels have the protocol of
the head, Rician noise and NDI 0.2 to 0.8, ODI 0.03 to 0.5, free water 0 to 0.5.
"""

from __future__ import annotations

from _common import machine, options, table, use_cores  # isort: skip

import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import process_time

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.noise import add_noise

MODEL, NAMES, SNR = models.get("noddi"), ("NDI", "ODI", "FISO"), 30
DATASET = "ds-brain-2shell"


def main() -> None:
    parser = options(__doc__, voxels=4000)
    arguments = parser.parse_args()
    if find_spec("amico") is None:
        print("AMICO is not installed, and nothing is compared: pip install --no-deps dmri-amico dmri-dicelib numpydoc")
        return
    use_cores(1)
    stem = arguments.data / DATASET / "sub-01" / "dwi" / "sub-01_dwi"
    acquisition = Acquisition.from_files(stem.with_suffix(".bval"), stem.with_suffix(".bvec"))
    acquisition = Acquisition(acquisition.b_values, acquisition.variable("direction"))
    n = 200 if arguments.quick else arguments.voxels
    rng = np.random.default_rng(0)
    (mask,) = (arguments.data / DATASET / "derivatives").glob("*/sub-01/dwi/*mask.nii.gz")
    measured = np.asarray(nib.load(f"{stem}.nii.gz").dataobj, dtype=float)[np.asarray(nib.load(mask).dataobj) > 0]
    measured = measured[rng.permutation(len(measured))[:n]]
    truth = np.column_stack([
        np.ones(n), *rng.uniform([[0.2], [0.03], [0.0]], [[0.8], [0.5], [0.5]], (3, n)), np.arccos(rng.random(n)),
        rng.uniform(0, 2 * np.pi, n),
    ])  # fmt: skip
    simulated = 1000 * add_noise(MODEL.signal(truth, acquisition), 1 / SNR, "rician", rng)
    rows = []
    for name, signals in (("a real head", measured), (f"simulated, SNR {SNR}", simulated)):
        (own, own_time), (theirs, their_time) = by_bidsfit(signals, acquisition), by_amico(signals, stem)
        similar = (own[:, 2] < 0.5) & (own[:, 0] > 0.1)  # not in fluid, where NDI and ODI are of nothing
        apart = np.median(np.abs(own - theirs)[similar], axis=0)
        speed = f"{len(own) / own_time:,.0f}", f"{their_time / own_time:.1f}"
        rows.append([name, "median difference", *apart.round(4), *speed])
        for who, found in (("bidsfit", own), ("AMICO", theirs)) if signals is simulated else ():
            rmse = np.sqrt(np.mean((found - truth[:, 1:4]) ** 2, axis=0))
            rows.append([name, f"RMSE, {who}", *rmse.round(3), "", ""])
    print(f"{machine()}; everything on one core.\n")
    print(table(["voxels", "", *NAMES, "bidsfit, voxels a second", "times AMICO"], rows))


def by_bidsfit(signals: NDArray[np.float64], acquisition: Acquisition) -> tuple[NDArray[np.float64], float]:
    """Estimates (n, 3) and processor time, after a first voxel for which code is compiled."""
    estimator = LeastSquares(MODEL)
    estimator.estimate(signals[:1], acquisition)
    start = process_time()
    estimate = estimator.estimate(signals, acquisition)
    return np.column_stack([estimate.parameters[name] for name in NAMES]), process_time() - start


def by_amico(signals: NDArray[np.float64], stem: Path) -> tuple[NDArray[np.float64], float]:
    """The same of AMICO, which reads files, and keeps tables in ~/.dipy."""
    import amico

    amico.set_verbose(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (
            ("dwi", signals[:, None, None].astype(np.float32)),
            ("mask", np.ones((len(signals), 1, 1))),
        ):
            nib.save(nib.Nifti1Image(array, np.eye(4)), f"{folder}/{name}.nii.gz")
        amico.setup()
        scheme = f"{folder}/protocol.scheme"
        amico.util.fsl2scheme(f"{stem}.bval", f"{stem}.bvec", scheme)
        fit = amico.Evaluation(folder, ".")
        fit.load_data(f"{folder}/dwi.nii.gz", scheme, mask_filename=f"{folder}/mask.nii.gz", b0_thr=0)
        fit.set_model("NODDI")
        for threads in ("nthreads", "BLAS_nthreads"):
            fit.set_config(threads, 1)
        fit.generate_kernels(regenerate=True)
        fit.load_kernels()
        start = process_time()
        fit.fit()
        return fit.RESULTS["MAPs"].reshape(len(signals), 3), process_time() - start


if __name__ == "__main__":
    main()
