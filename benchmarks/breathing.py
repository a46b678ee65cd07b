"""What undoing the breath of simulated abdomens does to the maps, beside registrations that deform each volume freely.

Volumes of an abdomen that breathes, and of one that lies still, are fitted as they are, after bidsfit's correction,
after the deformation of every volume to the mean of all by DIPY's SyN (local correlation) and, where itk-elastix is
installed, by elastix (B-splines, mutual information), and after the true movement was undone.

    python benchmarks/breathing.py --method "as it is" bidsfit truth                # some minutes
    python benchmarks/breathing.py --protocol adc --breathing 15 --method SyN elastix
    python benchmarks/breathing.py                  # elastix: half a minute a volume
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from bidsfit import models
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.parallel import in_processes
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.imperfections import NONE, Imperfections
from bidsfit.phantom.tissue import ABDOMEN
from bidsfit.preprocessing import likeness
from bidsfit.preprocessing.breathing import estimate_breathing
from bidsfit.preprocessing.resampling import Resampled, displace

#: Model, b-values (s/mm^2, those above 0 three times), voxels.
PROTOCOLS = {
    "ivim": ((0, 0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 400, 600, 800), (64, 52, 14)),
    "adc": ((0, 0, 50, 400, 800), (64, 52, 14)),
}

ORGANS = ("liver", "spleen", "kidney", "muscle")


def syn(mean: NDArray, volume: NDArray, size: float) -> NDArray[np.float64]:
    """Displacement in voxels by symmetric diffeomorphic registration, local correlation."""
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    logging.getLogger("dipy").setLevel(logging.WARNING)
    # Two levels: twelve slices and more can be halved once.
    registration = SymmetricDiffeomorphicRegistration(CCMetric(3, sigma_diff=3.0, radius=2), level_iters=[15, 5])
    registration.verbosity = 0
    grid = np.diag([size, size, size, 1.0])
    mapping = registration.optimize(mean, volume, static_grid2world=grid, moving_grid2world=grid)
    here = np.indices(mean.shape, dtype=float)
    there = np.array([mapping.transform((line + 1).astype(np.float32)) - 1 for line in here])
    return np.where((there <= -0.999).any(axis=0), 0.0, there - here)  # -1: outside


def elastix(mean: NDArray, volume: NDArray, size: float) -> NDArray[np.float64]:
    """Displacement in voxels by B-splines of 24 mm, mutual information."""
    import itk

    fixed, moving = (itk.image_from_array(np.ascontiguousarray(image.T)) for image in (mean, volume))
    for image in (fixed, moving):
        image.SetSpacing([size] * 3)
    parameters = itk.ParameterObject.New()
    settings = itk.ParameterObject.New().GetDefaultParameterMap("bspline", 3, 24.0)
    settings["RandomSeed"] = ["1"]
    settings["RequiredRatioOfValidSamples"] = ["0.05"]
    settings["WriteResultImage"] = ["false"]
    parameters.AddParameterMap(settings)
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, log_to_console=False, number_of_threads=1
    )
    with TemporaryDirectory() as folder, chdir(folder):  # transformix leaves a file where it runs
        field = np.asarray(itk.transformix_deformation_field(moving, found))
    return np.moveaxis(field, -1, 0).transpose(0, 3, 2, 1) / size


def _one(register: Callable, size: float, images: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    smooth = [gaussian_filter(image.astype(np.float32), 1.5, mode="nearest") for image in images]
    return register(*[image / np.percentile(image, 99) for image in smooth], size)


def freely(register: Callable, data: NDArray, size: float, threads: int) -> NDArray[np.float64]:
    """Displacement of every volume from the mean of all, voxels, (n, 3, x, y, z)."""
    mean, n = data.mean(axis=-1), data.shape[3]

    def jobs() -> Iterator[tuple[tuple[NDArray, NDArray]]]:
        for k in range(n):
            yield ((mean, data[..., k]),)

    return np.stack(list(in_processes(partial(_one, register, size), jobs(), n, threads)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    methods = ["as it is", "bidsfit", "SyN", *["elastix"] * (find_spec("itk") is not None), "truth"]
    parser.add_argument("--protocol", choices=PROTOCOLS, nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--breathing", type=float, nargs="+", default=[15.0, 30.0, 0.0], help="mm")
    parser.add_argument("--method", choices=methods, nargs="+", default=methods)
    parser.add_argument("--snr", type=float, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that the command works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.protocol, arguments.breathing, arguments.method = ["adc"], [15.0], ["as it is", "bidsfit"]
    print(f"| protocol | breath, mm | method | {' | '.join(ORGANS)} | predicted better by | voxels | s |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.protocol:
        b_values, shape = PROTOCOLS[name]
        for breathing in arguments.breathing:
            cohort = Cohort(
                name,
                n_healthy=1,
                n_patients=0,
                shape=shape,
                b_values=tuple(map(float, b_values)),
                snr=arguments.snr,
                anatomy="abdomen",
                imperfections=Imperfections(breathing=breathing) if breathing else NONE,
            )
            (person,) = cohort.participants()
            data, truth, head = cohort.scan(person, 1), cohort.truth(person, 1), person.head
            b, region = cohort.acquisition.b_values, binary_dilation(head.mask, iterations=3)
            for method in arguments.method:
                start = time.perf_counter()
                if method == "as it is" or (method == "truth" and not breathing):
                    found = Resampled(data.astype(np.float32), np.ones(shape, dtype=bool))
                elif method == "bidsfit":
                    shared = estimate_breathing(data, truth.affine, b, region, threads=arguments.threads)
                    found = shared.undone(data, threads=arguments.threads)
                elif method == "truth":
                    found = displace(data, truth.deformation)
                else:
                    register = {"SyN": syn, "elastix": elastix}[method]
                    found = displace(data, freely(register, data, truth.affine[0, 0], arguments.threads).__getitem__)
                seconds = time.perf_counter() - start
                gain = likeness.gain(data, found.data, b, region & found.covered)
                inside = head.mask & found.covered
                fit = LeastSquares(models.get(name)).estimate(found.data[inside].astype(float), cohort.acquisition)
                apart = fit.parameters["D"] - head.parameters["D"][inside]
                cells = []
                for organ in ORGANS:
                    left = apart[head.tissue[inside] == ABDOMEN[organ]]
                    cells.append(f"{np.sqrt(np.nanmean(left**2)):.3f}")
                print(
                    f"| {name} | {breathing:g} | {method} | {' | '.join(cells)} | {100 * gain:.0f} % "
                    f"| {100 * inside.sum() / head.mask.sum():.0f} % | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
