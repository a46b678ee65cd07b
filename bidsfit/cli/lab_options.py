"""Options shared by several commands of the laboratory, and the objects made from them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bidsfit import __version__
from bidsfit.exceptions import UsageError
from bidsfit.models.organs import GENERAL, ORGANS

if TYPE_CHECKING:
    from bidsfit.acquisition import Acquisition
    from bidsfit.evaluation.experiments import Setting
    from bidsfit.models.signal_model import SignalModel
    from bidsfit.noise import NoiseKind
    from bidsfit.simulation.distributions import Distribution

#: S0 / standard deviation of one measurement, where nothing says it.
SNR = 25.0


def add_setting_options(parser: argparse.ArgumentParser, *, of_file: bool = False) -> None:
    """Add options of acquisition and noise; with ``of_file`` a trained file may replace them."""
    otherwise = "that of the first trained file, or " if of_file else ""
    parser.add_argument(
        "--model", required=not of_file, help="signal model" + of_file * " (default: that of the first trained file)"
    )
    group = parser.add_argument_group("protocol", f"one of these (default: {otherwise}that of the model's phantom)")
    group.add_argument(
        "--image", type=Path, metavar="FILE", help="as the .bval, .bvec and .json files beside an image (.nii.gz) say"
    )
    group.add_argument("--bval", type=Path, metavar="FILE", help="b-values of a protocol, s/mm^2")
    group.add_argument("--bvec", type=Path, metavar="FILE", help="its directions; without, each b-value has one")
    group.add_argument(
        "--b-values",
        type=float,
        nargs="+",
        action="extend",
        metavar="B",
        help="of the protocol, s/mm^2; a value that is listed twice is measured twice",
    )
    group.add_argument(
        "--directions",
        type=int,
        metavar="N",
        help="evenly spread, in which each of --b-values above 0 is measured (default: 1); alone, of the phantom",
    )
    group.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="of a protocol (.tsv): a row a measurement, a column a variable (b in s/mm^2, TE, TI and TR in ms, "
        "flip_angle in degrees, gx gy gz, or any other that the model knows)",
    )
    group = parser.add_argument_group("noise and parameters")
    group.add_argument(
        "--snr", type=float, help=f"S0 / sigma of one measurement; inf: none (default: {otherwise}{SNR:g})"
    )
    group.add_argument("--noise", choices=("rician", "gaussian"), help=f"default: {otherwise}gaussian")
    group.add_argument(
        "--noise-free-s0",
        action="store_true",
        default=None,
        help="no noise in the images of the lowest b-value (Gyori et al. 2022)",
    )
    group.add_argument(
        "--organ",
        choices=(GENERAL, *ORGANS),
        default=GENERAL,
        help="whose bounds and priors the model has (default: general)",
    )
    group.add_argument(
        "--bounds",
        nargs="+",
        action="extend",
        metavar="PARAMETER=LOWER,UPPER",
        help="of the space of parameters, in the units of the maps (mm^2/s), for example Dstar=0.003,0.1",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add options of the training."""
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda, for networks")
    parser.add_argument("--threads", type=int, metavar="N", help="cores (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="same options and seed, same result (default: 0)")


def threads_of(arguments: argparse.Namespace) -> int:
    """Number of cores to use."""
    threads = len(os.sched_getaffinity(0)) if arguments.threads is None else int(arguments.threads)
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, found {threads}.")
    return threads


def setting_of(arguments: argparse.Namespace, file: Path | None = None, enough: int | None = None) -> Setting:
    """Build the setting from the options; a trained ``file`` gives the values of those not set.

    So many directions of a shell are ``enough`` (`bidsfit.estimators.estimator.Estimator.enough_directions`).

    Raises
    ------
    UsageError, UnusableInputError, UnsupportedProtocolError
        For an invalid option, or a protocol that does not support the model.
    """
    from bidsfit import models
    from bidsfit.evaluation.experiments import Setting
    from bidsfit.models.space import ParameterSpace
    from bidsfit.simulation.simulator import Noise
    from bidsfit.training.bundle import read_bundle

    bundle = None if file is None else read_bundle(file, machine=False)
    if arguments.model is None and bundle is None:
        raise UsageError("Give the signal model (--model), or a trained file among --estimators.")
    model = models.get(arguments.model or bundle.facts["Model"], arguments.organ)  # type: ignore[union-attr]
    bounds: dict[str, Any] = {}
    snr, kind, lowest = SNR, "gaussian", True
    if bundle is not None and bundle.facts["Model"] != model.name:
        bundle = None
    acquisition = acquisition_of(arguments, model, may_be_none=bundle is not None)
    if bundle is not None:
        bounds, noise = bundle.facts["Distribution"]["Bounds"], bundle.facts["Noise"]
        snr, kind, lowest = noise["SNR"] or math.inf, noise["Kind"], noise["AtLowestBValue"]
    try:
        if acquisition is None:
            averages = bundle.acquisition  # type: ignore[union-attr]
        else:
            averages = model.average(acquisition.select(model.usable(acquisition))).acquisition
        setting = Setting(
            ParameterSpace(model, bounds | _bounds(arguments.bounds, model)),
            averages,
            Noise(
                snr if arguments.snr is None else arguments.snr,
                cast("NoiseKind", arguments.noise or kind),
                lowest=lowest if arguments.noise_free_s0 is None else not arguments.noise_free_s0,
            ),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    model.require_support(setting.acquisition, enough)
    return setting


def acquisition_of(
    arguments: argparse.Namespace, model: SignalModel, *, may_be_none: bool = False
) -> Acquisition | None:
    """The acquisition of the options, one entry per measurement; by default that of the phantom of the model.

    With ``may_be_none`` the default is None.
    """
    import numpy as np

    from bidsfit.acquisition import Acquisition
    from bidsfit.bids.acquisitions import read_table
    from bidsfit.phantom.directions import spread_directions
    from bidsfit.phantom.tissue import RECIPES

    given = [
        f"--{name.replace('_', '-')}" for name in ("image", "bval", "b_values", "table") if getattr(arguments, name)
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} each give a protocol; give one of them.")
    if arguments.bvec and not arguments.bval:
        raise UsageError("--bvec needs the --bval that it belongs to.")
    if arguments.directions is not None and (given and not arguments.b_values):
        raise UsageError(f"--directions belongs to --b-values; {given[0]} says itself how many there are.")
    if arguments.image:
        stem = str(arguments.image).removesuffix(".gz").removesuffix(".nii")
        files = [Path(stem + suffix) for suffix in (".bval", ".bvec", ".json")]
        return Acquisition.from_files(files[0], files[1], files[2] if files[2].exists() else None)
    if arguments.bval:
        return Acquisition.from_files(arguments.bval, arguments.bvec)
    if arguments.table:
        return read_table(arguments.table)
    if may_be_none and not given and arguments.directions is None:
        return None
    recipe = RECIPES.get(model.name)
    if recipe and recipe.columns and not given and arguments.directions is None:
        return recipe.series
    b_values = arguments.b_values or (recipe and recipe.b_values)
    directions = arguments.directions or (1 if arguments.b_values else recipe and recipe.n_directions)
    if not b_values or not directions or directions < 1:
        raise UsageError(
            f"The model {model.name!r} has no protocol of its own: give --image, --bval, --table, or "
            "--b-values with --directions."
        )
    counts = [directions if b > 0 else 1 for b in b_values]
    each = [b for b, n in zip(b_values, counts, strict=True) for _ in range(n)]
    try:
        if "direction" not in model.variables:
            return Acquisition(each, n_directions=[n for n in counts for _ in range(n)])
        around = spread_directions(directions)
        return Acquisition(each, np.concatenate([around if b > 0 else np.zeros((1, 3)) for b in b_values]))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _bounds(words: Sequence[str] | None, model: SignalModel) -> dict[str, tuple[float, float]]:
    """Bounds in internal units from ``PARAMETER=LOWER,UPPER`` of ``--bounds``."""
    from bidsfit.bids.units import FILE_UNITS

    bounds: dict[str, tuple[float, float]] = {}
    for word in words or ():
        name, _, numbers = word.partition("=")
        try:
            low, high = (float(number) / FILE_UNITS[model[name].unit].factor for number in numbers.split(","))
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"--bounds takes PARAMETER=LOWER,UPPER of {', '.join(model.names)}; found {word!r}."
            ) from error
        bounds[name] = (low, high)
    return bounds


def pools_of(path: Path | None, setting: Setting) -> dict[tuple[str, str], Distribution]:
    """Pools in the file of a group-level run or of a trained estimator; empty without a file."""
    if path is None:
        return {}
    from bidsfit.bids.distributions import read_distribution

    name, pool = read_distribution(path, setting.space.model)
    return {(setting.space.model.name, name): pool}


def about(command: str) -> Mapping[str, Any]:
    """Information for a page about how it was made."""
    return {
        "command": command,
        "Date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "bidsfit": __version__,
        "Python": sys.version.split()[0],
    }
