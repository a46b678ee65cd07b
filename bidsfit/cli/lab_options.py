"""Options that several commands of the laboratory share, and what they make."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidsfit import __version__
from bidsfit.exceptions import UsageError

if TYPE_CHECKING:
    from bidsfit.evaluation.experiments import Setting
    from bidsfit.training.distributions import Distribution


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """What is measured, and how noisily."""
    parser.add_argument("--model", required=True, help="signal model")
    parser.add_argument(
        "--b-values",
        type=float,
        nargs="+",
        action="extend",
        metavar="B",
        help="of the protocol, s/mm^2; a value that is listed twice is measured twice (default: those of its phantom)",
    )
    parser.add_argument(
        "--directions",
        type=int,
        metavar="N",
        help="in which each b-value above 0 is measured (default: as its phantom)",
    )
    parser.add_argument(
        "--snr", type=float, default=25.0, help="S0 / sigma of one measurement; inf: none (default: 25)"
    )
    parser.add_argument("--noise", choices=("rician", "gaussian"), default="gaussian", help="default: gaussian")
    parser.add_argument(
        "--noise-free-s0", action="store_true", help="no noise in the images of the lowest b-value (Gyori et al. 2022)"
    )
    parser.add_argument(
        "--bounds",
        nargs="+",
        action="extend",
        metavar="PARAMETER=LOWER,UPPER",
        help="of the space of parameters, in the units of the maps (mm^2/s), for example Dstar=0.003,0.1",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """How estimators are trained."""
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda, for networks")
    parser.add_argument("--threads", type=int, metavar="N", help="cores (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="same options and seed, same result (default: 0)")


def threads_of(arguments: argparse.Namespace) -> int:
    """Cores that may be used."""
    threads = len(os.sched_getaffinity(0)) if arguments.threads is None else int(arguments.threads)
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, found {threads}.")
    return threads


def setting_of(arguments: argparse.Namespace) -> Setting:
    """The setting that the options describe.

    Raises
    ------
    UsageError, UnsupportedProtocolError
        Where an option cannot be used, or the protocol lacks what the model needs.
    """
    from bidsfit import models
    from bidsfit.acquisition import Acquisition, DirectionAverage
    from bidsfit.bids.units import FILE_UNITS
    from bidsfit.evaluation.experiments import Setting
    from bidsfit.phantom.tissue import RECIPES
    from bidsfit.training.simulation import Noise
    from bidsfit.training.space import ParameterSpace

    model = models.get(arguments.model)
    recipe = RECIPES.get(model.name)
    b_values = arguments.b_values or (recipe and recipe.b_values)
    directions = arguments.directions or (recipe and recipe.n_directions)
    if not b_values or not directions or directions < 1:
        raise UsageError(f"The model {model.name!r} has no protocol of its own: give --b-values and --directions.")
    bounds: dict[str, tuple[float, float]] = {}
    for word in arguments.bounds or ():
        name, _, numbers = word.partition("=")
        try:
            low, high = (float(number) / FILE_UNITS[model[name].unit].factor for number in numbers.split(","))
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"--bounds takes PARAMETER=LOWER,UPPER of {', '.join(model.names)}; found {word!r}."
            ) from error
        bounds[name] = (low, high)
    try:
        each = [b for b in b_values for _ in range(directions if b > 0 else 1)]
        single = Acquisition(each, n_directions=[directions if b > 0 else 1 for b in each])
        used = single.select(model.usable(single))
        noise = Noise(arguments.snr, arguments.noise, lowest=not arguments.noise_free_s0)
        setting = Setting(ParameterSpace(model, bounds), DirectionAverage(used).acquisition, noise)
    except ValueError as error:
        raise UsageError(str(error)) from error
    model.require_support(setting.acquisition)
    return setting


def pools_of(path: Path | None, setting: Setting) -> dict[tuple[str, str], Distribution]:
    """Pools that a file of a group-level run, or of a trained estimator, holds; none where no file is given."""
    if path is None:
        return {}
    from bidsfit.bids.distributions import read_distribution

    name, pool = read_distribution(path, setting.space.model)
    return {(setting.space.model.name, name): pool}


def about(command: str) -> Mapping[str, Any]:
    """What a page says of how it was made."""
    return {
        "command": command,
        "Date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "bidsfit": __version__,
        "Python": sys.version.split()[0],
    }
