"""``bidsfit-lab phantom``: a BIDS dataset with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from bidsfit.phantom.tissue import RECIPES


def add_phantom(commands: argparse._SubParsersAction) -> None:
    """Add the command ``phantom``."""
    defaults = "\n".join(
        f"  {name}: --b-values {' '.join(map(str, recipe.b_values))}\n"
        f"  {' ' * len(name)}  --directions {recipe.n_directions} --lesion {next(iter(recipe.lesions))}"
        f" (or {', '.join(list(recipe.lesions)[1:])})"
        for name, recipe in RECIPES.items()
    )
    parser = commands.add_parser(
        "phantom",
        help="write a BIDS dataset with known truth",
        description="Write a BIDS dataset of simulated images, with its truth in derivatives/truth.",
        epilog=f"defaults by model:\n{defaults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the dataset; must not exist, or be empty")
    parser.add_argument("--model", required=True, help=f"signal model: {', '.join(RECIPES)}")
    parser.add_argument("--participants", type=int, default=2, metavar="N", help="healthy participants (default: 2)")
    parser.add_argument("--patients", type=int, default=2, metavar="N", help="participants with a lesion (default: 2)")
    parser.add_argument(
        "--sessions",
        type=int,
        default=1,
        metavar="N",
        help="sessions of each participant: same truth, fresh noise (default: 1, without a ses- entity)",
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(48, 48, 3), metavar=("X", "Y", "Z"), help="voxels (default: 48 48 3)"
    )
    parser.add_argument(
        "--b-values",
        type=float,
        nargs="+",
        metavar="B",
        help="in s/mm^2; those above 0 are measured along every direction, a value listed twice is measured twice",
    )
    parser.add_argument("--directions", type=int, metavar="N", help="directions of each b-value above 0, evenly spread")
    parser.add_argument(
        "--snr",
        type=float,
        default=30.0,
        help="mean S0 over the brain mask / sigma of a single measurement; inf for no noise (default: 30)",
    )
    parser.add_argument("--noise", default="rician", help="rician (default) or gaussian")
    parser.add_argument("--lesion", metavar="NAME", help="the patients' lesion")
    parser.add_argument("--seed", type=int, default=0, help="same options and seed, same dataset (default: 0)")
    parser.set_defaults(run=run_phantom)


def run_phantom(arguments: argparse.Namespace) -> None:
    """Write the phantom that the command line asks for."""
    from bidsfit.bids.phantom import TRUTH, write_phantom
    from bidsfit.phantom.cohort import Cohort

    cohort = Cohort(
        model=arguments.model,
        n_healthy=arguments.participants,
        n_patients=arguments.patients,
        n_sessions=arguments.sessions,
        shape=tuple(arguments.shape),
        b_values=None if arguments.b_values is None else tuple(arguments.b_values),
        n_directions=arguments.directions,
        snr=arguments.snr,
        noise=arguments.noise,
        lesion=arguments.lesion,
        seed=arguments.seed,
    )
    write_phantom(cohort, arguments.out)
    n = cohort.n_healthy + cohort.n_patients
    print(f"{arguments.out}: {n} participants, {n * cohort.n_sessions} images. Truth: {arguments.out / TRUTH}")
