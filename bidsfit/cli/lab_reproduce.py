"""``bidsfit-lab reproduce``: tables and figures of a paper, reproduced."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bidsfit.cli.lab_options import about, add_training_options, threads_of
from bidsfit.exceptions import UnknownNameError

PAPERS = ("gyori2022",)


def add_reproduce(commands: argparse._SubParsersAction) -> None:
    """Add the command ``reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help="make a paper's tables and figures again",
        description="Make the tables and figures of a paper again: CSV, SVG, PNG, and a page (report.html). What was "
        "trained and computed is kept in the folder; the same command goes on where it ended.",
    )
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument(
        "--table", nargs="+", action="extend", default=[], metavar="N", help="these tables only: 1, 2, 3"
    )
    parser.add_argument(
        "--figure",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="these figures only: 1 to 6, S4 to S16 (numbers of our own, not the paper's)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("gyori2022"), metavar="DIR", help="folder (default: gyori2022)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the training and of the noise, for a look")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="BIDS_DIR",
        help="dataset whose participants join the healthy pool (default: the simulated participants alone)",
    )
    add_training_options(parser)
    parser.set_defaults(run=run_reproduce)


def run_reproduce(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from bidsfit.laboratory.gallery import Gallery
    from bidsfit.laboratory.gyori2022 import FIGURES, TABLES, Reproduction, bench_for, readable_pools
    from bidsfit.reports.laboratory import write_laboratory_report

    tables = [str(name) for name in arguments.table]
    figures = [str(name).upper() for name in arguments.figure]
    for kind, names, known in (("table", tables, TABLES), ("figure", figures, FIGURES)):
        for name in names:
            if name not in known:
                raise UnknownNameError(f"{kind} of {arguments.paper}:", name, known)
    if not tables and not figures:
        tables, figures = list(TABLES), list(FIGURES)
    bench = bench_for(
        arguments.out,
        real=arguments.data,
        quick=arguments.quick,
        threads=threads_of(arguments),
        device=arguments.device,
        seed=arguments.seed,
    )
    paper = Reproduction(bench, Gallery(arguments.out), quick=arguments.quick)
    for name in tables:
        TABLES[name](paper)
    for name in figures:
        FIGURES[name](paper, name)
    path = write_laboratory_report(
        arguments.out / "report.html",
        title="Gyori et al. 2022, made again",
        lead="Training data distribution significantly impacts the estimation of tissue microstructure with machine "
        "learning (Magnetic Resonance in Medicine 2022;87:932-947). Figures have numbers of our own, not the paper's."
        + (" A quick run: a tenth of the training and of the noise." if arguments.quick else ""),
        sections=paper.page(),
        about={**about(shlex.join(["bidsfit-lab", *sys.argv[1:]])), "Healthy pool": readable_pools(bench)},
    )
    print(path)
