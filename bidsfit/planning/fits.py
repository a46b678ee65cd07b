"""Fits available to images: combinations of models and estimators, with their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from bidsfit import estimators, models
from bidsfit.bids.distributions import PoolFile, find_pool
from bidsfit.bids.units import FILE_UNITS
from bidsfit.estimators.estimator import Estimator
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind
from bidsfit.simulation.simulator import Scope
from bidsfit.trained.estimator import IMAGES, TrainedEstimator
from bidsfit.trained.given import PREFIXES, describe_given, is_file_name
from bidsfit.training.bundle import read_bundle
from bidsfit.training.recipe import load_recipe, recipe_facts
from bidsfit.trust.cache import Trust
from bidsfit.trust.companions import is_simulated

#: Options of estimators that have another name on the command line.
OPTIONS = {"snr": "--training-snr", "recipe": "--training-recipe", "seed": "--training-seed"}


@dataclass(frozen=True)
class NoiseChoice:
    """Assumed kind of noise, and the source of its level: a source of --sigma, or a number as text."""

    kind: NoiseKind = "rician"
    level: str = "auto"

    @property
    def settings(self) -> dict[str, str]:
        """Fields for sidecars."""
        return {"NoiseKind": self.kind, "NoiseLevel": self.level}


#: Where no option says otherwise.
DEFAULT_NOISE = NoiseChoice()


@dataclass(frozen=True)
class PoolChoice:
    """Where to find the pooled fits that estimators are trained on.

    ``folder`` is the output folder, ``bids_dir`` the dataset (for the command that makes them).
    """

    folder: Path
    bids_dir: Path

    def command(self, model: str, kind: str) -> str:
        """The command that makes the pool of a model, for messages."""
        tissues = " -d NAME=PATH (of tissue segmentations)" if kind in ("wm", "gm") else ""
        return f"bidsfit {self.bids_dir} {self.folder} group --model {model}{tissues}"


@dataclass(frozen=True)
class Fit:
    """One fit of one image: names of model and estimator, and options of the estimator.

    ``unsuitable`` says why the options do not suit the model, else it is empty. ``trained`` is the file of an estimator
    given by the user. ``pool`` holds the fits that the estimator is trained on, if any, without those of the
    participant ``left_out``. ``organ`` is that of the preset of the model. ``trust`` says how thoroughly the errors of
    the estimator are simulated. A model that the user ``named`` may be fitted with fewer directions than it asks for,
    if they are enough for the estimator.
    """

    model: str
    estimator: str
    options: dict[str, Any]
    unsuitable: str = ""
    trained: Path | None = None
    pool: PoolFile | None = None
    left_out: str = ""
    organ: str = "general"
    trust: Trust = "light"
    named: bool = False

    @cached_property
    def signal_model(self) -> SignalModel:
        return models.get(self.model, self.organ)

    @cached_property
    def built(self) -> Estimator:
        """The estimator, ready to estimate or to be trained."""
        file: dict[str, Any] = {} if self.trained is None else {"trained": self.trained}
        return estimators.get(self.estimator)(self.signal_model, **self.options, **file)

    @property
    def name(self) -> str:
        """Name of the estimator; given files have their checksum in it."""
        return self.options.get("label") or "-".join(filter(None, [self.estimator, self.options.get("checksum", "")]))

    @property
    def takes_device(self) -> bool:
        """Whether a GPU can fit its voxels."""
        return "device" in signature(estimators.get(self.estimator)).parameters

    @property
    def trains(self) -> bool:
        """Whether the estimator must be trained first."""
        return self.trained is None and isinstance(self.built, TrainedEstimator)

    def with_noise(self, kind: NoiseKind) -> Fit:
        """The fit with this kind of noise assumed by its estimator, if it has such an option.

        Where it is Gaussian there is no Rician bias to remove.
        """
        changes: dict[str, Any] = {"noise": kind} if "noise" in self.options else {}
        if kind == "gaussian" and "debias" in self.options:
            changes["debias"] = False
        return replace(self, options={**self.options, **changes}) if changes else self

    def with_intervals(self) -> Fit:
        """The fit with intervals from the simulated errors of its estimator, or where there are none from its SD."""
        simulated = is_simulated(self.built, self.trust)
        return replace(self, options={**self.options, "intervals": "conformal" if simulated else "wald"})

    def in_organ(self, organ: str) -> Fit:
        """The fit with the preset of an organ; a trained file keeps what it was trained on."""
        if self.unsuitable or self.trained is not None:
            return self
        found = replace(self, organ=organ)
        try:
            found.built  # noqa: B018 (refuses bounds that do not suit the preset)
        except ValueError as error:
            return replace(found, unsuitable=f"with the preset of {organ}: {error}")
        return found

    def without(self, participant: str) -> Fit:
        """The fit with an estimator that is not trained on this participant (with ``sub-``)."""
        if self.pool is None or participant not in self.pool.participants:
            return self
        if len(self.pool.participants) == 1:
            return replace(self, unsuitable=f"its pool holds {participant} alone, who is to be left out")
        options = {**self.options, "pool": f"{self.pool.digest} without {participant}"}
        return replace(self, options=options, left_out=participant)

    @property
    def scope(self) -> Scope | None:
        """Whose images its training takes voxels of; None if it takes none."""
        return self.built.scope if self.trains and isinstance(self.built, TrainedEstimator) else None

    @property
    def training_in_words(self) -> str:
        """Training data of the estimator, in words; empty if it is not trained."""
        if self.unsuitable or not isinstance(self.built, TrainedEstimator):
            return ""
        if self.trained is not None:
            return f"as {self.trained.name} was trained"
        snr = self.built.snr
        level = (
            "of the SNR level nearest to that of the participant's images"
            if isinstance(snr, str)
            else f"of SNR {snr:g}"
        )
        if self.scope is not None:
            level, snr = f"of the SNRs of the voxels of {IMAGES[self.scope]}", "images"
            if self.built.learns_from_images:
                return f"trained on the measured signals of {IMAGES[self.scope]}"
        source = "the plausible space of the model"
        if self.built.distribution == "prior":
            source = "the priors of its parameters"
        if self.pool is not None:
            n = len(self.pool.participants) - bool(self.left_out)
            fits = f"the fits of {n} participant{'s' if n != 1 else ''}"
            fits += f" (without {self.left_out})" if self.left_out else ""
            source = f"{source} and {fits}" if self.built.distribution == "mixed" else fits
        return f"trained on {source}, with {'no noise' if snr == np.inf else f'noise {level}'}"


def make_fits(
    model_names: Sequence[str] = (),
    estimator_names: Sequence[str] = ("lsq",),
    *,
    options: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    noise: NoiseChoice = DEFAULT_NOISE,
    pools: PoolChoice | None = None,
    trust: Trust = "light",
) -> list[Fit]:
    """Combine models and estimators into fits.

    Unsuitable combinations are marked. A named model or estimator that suits nothing raises an error.

    Parameters
    ----------
    model_names : sequence of str
        Empty means all except variants.
    estimator_names : sequence of str
        Names, or paths of trained files.
    options : mapping
        Options of the estimators; each gets those that it has.
    noise : NoiseChoice
        Passed to estimators with an option ``noise``.
    bounds : mapping of model to parameter to (lower, upper)
        In the units of files (mm^2/s).
    pools : PoolChoice, optional
        Where to find pooled fits.
    trust : {"off", "light", "full"}

    Raises
    ------
    UnknownNameError, UsageError
        For an invalid name or option.
    """
    options = dict(options or {})
    distribution = options.pop("distribution", None)
    given_recipe = any(is_recipe(word) for word in estimator_names)
    if distribution and not given_recipe and not set(estimators.TRAINED).intersection(estimator_names):
        raise UsageError(
            f"--distribution {distribution} is for {', '.join(estimators.TRAINED)}; --estimators names none of these."
        )
    words = [estimators.with_distribution(word, distribution) for word in estimator_names]
    choices = [_choose(word, distribution) for word in dict.fromkeys(words)]
    wanted = list(dict.fromkeys(model_names)) or models.without_variants()
    if not model_names:
        wanted += [c.model for c in choices if c.model and c.model not in wanted]
    known = {c.word: _free_options(c.estimator) - set(c.options) for c in choices}
    foreign = set(options) - set().union(*known.values())
    if foreign:
        names = " or ".join(map(repr, known))
        given_as = sorted(OPTIONS.get(name, name) for name in foreign)
        raise UsageError(f"No estimator of this run has the option {' or '.join(given_as)} (not {names}).")
    bounds = bounds or {}
    for name in bounds:
        if models.get(name).name not in wanted:
            raise UsageError(f"--bounds names the model {name!r}, which is not among those of --model.")
    fits = []
    for name in wanted:
        for choice in choices:
            if choice.model not in ("", name):
                continue
            its_options = known[choice.word]
            given = {key: value for key, value in options.items() if key in its_options}
            if "noise" in its_options:
                given["noise"] = noise.kind
            own_bounds = _bounds_option(name, bounds.get(name, {}))
            found = {**choice.options, **given, **own_bounds}
            named = name in model_names or choice.file is not None
            fit = Fit(name, choice.estimator, found, trained=choice.file, trust=trust, named=named)
            try:
                if "intervals" in its_options - set(given):
                    fit = fit.with_intervals()
                fit = _with_pool(fit, pools)
            except ValueError as error:  # what the estimator refuses
                fit = replace(fit, unsuitable=str(error))
            fits.append(fit)
    for name in (*model_names, *bounds):
        _require_use([fit for fit in fits if fit.model == name])
    for choice in choices:
        label = choice.options.get("label")
        its_fits = [
            fit
            for fit in fits
            if (fit.estimator, fit.trained, fit.options.get("label")) == (choice.estimator, choice.file, label)
        ]
        if not its_fits:
            raise UsageError(
                f"--estimators {choice.word}: it was trained for the model {choice.model!r}, which is not among those "
                "of --model."
            )
        _require_use(its_fits)
    return fits


@dataclass(frozen=True)
class _Choice:
    """A value of --estimators: an estimator, and for a trained file also its model and options."""

    word: str
    estimator: str
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None


def _free_options(name: str) -> set[str]:
    """Options of an estimator that its name does not decide."""
    made: Any = estimators.get(name)
    return set(signature(made).parameters) - set(getattr(made, "keywords", {}))


def is_recipe(word: str) -> bool:
    """Whether a value of --estimators is the file of a recipe."""
    return word.endswith(".yml")


def _choose(word: str, distribution: str | None) -> _Choice:
    """Interpret a value of --estimators.

    Raises
    ------
    UnknownNameError, UsageError
        If it is neither an estimator nor a readable trained file or recipe.
    """
    if is_recipe(word):
        recipe, label = load_recipe(word), Path(word).stem
        if label in estimators.available():
            raise UsageError(f"--estimators {word}: {label!r} is an estimator already; give the file another name.")
        name = estimators.with_distribution(PREFIXES[recipe.kind], distribution)
        return _Choice(word, name, options={"recipe": recipe_facts(recipe), "label": label})
    if not is_file_name(word):
        estimators.get(word)
        return _Choice(word, word)
    path = Path(word)
    try:
        given = describe_given(read_bundle(path).facts)  # all of it, before anything runs
        models.get(given.model)
    except UnknownNameError as error:
        raise UsageError(f"--estimators {word}: it is for a model that is not installed. {error}") from error
    return _Choice(word, given.estimator, given.model, given.options, path)


def _with_pool(fit: Fit, pools: PoolChoice | None) -> Fit:
    """The fit with the pool that its estimator is trained on.

    Raises
    ------
    ValueError
        If the estimator rejects its options, or there is no pool.
    """
    built = fit.built
    if fit.trained is not None or not isinstance(built, TrainedEstimator) or not built.needs_pool:
        return fit
    kind = "healthy" if built.distribution == "mixed" else built.distribution
    found = None if pools is None else find_pool(pools.folder, fit.model, kind)
    if pools is None or found is None:
        command = "" if pools is None else f" Make it first: {pools.command(fit.model, kind)}"
        raise ValueError(f"there is no distribution of the model {fit.model!r} ({kind}) to train on.{command}")
    return replace(fit, options={**fit.options, "pool": found.digest}, pool=found)


def _require_use(fits: Sequence[Fit]) -> None:
    """Raise an error for named models or estimators that suit nothing in the run."""
    if fits and all(fit.unsuitable for fit in fits):
        fit = fits[0]
        raise UsageError(f"There is no fit of {fit.model} with {fit.name}: {fit.unsuitable}")


def bounds_of_models(
    bounds: Mapping[str, Mapping[str, tuple[float, float]]],
) -> dict[str, dict[str, tuple[float, float]]]:
    """Convert bounds of ``--bounds`` from the units of files to internal units."""
    return {name: _bounds_option(name, pairs)["bounds"] for name, pairs in bounds.items() if pairs}


def _bounds_option(model_name: str, bounds: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The option ``bounds`` of an estimator in internal units; empty if there are none."""
    model = models.get(model_name)
    converted = {}
    for name, pair in bounds.items():
        if name not in model.names:
            raise UsageError(
                f"--bounds {model_name}.{name}: the model {model_name!r} has no such parameter; it has "
                f"{', '.join(model.names)}."
            )
        factor = FILE_UNITS[model[name].unit].factor
        converted[name] = (pair[0] / factor, pair[1] / factor)
    return {"bounds": converted} if converted else {}
