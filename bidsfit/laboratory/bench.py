"""A bench that trains estimators on demand, applies them to simulated signals, and caches results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bidsfit import estimators
from bidsfit.estimators.estimator import Estimator
from bidsfit.evaluation.experiments import Evaluation, Setting, evaluate
from bidsfit.exceptions import UsageError
from bidsfit.laboratory.results import Results
from bidsfit.models.signal_model import SignalModel
from bidsfit.parallel import BAR_FORMAT
from bidsfit.simulation.distributions import Distribution
from bidsfit.simulation.images import ImageVoxels
from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.trained.given import describe_given, is_file_name
from bidsfit.trained.network import Network
from bidsfit.training.bundle import acquisition_facts, read_bundle, read_facts
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import Recipe, load_recipe, recipe_facts
from bidsfit.training.store import Store
from bidsfit.training.task import Task, fit

#: Seconds between two lines of progress where there is no terminal.
LINES_APART = 30.0


def say(text: str) -> None:
    """Print a progress message."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class Bench:
    """Trains, evaluates and caches estimators by name.

    Parameters
    ----------
    folder : Path
        Folder of trained estimators and results.
    pools : mapping of model and distribution ("smt2", "healthy") to Distribution
        Pooled fits, by model and distribution.
    device : str
        torch device of network training.
    recipes : mapping of a name of a recipe to Recipe
        Replace the default recipes ("network", "network-noise-free", "forest").
    networks : mapping of a name of an estimator to Recipe
        Networks beyond those of the package, or in place of one, trained uniformly over the space.
    options : mapping of estimator to its options
        Options beyond those that follow from the setting.
    given : mapping of name to path
        Files of trained estimators, by the names used for them.
    """

    folder: Path
    pools: Mapping[tuple[str, str], Distribution] = field(default_factory=dict)
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    networks: Mapping[str, Recipe] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    given: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def store(self) -> Store:
        """The trained estimators."""
        return Store(self.folder / "trained")

    @cached_property
    def results(self) -> Results:
        """What was computed."""
        return Results(self.folder / "results")

    def require(self, names: Iterable[str], setting: Setting) -> None:
        """Check that estimators can be used in a setting, before anything is computed.

        Raises
        ------
        UsageError, UnknownNameError, UnusableInputError
            Naming the estimator or its file, and the reason.
        """
        for name in names:
            try:
                if self.is_taught(name):
                    self.task(name, setting)  # which may lack a pool
                    continue
                estimator = self.estimator(name, setting)
                missing = estimator.missing(setting.acquisition)
                if any(estimator.reach):
                    raise ValueError("it reads the neighbours of a voxel, and what is asked here are single voxels.")
            except ValueError as error:
                raise UsageError(f"--estimators {self.given.get(name, name)}: {error}") from error
            if missing:
                raise UsageError(
                    f"--estimators {self.given.get(name, name)}: {'; '.join(missing)}. Without an option of the "
                    "protocol, that of the first trained file is taken."
                )

    def is_taught(self, name: str) -> bool:
        """Whether the bench trains it for the setting."""
        return name not in self.given and (name in self.networks or is_trained(name))

    def _class(self, name: str) -> Any:
        """The class of an estimator, with the options that its name stands for."""
        if name not in self.networks:
            return estimators.get(name)
        recipe = recipe_facts(self.networks[name])
        return partial(Network, distribution="uniform", recipe=recipe, label=name)

    def task(self, name: str, setting: Setting, images: ImageVoxels | None = None) -> Task:
        """Training task of an estimator for a setting, with voxels of images if its recipe takes them."""
        plan = self.plan(name, setting)
        pool = self.pools.get(
            (setting.space.model.name, "healthy" if plan.distribution == "mixed" else plan.distribution)
        )
        return plan.task(setting.acquisition, setting.noise.snr, pool, lowest=setting.noise.lowest, images=images)

    def plan(self, name: str, setting: Setting) -> TrainedEstimator:
        """The estimator before its training."""
        bounds = {key: (low, high) for key, (low, high) in setting.space.facts.items()}
        options: dict[str, Any] = {"snr": setting.noise.snr, "noise": setting.noise.kind, "seed": self.seed}
        if name not in self.networks and not estimators.has_recipe(name):
            kind = kind_of(name)
            default = "network-noise-free" if kind == "network" and np.isinf(setting.noise.snr) else kind
            if default in self.recipes:
                options["recipe"] = recipe_facts(self.recipes[default])
        made: TrainedEstimator = self._class(name)(setting.space.model, bounds=bounds, **options)
        return made

    def estimator(self, name: str, setting: Setting) -> Estimator:
        """An estimator for a setting, trained if needed."""
        model = setting.space.model
        if name in self.given:
            return estimator_of(self.given[name], model)
        made: Any = self._class(name)
        bounds: Any = {key: (low, high) for key, (low, high) in setting.space.facts.items()}
        if not self.is_taught(name):
            classical: Estimator = made(model, **{"bounds": bounds, **self.options.get(name, {})})
            return classical
        path = self.obtain(name, setting)
        return made(model, snr=setting.noise.snr, noise=setting.noise.kind, seed=self.seed, bounds=bounds, trained=path)

    def obtain(self, name: str, setting: Setting) -> Path:
        """The file of a trained estimator; it is trained where the store does not have it."""
        with Bar(f"training {name}, {setting_in_words(setting)}") as bar:
            return self.store.obtain(
                self.task(name, setting), name, threads=self.threads, device=self.device, progress=bar.show
            )

    def facts(self, name: str, setting: Setting) -> dict[str, Any]:
        """Everything that determines the estimates in a setting, for JSON."""
        noise = setting.noise
        facts: dict[str, Any] = {
            "Model": setting.space.model.name,
            "Bounds": setting.space.facts,
            "Acquisition": acquisition_facts(setting.acquisition, setting.space.model.variables),
            "Noise": [None if np.isinf(noise.snr) else noise.snr, noise.kind, noise.lowest],
            "Estimator": name,
        }
        if name in self.given:
            return facts | {"File": read_facts(self.given[name])["Checksum"]}
        if self.is_taught(name):
            return facts | {"Task": self.task(name, setting).key}
        return facts | {"Options": {k: str(v) for k, v in self.options.get(name, {}).items()}}

    def evaluate(
        self,
        name: str,
        setting: Setting,
        truth: NDArray[np.float64],
        *,
        repeats: int,
        seed: int = 0,
        trained_for: Setting | None = None,
    ) -> Evaluation:
        """Bias, standard deviation and error over a grid; cached.

        ``trained_for`` is the setting of the training, if it differs in the noise from that of the measurements.
        """
        repeats = 1 if np.isinf(setting.noise.snr) else repeats
        trained_for = trained_for or setting

        def compute() -> dict[str, NDArray]:
            estimator = self.estimator(name, trained_for)
            with Bar(f"evaluating {name}, {setting_in_words(setting)}") as bar:
                found = evaluate(
                    estimator, setting, truth, repeats=repeats, seed=seed, threads=self.threads, progress=bar.show
                )
            return found._asdict()

        facts = {**self.facts(name, trained_for), "Truth": _digest(truth), "Repeats": repeats, "Seed": seed}
        facts |= {"Measures": Evaluation._fields}
        if trained_for.noise != setting.noise:
            facts["Measured"] = str(setting.noise)
        return Evaluation(**self.results.obtain(f"evaluation_{name}", facts, compute))

    def estimate(self, name: str, setting: Setting, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates of signals, shape (n, n_parameters); cached."""

        def compute() -> dict[str, NDArray]:
            return {"estimates": setting.estimate(self.estimator(name, setting), signals, self.threads)}

        facts = {**self.facts(name, setting), "Signals": _digest(signals)}
        return self.results.obtain(f"estimates_{name}", facts, compute)["estimates"]

    def machine(self, task: Task, words: str) -> dict[str, NDArray]:
        """Weights of the network of a task that no name stands for, trained if needed and kept; ``words`` say what."""

        def compute() -> dict[str, NDArray]:
            with Bar(f"training {words}") as bar:
                found: dict[str, NDArray] = fit(
                    task, threads=self.threads, device=self.device, progress=bar.show
                ).machine
            return found

        return self.results.obtain("network", {"Task": task.key}, compute)

    def members(self, name: str, setting: Setting, signals: NDArray[np.float64], together: int) -> NDArray[np.float32]:
        """Estimates by several networks from different seeds, shape (together, n, n_parameters); cached.

        They are trained together, and not kept.
        """
        task = self.task(name, setting)
        schedule = replace(task.recipe.schedule, members=together)
        task = replace(task, recipe=replace(task.recipe, schedule=schedule))

        def compute() -> dict[str, NDArray]:
            with Bar(f"training {together} times {name}, {setting_in_words(setting)}") as bar:
                machines = fit(task, threads=self.threads, device=self.device, progress=bar.show).machine
            space = setting.space
            inverters = [Inverter(task.recipe, machine, space, task.acquisition) for machine in machines]
            found = [invert(signals).parameters[:, space.places] for invert in inverters]
            return {"estimates": np.stack(found).astype(np.float32)}

        facts = {"Task": task.key, "Signals": _digest(signals)}
        return self.results.obtain(f"members_{name}", facts, compute)["estimates"]

    def training_samples(self, name: str, setting: Setting, n: int = 200_000) -> NDArray[np.float64] | None:
        """Samples of the training distribution of an estimator; None if it is not trained on one."""
        if name in self.given:
            bundle = read_bundle(self.given[name], machine=False)
            if bundle.recipe.learns_from_images:
                return None
            distribution = bundle.distribution(setting.space.model)
        elif self.is_taught(name):
            distribution = self.task(name, setting).distribution
        else:
            return None
        return distribution.sample(n, np.random.default_rng(self.seed))

    def training_facts(self, name: str, setting: Setting) -> dict[str, Any]:
        """Description in the file of a trained estimator."""
        return read_facts(self.obtain(name, setting))


def estimator_of(path: Path, model: SignalModel) -> Estimator:
    """The estimator of a trained file.

    Raises
    ------
    UnusableInputError, UsageError
        If the file is unusable or for another model.
    """
    bundle = read_bundle(path)
    given = describe_given(bundle.facts)
    if given.model != model.name:
        raise UsageError(f"--estimators {path}: it was trained for the model {given.model!r}, not for {model.name!r}.")
    build: Any = estimators.get(given.estimator)
    made: Estimator = build(model, trained=bundle, **given.options)
    return made


def quick_recipes() -> dict[str, Recipe]:
    """Recipes for a preview: a tenth of the steps of a training, with a quarter of the voxels in each."""
    found = {}
    for name in ("network", "network-noise-free"):
        recipe = load_recipe(name)
        steps, batch = recipe.schedule.steps // 10, recipe.schedule.batch // 4
        short = replace(recipe.schedule, steps=steps, batch=batch, validation=4096, checks=10)
        found[name] = replace(recipe, schedule=short)
    return found | {"forest": load_recipe("forest-quick")}


def is_trained(name: str) -> bool:
    """Whether an estimator of that name is trained."""
    made = _class_of(name)
    return isinstance(made, type) and issubclass(made, TrainedEstimator)


def enough_directions(names: Iterable[str]) -> int | None:
    """Directions of a shell that are enough for all of these estimators; None for as many as the model asks for."""
    found = {TrainedEstimator.enough_directions if is_file_name(n) else _class_of(n).enough_directions for n in names}
    return None if None in found else max(found)


def kind_of(name: str) -> str:
    """Kind of recipe ("network", "forest") of an estimator."""
    kind: str = _class_of(name).kind
    return kind


def _class_of(name: str) -> Any:
    """Class of an estimator; several names share one, with different distributions."""
    made: Any = estimators.get(name)
    return getattr(made, "func", made)


def setting_in_words(setting: Setting) -> str:
    """Model and noise as text."""
    snr = "no noise" if np.isinf(setting.noise.snr) else f"SNR {setting.noise.snr:g}"
    return f"{setting.space.model.name}, {snr}"


def protocol_in_words(setting: Setting) -> str:
    """What a simulation takes for measured: every shell with its number of measurements, and the noise."""
    acquisition = setting.acquisition
    shells = [f"{b:g} ({n:g})" for b, n in zip(acquisition.b_values, acquisition.weights, strict=True)]
    others = [name for name in acquisition.columns if name != "b"]
    also = f", with {', '.join(others)}" if others else ""
    noise = f"{setting.noise.kind} noise" + " but in the lowest b-value" * (not setting.noise.lowest)
    return f"protocol: b in s/mm² (measurements) {', '.join(shells)}{also}; {setting_in_words(setting)}, {noise}"


def _digest(array: NDArray) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Bar:
    """Progress of something, with the time that is left; and a line at its end.

    In a terminal it is a bar; elsewhere, as in the log of a cluster, a line every half minute.

    Parameters
    ----------
    text : str
        What is done.
    """

    def __init__(self, text: str) -> None:
        self._text, self._start = text, time.perf_counter()
        self._said = self._start
        self._bar: Any = None

    def __enter__(self) -> Bar:
        return self

    def show(self, done: float) -> None:
        """Say that this fraction is done."""
        now = time.perf_counter()
        if self._bar is None:
            self._bar = tqdm(total=100, desc=self._text, bar_format=BAR_FORMAT, disable=None)
        self._bar.update(round(100 * done) - self._bar.n)
        if self._bar.disable and 0 < done < 1 and now - self._said > LINES_APART:
            left = (now - self._start) * (1 - done) / done
            say(f"{self._text}: {100 * done:.0f} %, about {left:.0f} s left")
            self._said = now

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            say(f"{self._text}: {time.perf_counter() - self._start:.0f} s")
