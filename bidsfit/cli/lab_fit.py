"""``bidsfit-lab fit``: maps and a page of an image whose acquisition is given as a table."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bidsfit.cli.lab_options import about, threads_of
from bidsfit.exceptions import CannotCreateError, UsageError


def add_fit(commands: argparse._SubParsersAction) -> None:
    """Add the command ``fit``."""
    parser = commands.add_parser(
        "fit",
        help="fit an image that is no diffusion image of a BIDS dataset",
        description="Fit an image of four dimensions whose variables (inversion times, flip angles, b-values, ...) "
        "stand in a table, and write maps with their units and a page (report.html). For diffusion images of a BIDS "
        "dataset, use bidsfit.",
    )
    parser.add_argument("image", type=Path, help="image of four dimensions (.nii, .nii.gz); complex where the model is")
    parser.add_argument("--model", required=True, help="signal model")
    parser.add_argument(
        "--table",
        type=Path,
        required=True,
        metavar="FILE",
        help="a row a volume and a column a variable (.tsv): b in s/mm^2, TE, TI and TR in ms, flip_angle in degrees, "
        "gx gy gz, or any other that the model knows",
    )
    parser.add_argument(
        "--estimators",
        nargs="+",
        action="extend",
        metavar="ESTIMATOR",
        help="names, or files that `bidsfit-lab train` wrote (.zip) (default: lsq)",
    )
    parser.add_argument("--mask", type=Path, metavar="FILE", help="voxels above 0 are fitted (default: all)")
    parser.add_argument("--sigma", type=float, help="standard deviation of the noise of one measurement")
    parser.add_argument(
        "--noise",
        choices=("rician", "gaussian"),
        default="rician",
        help="of the image (default: rician; complex: gaussian)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that is not there yet")
    parser.add_argument("--threads", type=int, metavar="N", help="cores (default: all)")
    parser.set_defaults(run=run_fit)


def run_fit(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from bidsfit import models
    from bidsfit.bids.acquisitions import read_table
    from bidsfit.laboratory.fits import Fits
    from bidsfit.laboratory.gallery import Gallery
    from bidsfit.reports.laboratory import write_laboratory_report

    if arguments.out.exists():
        raise CannotCreateError(
            f"--out {arguments.out} is there already; name a folder that is not, so that nothing is lost."
        )
    if arguments.sigma is not None and not arguments.sigma > 0:
        raise UsageError(f"--sigma must be above 0, found {arguments.sigma:g}.")
    model = models.get(arguments.model)
    fits = Fits(
        arguments.image,
        read_table(arguments.table),
        model,
        mask=arguments.mask,
        sigma=arguments.sigma,
        noise="gaussian" if model.complex_valued else arguments.noise,
        threads=threads_of(arguments),
    )
    chosen = [fits.estimator(word) for word in arguments.estimators or ["lsq"]]  # before anything is written
    arguments.out.mkdir(parents=True)
    gallery = Gallery(arguments.out)
    sections = [fits.section(estimator, gallery) for estimator in chosen]
    path = write_laboratory_report(
        arguments.out / "report.html",
        title=f"{model.title}: {arguments.image.name}",
        lead=model.description,
        head=fits.in_words,
        sections=sections,
        about=about(shlex.join(["bidsfit-lab", *sys.argv[1:]])),
    )
    print(path)
