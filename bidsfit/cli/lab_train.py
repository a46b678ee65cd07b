"""``bidsfit-lab train``: training of an estimator to a file."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bidsfit import estimators
from bidsfit.cli.lab_options import add_setting_options, add_training_options, pools_of, setting_of, threads_of
from bidsfit.exceptions import CannotCreateError, UsageError

if TYPE_CHECKING:
    from bidsfit.simulation.images import ImageVoxels
    from bidsfit.trained.estimator import TrainedEstimator


def add_train(commands: argparse._SubParsersAction) -> None:
    """Add the command ``train``."""
    parser = commands.add_parser(
        "train",
        help="train an estimator and write it as a file",
        description="Train an estimator on simulated signals and write it, with all that judges it, as one file. "
        "`bidsfit ... --estimators FILE` fits with it data of the same protocol.",
    )
    parser.add_argument(
        "estimator", type=estimators.with_distribution, help="net-prior, net-healthy, forest-gm, mse-crb ..."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write (.zip); must not exist")
    add_setting_options(parser)
    parser.add_argument(
        "--pool", type=Path, metavar="FILE", help="distribution of a group-level run (*_distribution.json)"
    )
    parser.add_argument("--recipe", metavar="NAME", help="recipe of the package, or a file (.yml)")
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="voxels of --image, for a recipe that takes voxels of images"
    )
    parser.add_argument(
        "--sigma",
        type=float,
        metavar="S",
        help="standard deviation of the noise of --image, in its unit (default: from repeated volumes)",
    )
    add_training_options(parser)
    parser.set_defaults(run=run_train)


def add_recipes(commands: argparse._SubParsersAction) -> None:
    """Add the command ``recipes``."""
    parser = commands.add_parser(
        "recipes",
        help="list the recipes of training",
        description="List the recipes of the package: what they are, and where they come from. Those marked with * are "
        "also estimators by their name.",
    )
    parser.set_defaults(run=run_recipes)


def run_recipes(arguments: argparse.Namespace) -> None:
    """Print the recipes."""
    from bidsfit.training.recipe import available, description

    for name, path in available().items():
        mark = "*" if name in estimators.RECIPES else ""
        print(textwrap.fill(f"{name}{mark}: {description(path)}", 100, subsequent_indent="    "))


def run_train(arguments: argparse.Namespace) -> None:
    """Train what the command line asks for."""
    from bidsfit.laboratory.bench import (
        Bar,
        Bench,
        enough_directions,
        is_trained,
        kind_of,
        protocol_in_words,
        say,
        setting_in_words,
    )
    from bidsfit.training.bundle import write_bundle
    from bidsfit.training.recipe import load_recipe
    from bidsfit.training.task import train

    if arguments.out.exists() or arguments.out.suffix != ".zip":
        error = CannotCreateError if arguments.out.exists() else UsageError
        raise error(f"--out {arguments.out} must be a file that does not exist yet, with the extension .zip.")
    estimators.get(arguments.estimator)  # refuses an unknown name
    if not is_trained(arguments.estimator):
        raise UsageError(f"{arguments.estimator!r} needs no training.")
    setting = setting_of(arguments, enough=enough_directions([arguments.estimator]))
    recipes = {}
    if arguments.recipe:
        if estimators.has_recipe(arguments.estimator):
            raise UsageError(f"{arguments.estimator} is a recipe itself; leave out --recipe, or train net-uniform.")
        recipe = load_recipe(arguments.recipe)
        kind = kind_of(arguments.estimator)
        if recipe.kind != kind:
            raise UsageError(f"--recipe {arguments.recipe} is of a {recipe.kind}; {arguments.estimator} is a {kind}.")
        recipes = dict.fromkeys(("network", "network-noise-free") if recipe.kind == "network" else ("forest",), recipe)
    bench = Bench(arguments.out.parent, pools_of(arguments.pool, setting), seed=arguments.seed, recipes=recipes)
    estimator, images = bench.plan(arguments.estimator, setting), None
    if estimator.scope is not None:
        images = _voxels_of(arguments, estimator)
        if arguments.snr is None:
            setting = replace(setting, noise=replace(setting.noise, snr=images.median_snr))
    elif arguments.mask is not None or arguments.sigma is not None:
        raise UsageError(
            "--mask and --sigma are for recipes that take voxels of images (signals: images, snr: images)."
        )
    try:
        task = bench.task(arguments.estimator, setting, images)
    except ValueError as error:
        advice = " Give it with --pool." * estimator.needs_pool
        raise UsageError(f"{arguments.estimator}: {error}{advice}") from error
    say(protocol_in_words(setting))
    with Bar(f"training {arguments.estimator}, {setting_in_words(setting)}") as bar:
        bundle = train(task, threads=threads_of(arguments), device=arguments.device, progress=bar.show)
    write_bundle(arguments.out, bundle)
    training = bundle.facts["Training"]
    if not training["Converged"]:
        sys.stderr.write("bidsfit-lab: warning: the loss was still falling at the end; train longer (steps).\n")
    print(f"{arguments.out}: validation loss {training['ValidationLoss']:.3g}")


def _voxels_of(arguments: argparse.Namespace, estimator: TrainedEstimator) -> ImageVoxels:
    """The voxels of ``--image`` that a training takes.

    Raises
    ------
    UsageError
        If there is no image or mask, or the noise level is not known.
    UnusableInputError
        If the image or the mask cannot be read.
    """
    from bidsfit.bids.images import MaskedSignals, image_shape, open_image, read_mask
    from bidsfit.bids.metadata import read_sidecar, slice_axis
    from bidsfit.cli.lab_options import acquisition_of
    from bidsfit.noise import sigma_from_repeats

    if arguments.image is None or arguments.mask is None:
        raise UsageError(
            f"The recipe of {arguments.estimator} takes voxels of the images that it will fit: give --image (a file "
            "with .bval and .bvec beside it) and --mask, or let `bidsfit` train it for the images of a dataset."
        )
    acquisition = acquisition_of(arguments, estimator.model)
    assert acquisition is not None
    image = open_image(arguments.image)
    shape = image_shape(image, len(acquisition), arguments.image)
    signals = MaskedSignals(image, shape, read_mask(arguments.mask, image, arguments.image), arguments.image)
    sigma = arguments.sigma
    if sigma is None:
        found = sigma_from_repeats(signals[slice(None)], acquisition)
        sigma = None if found is None else found.sigma
    if sigma is None:
        raise UsageError(
            f"{arguments.image}: no measurement (same b-value and direction) was repeated; give the noise level with "
            "--sigma."
        )
    sidecar = Path(str(arguments.image).removesuffix(".gz").removesuffix(".nii") + ".json")
    across = slice_axis(read_sidecar(sidecar) if sidecar.exists() else {})
    places = signals.positions(across) if any(estimator.reach) else None
    return estimator.sample(signals, acquisition, sigma, name=arguments.image.name, positions=places)
