"""``bidsfit-lab evaluate``: bias and spread of estimators."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bidsfit import estimators
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
        help="names, or files that `bidsfit-lab train` wrote (.zip): lsq bayes net.zip",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; what is there is gone on from")
    add_setting_options(parser, of_file=True)
    parser.add_argument(
        "--pool", type=Path, metavar="FILE", help="distribution of a group-level run (*_distribution.json)"
    )
    parser.add_argument(
        "--points",
        type=int,
        metavar="N",
        help="values of a parameter (default: 21, or 11 of three and more parameters); of more than three, points are "
        "scattered, about N x N x N",
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="noise realisations a point (default: 500)")
    parser.add_argument(
        "--trainings",
        type=int,
        default=1,
        metavar="N",
        help="train every network and forest from N seeds, to tell how far apart their estimates are (default: 1)",
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
    parser.add_argument(
        "--quick",
        action="store_true",
        help="for a look, a minute or so on two cores: short trainings, --points 7 (or 5), --repeats 20, "
        "a smaller patient",
    )
    add_training_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Make the evaluation that the command line asks for."""
    from bidsfit.laboratory.bench import Bench, enough_directions, protocol_in_words, quick_recipes, say
    from bidsfit.laboratory.evaluation import evaluate_estimators, in_words, named_points
    from bidsfit.laboratory.gallery import Gallery
    from bidsfit.laboratory.patients import QUICK_SHAPE, SHAPE
    from bidsfit.reports.laboratory import write_laboratory_report
    from bidsfit.trained.given import describe_given, is_file_name
    from bidsfit.training.bundle import read_facts

    files = [Path(word) for word in arguments.estimators if is_file_name(word)]
    setting = setting_of(arguments, files[0] if files else None, enough_directions(arguments.estimators))
    quick = arguments.quick
    n_parameters = len(setting.space.names)
    points = (7 if quick else 21) if n_parameters < 3 else (5 if quick else 11)
    points = points if arguments.points is None else arguments.points
    repeats = (20 if quick else 500) if arguments.repeats is None else arguments.repeats
    if min(points, repeats) < 2:
        raise UsageError("--repeats and --points must be 2 or more.")
    if arguments.trainings < 1:
        raise UsageError(f"--trainings must be at least 1, found {arguments.trainings}.")
    given = {describe_given(read_facts(path)).name: path for path in files}
    called = {str(path): name for name, path in given.items()}
    names = list(
        dict.fromkeys(called.get(str(Path(word)), estimators.with_distribution(word)) for word in arguments.estimators)
    )
    bench = Bench(
        arguments.out,
        pools_of(arguments.pool, setting),
        threads=threads_of(arguments),
        device=arguments.device,
        seed=arguments.seed,
        recipes=quick_recipes() if quick else {},
        given=given,
    )
    at = named_points(setting.space, arguments.at or ())
    bench.require(names, setting)
    say(protocol_in_words(setting))
    gallery = Gallery(arguments.out)
    sections = evaluate_estimators(
        bench,
        gallery,
        setting,
        names,
        points=points,
        repeats=repeats,
        trainings=arguments.trainings,
        at=at,
        lesion=arguments.lesion,
        patient_shape=QUICK_SHAPE if quick else SHAPE,
    )
    command = shlex.join(["bidsfit-lab", *sys.argv[1:]])
    path = write_laboratory_report(
        arguments.out / "report.html",
        title=f"Estimators of {setting.space.model.name}",
        lead=f"{setting.space.model.title}: what each estimator makes of signals whose parameters are known."
        + quick * " A quick run, for a look: few points, little noise, short training.",
        head=in_words(setting, repeats) | {name: _trained(path) for name, path in given.items()},
        sections=sections,
        about=about(command),
    )
    print(path)


def _trained(path: Path) -> str:
    """Name of a trained file, and the noise of its training."""
    from bidsfit.training.bundle import read_facts

    noise = read_facts(path)["Noise"]
    level = (
        "without noise" if noise["SNR"] is None else f"with {noise['Kind'].capitalize()} noise of SNR {noise['SNR']:g}"
    )
    return f"{path}, trained {level}"
