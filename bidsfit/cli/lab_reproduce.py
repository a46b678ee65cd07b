"""``bidsfit-lab reproduce``: tables and figures of a paper, reproduced."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bidsfit.cli.lab_options import about, add_training_options, threads_of
from bidsfit.laboratory import PAPERS


def add_reproduce(commands: argparse._SubParsersAction) -> None:
    """Add the command ``reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help="make a paper's tables and figures again",
        description="Make the tables and figures of a paper again: CSV, SVG, PNG, and a page (report.html). What was "
        "trained and computed is kept in the folder; the same command goes on where it ended.",
    )
    parser.add_argument("paper", choices=PAPERS.available())
    parser.add_argument(
        "--table",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="these tables only, numbered as in the paper",
    )
    parser.add_argument(
        "--figure",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="these figures only, numbered as in the paper (2, S7, ...); those that it does not have, by name",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: the name of the paper)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="for a look: short trainings, a hundredth of the noise; up to four minutes a table or figure on two cores",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="BIDS_DIR",
        help="dataset whose participants join the simulated healthy ones, or images for karimi2024 (default: none)",
    )
    add_training_options(parser)
    parser.set_defaults(run=run_reproduce)


def run_reproduce(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from bidsfit.laboratory.paper import Options, Paper, reproduce

    paper: Paper = PAPERS.get(arguments.paper)
    exhibits = paper.chosen(arguments.table, arguments.figure)
    options = Options(
        arguments.out or Path(arguments.paper),
        quick=arguments.quick,
        data=arguments.data,
        threads=threads_of(arguments),
        device=arguments.device,
        seed=arguments.seed,
    )
    print(reproduce(paper, options, exhibits, about(shlex.join(["bidsfit-lab", *sys.argv[1:]]))))
