"""What a participant needs by protocol and estimator, measured and as slurm-script estimates it.

Simulated images of a small matrix are preprocessed by default and fitted in a process of their own (--nprocs 1); beside
the measured processor seconds and memory stand those that `bidsfit-lab slurm-script` estimates from the plan, and its
estimates for an image of full size.
"""

from __future__ import annotations

from _common import machine, options, table  # isort: skip (limits threads)

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from scale import APP, files, measure
from whole_run import simulate

from bidsfit.cli.app import parse
from bidsfit.files import CACHE_VARIABLE, cache_folder
from bidsfit.run.participant import fits_of, plan_run
from bidsfit.run.resources import Estimates
from bidsfit.run.settings import settings_from

#: Options of the simulation by protocol, voxels of the image of full size, and model with estimators.
PROTOCOLS = {
    "one shell (6 x b = 0, 32 x 1000)": (
        ["--model", "adc", "--b-values", *["0"] * 6, "1000", "--directions", "32"],
        (112, 112, 60),
        "dti",
        ("lsq",),
    ),
    "two shells (8 x b = 0, 32 x 1000, 32 x 2500)": (
        ["--model", "smt2", "--b-values", *["0"] * 8, "1000", "2500", "--directions", "32"],
        (112, 112, 60),
        "smt2",
        ("lsq", "net-uniform"),
    ),
    "the same two shells": (
        ["--model", "smt2", "--b-values", *["0"] * 8, "1000", "2500", "--directions", "32"],
        (112, 112, 60),
        "dki",
        ("lsq",),
    ),
    "IVIM (16 b-values, 3 directions)": (
        ["--model", "ivim"],
        (112, 112, 40),
        "ivim",
        ("lsq", "bayes", "net-uniform"),
    ),
}


def main() -> None:
    parser = options(__doc__, voxels=0)
    parser.add_argument("--shape", type=int, nargs=3, default=(40, 40, 10), help="that is run (default 40 40 10)")
    arguments = parser.parse_args()
    shape = (20, 20, 4) if arguments.quick else arguments.shape
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if cache_folder().is_dir():  # compiled code is kept; the errors of estimators are simulated again
            shutil.copytree(cache_folder(), folder / "cache", ignore=shutil.ignore_patterns("performance"))
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        for protocol, (words, full, model, estimators) in PROTOCOLS.items():
            grid = ["--shape", *map(str, shape), "--participants", "1", "--raw"]
            dataset = simulate(folder / f"ds-{model}", *grid, *words)
            for estimator in estimators:
                fit = ["--model", model, "--estimators", estimator, "--skip-bids-validation", "--nprocs", "1"]
                out = folder / f"{model}-{estimator}"
                run = [str(dataset), str(out), "participant", *fit, "-w", str(folder / f"work-{out.name}")]
                if estimator.startswith("net"):  # what is trained does not change what it costs to use it
                    run += ["--training-recipe", "network-quick", "--training-snr", "30"]
                    run += ["--store", str(folder / f"trained-{model}")]
                settings = settings_from(parse(run), run)
                (plan,) = plan_run(settings, fits_of(settings))[2]
                estimates = Estimates()
                guess = estimates.run(plan)
                large = replace(plan, images=[replace(one, shape=(*full, one.shape[3])) for one in plan.images])
                whole = estimates.run(large)
                if estimator.startswith("net"):
                    first = [word.replace(out.name, f"first-{out.name}") for word in run]
                    measure([*APP, *first, "--train-only"])
                seconds, _, memory = measure([*APP, *run])
                used = float(seconds)
                bytes_ = sum(path.stat().st_size for path in files(out))
                rows.append(
                    [
                        protocol,
                        f"{model}, {estimator}",
                        f"{used:.0f}",
                        f"{guess.seconds:.0f}",
                        f"{guess.seconds / used:.2f}",
                        f"{float(memory.replace(',', '')) / 1024:.2f}",
                        f"{guess.memory:.2f}",
                        len(files(out)),
                        f"{bytes_ / 1e6:.0f}",
                        f"{whole.seconds / 60:.0f}",
                        f"{whole.memory:.1f}",
                    ]
                )
                print(*rows[-1], sep=" | ", flush=True)
    print(f"{machine()}; one process; {' x '.join(map(str, shape))} voxels.\n")
    header = ["protocol", "fit", "CPU s", "estimated", "ratio", "GB", "estimated", "files", "MB"]
    print(table([*header, "full size: minutes", "GB"], rows))


if __name__ == "__main__":
    main()
