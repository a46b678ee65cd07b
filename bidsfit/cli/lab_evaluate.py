"""``bidsfit-lab evaluate``: what estimators do to bias and spread."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bidsfit.cli.lab_options import (
    about,
    add_setting_options,
    add_training_options,
    pools_of,
    setting_of,
    threads_of,
)
from bidsfit.exceptions import UsageError


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command ``evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure bias, spread and error of estimators over the space of true parameters",
        description="Simulate signals of known parameters, fit them with every estimator, and write tables, figures "
        "and a page (report.html) of bias, standard deviation and error.",
    )
    parser.add_argument(
        "--estimators",
        nargs="+",
        action="extend",
        required=True,
        metavar="ESTIMATOR",
        help="names, lsq first for instance",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; what is there is gone on from")
    add_setting_options(parser)
    parser.add_argument(
        "--pool", type=Path, metavar="FILE", help="distribution of a group-level run (*_distribution.json)"
    )
    parser.add_argument(
        "--points", type=int, default=0, metavar="N", help="values of a parameter (default: 21, or fewer)"
    )
    parser.add_argument(
        "--repeats", type=int, default=500, metavar="N", help="noise realisations a point (default: 500)"
    )
    parser.add_argument(
        "--at",
        nargs="+",
        action="append",
        metavar="PARAMETER=VALUE",
        help="a combination to draw box plots of, in the units of the maps (mm^2/s); may be given up to four times",
    )
    parser.add_argument(
        "--lesion", metavar="NAME", help="of a simulated patient, where the model has a phantom (default: its first)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the training, for a look")
    add_training_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Make the evaluation that the command line asks for."""
    from bidsfit.laboratory.bench import Bench
    from bidsfit.laboratory.evaluation import evaluate_estimators, named_points
    from bidsfit.laboratory.gallery import Gallery
    from bidsfit.laboratory.gyori2022 import quick_recipes
    from bidsfit.reports.laboratory import write_laboratory_report

    setting = setting_of(arguments)
    if arguments.repeats < 2 or arguments.points < 0 or arguments.points == 1:
        raise UsageError("--repeats and --points must be 2 or more.")
    bench = Bench(
        arguments.out,
        pools_of(arguments.pool, setting),
        threads=threads_of(arguments),
        device=arguments.device,
        seed=arguments.seed,
        recipes=quick_recipes() if arguments.quick else {},
    )
    gallery = Gallery(arguments.out)
    sections = evaluate_estimators(
        bench,
        gallery,
        setting,
        arguments.estimators,
        points=arguments.points,
        repeats=arguments.repeats,
        at=named_points(setting.space, arguments.at or ()),
        lesion=arguments.lesion,
    )
    command = shlex.join(["bidsfit-lab", *sys.argv[1:]])
    path = write_laboratory_report(
        arguments.out / "report.html",
        title=f"Estimators of {setting.space.model.name}",
        lead=f"{setting.space.model.title}: what each estimator makes of signals whose parameters are known.",
        sections=sections,
        about=about(command),
    )
    print(path)
