"""``bidsfit-lab slurm-script``: a study as jobs of a cluster."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from bidsfit.cli.options import Parser
from bidsfit.exceptions import UsageError

#: Options that the script chooses itself, or that are for a single run.
FOREIGN = (
    "train_only",
    "no_training",
    "dry_run",
    "reports_only",
    "boilerplate_only",
    "write_graph",
    "nipype_plugin_file",
)


def add_slurm_script(commands: argparse._SubParsersAction) -> None:
    """Add the command ``slurm-script``."""
    parser = commands.add_parser(
        "slurm-script",
        help="print a script that submits a study to SLURM",
        description="Print a script that submits a study to SLURM: a job that trains where estimators are trained, an "
        "array with a task for each participant, and the group level after it. Memory and time are estimated from the "
        "images; the speed of the estimators is measured here, and the validator is run once.",
    )
    parser.add_argument(
        "--training-cpus", type=int, default=4, metavar="N", help="processors of the job that trains (default: 4)"
    )
    parser.add_argument("bids_dir", metavar="BIDS_DIR", help="as of bidsfit")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="as of bidsfit")
    parser.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="options of bidsfit, of the participants and of the group level; --nprocs are the processors of a task "
        "(default: 1)",
    )
    parser.set_defaults(run=run_slurm_script)


def run_slurm_script(arguments: argparse.Namespace) -> None:
    """Print the script."""
    from bidsfit.cli.app import parse
    from bidsfit.run.settings import settings_from
    from bidsfit.run.slurm import slurm_script

    words = [arguments.bids_dir, arguments.output_dir, "participant", *arguments.options]
    given = parse(words)
    for name in FOREIGN:
        if getattr(given, name):
            raise UsageError(f"--{name.replace('_', '-')} is not for this script, which chooses what each job does.")
    if given.nprocs is None:
        given.nprocs = given.omp_nthreads = 1
    settings = settings_from(given, ["bidsfit", *map(shlex.quote, words)])
    print(
        slurm_script(
            settings, own_options(arguments.options), group_options(given), training_cpus=arguments.training_cpus
        )
    )


def own_options(options: Sequence[str]) -> list[str]:
    """The options without those that every job has of its own."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--participant-label", nargs="+")
    parser.add_argument("--nprocs", "--nthreads", "--n-cpus")
    parser.add_argument("--skip-bids-validation", action="store_true")
    return parser.parse_known_args(options)[1]


def group_options(given: argparse.Namespace) -> list[str]:
    """Options of the group level among those given."""
    from bidsfit.cli.parser import add_group_options

    parser = Parser()
    add_group_options(parser.add_argument_group())
    words = ["-d", *given.derivatives] if given.derivatives else []
    for action in parser._actions[1:]:
        value = getattr(given, action.dest)
        if value != action.default:
            words += [action.option_strings[0], *([value] if isinstance(value, str) else value)]
    return words
