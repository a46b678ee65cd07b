"""Recipes of a training: architecture, objective, schedule and simulation, named in a YAML file."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bidsfit.choices import lines_of, read_yaml
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.simulation.simulator import Scope, Simulation
from bidsfit.training import architectures, objectives
from bidsfit.training.architectures import Architecture
from bidsfit.training.objectives import Objective

#: Every number of a recipe is below this.
LARGEST = 2**31

#: Where a choice is, for messages, by the names of its section and its own.
Place = Callable[..., str]

SECTIONS = ("simulation", "architecture", "objective", "schedule")


@dataclass(frozen=True)
class Recipe:
    """All choices of a training.

    Parameters
    ----------
    architecture : Architecture
    objective : Objective
    schedule : dataclass
        Of the type that the architecture declares, such as `bidsfit.training.trainer.Schedule`.
    simulation : Simulation
    start : Recipe, optional
        Recipe of an earlier training, whose network this one starts from; by default it starts from random weights.
    """

    architecture: Architecture
    objective: Objective
    schedule: Any
    simulation: Simulation = field(default_factory=Simulation)
    start: Recipe | None = None

    def __post_init__(self) -> None:
        self.architecture.require_parts(self.objective, self.simulation)
        form = getattr(self.objective, "form", None)
        if form is not None and self.simulation.realisations < 2:
            raise ValueError(
                f"The form {form!r} compares noise realisations of the same voxel (realisations of the simulation); it "
                f"needs at least 2, found {self.simulation.realisations}."
            )
        if self.simulation.label_share is not None and not self.objective.squares_errors:
            raise ValueError(
                "label_share mixes labels with the truth, which is the hybrid for squared errors of the parameters "
                f"alone; the objective {self.objective.name!r} has others here."
            )
        if self.simulation.labels is not None and not self.objective.needs_truth:
            raise ValueError(f"The objective {self.objective.name!r} does not look at labels; leave labels out.")
        if self.simulation.signals is not None and self.objective.needs_truth:
            raise ValueError(
                f"The objective {self.objective.name!r} needs the true parameters, which measured signals (signals: "
                "images) do not tell; take the objective 'signals', or simulate."
            )
        if getattr(self.objective, "s0", None) == "measured" and self.simulation.unit == "noise":
            raise ValueError("S0 is measured (s0) where signals are relative to it, and unit: noise takes the noise.")
        if self.start is not None and self.start.architecture != self.architecture:
            raise ValueError("A training starts from a network of the same architecture; that of `start` differs.")

    @property
    def kind(self) -> str:
        """Kind of estimator that uses it: "network" or "forest"."""
        return self.architecture.kind

    @property
    def learns_from_images(self) -> bool:
        """Whether measured signals train it, or what it starts from."""
        return self.simulation.signals is not None or (self.start is not None and self.start.learns_from_images)

    @property
    def scope(self) -> Scope | None:
        """Whose images the training takes voxels of; None if it takes none."""
        if self.simulation.takes_images:
            return self.simulation.scope or "participant"
        return None if self.start is None else self.start.scope


_DESCENT = ("steps", "batch", "peak_rate", "validation", "checks")

#: Recipes without sections, as they were written at first: the sections of each kind, and where its choices belong.
FLAT: Mapping[str, tuple[Mapping[str, Mapping[str, Any]], Mapping[str, tuple[str, str]]]] = {
    "network": (
        {"architecture": {"name": "perceptron"}, "objective": {"name": "parameters"}},
        {
            **{choice: ("architecture", choice) for choice in ("units", "hidden_layers")},
            **{choice: ("schedule", choice) for choice in _DESCENT},
            "loss": ("objective", "name"),
        },
    ),
    "forest": (
        {"simulation": {"samples": 393216}, "architecture": {"name": "forest"}, "objective": {"name": "relative"}},
        {
            **{choice: ("architecture", choice) for choice in ("trees", "samples_per_leaf", "depth")},
            "samples": ("simulation", "samples"),
            "validation": ("schedule", "validation"),
        },
    ),
}


def recipe_facts(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """All choices of a recipe by section, for JSON.

    Choices that are None are left out, so that options added later do not change the digest of existing recipes.
    """
    found: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        part = getattr(recipe, section)
        made = {key: value for key, value in asdict(part).items() if value is not None}
        choices = {key: _as_json(value) for key, value in made.items()}
        found[section] = ({"name": part.name} if section in ("architecture", "objective") else {}) | choices
    return found if recipe.start is None else found | {"start": recipe_facts(recipe.start)}


def _as_json(value: Any) -> Any:
    """A choice with lists in place of tuples."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def recipe_from(
    facts: Mapping[str, Any],
    source: str,
    lines: Mapping[tuple[str, ...], int] | None = None,
    files_before: tuple[Path, ...] = (),
) -> Recipe:
    """Build a recipe from a table.

    Parameters
    ----------
    facts : mapping
        Choices by section; ``base`` and ``start``, each the name, the file or the content of another recipe. What is
        not chosen is that of ``base``, except where a section names another architecture or objective.
    source : str
        Names its origin in messages.
    lines : mapping, optional
        As of `bidsfit.choices.lines_of`, for messages.
    files_before : tuple of Path
        The file that the table is from and those that led to it, which may not be named again.

    Raises
    ------
    UnknownNameError, UsageError
        For an unknown choice or an invalid value.
    """

    def place(*names: str) -> str:
        return f"{source}, line {lines[names]}" if lines and names in lines else source

    sections = dict(_sections(facts, place) if "kind" in facts else facts)
    base = _other("base", sections.pop("base", None), source, lines, files_before)
    before = _other("start", sections.pop("start", base and base.start), source, lines, files_before)
    if before is not None and before.start is not None:
        raise UsageError(f"{source}: start must be a recipe without a start of its own.")
    for section, content in sections.items():
        if section not in SECTIONS:
            raise UnknownNameError(f"section in {place(str(section))}:", str(section), (*SECTIONS, "base", "start"))
        if not isinstance(content, Mapping):
            found = reprlib.repr(content)
            raise UsageError(f"{place(section)}: {section} must be a table of choices, found {found}.")
    inherited = {} if base is None else recipe_facts(base)
    choices = {section: _merged(inherited.get(section, {}), sections.get(section, {})) for section in SECTIONS}
    architecture: type[Architecture] = _named("architecture", choices, architectures.REGISTRY, place)
    objective: type[Objective] = _named("objective", choices, objectives.REGISTRY, place)
    parts = {
        "architecture": architecture,
        "objective": objective,
        "schedule": architecture.schedule,
        "simulation": Simulation,
    }
    made = {
        section: build_part(part, choices[section], place(section), {k: place(section, k) for k in choices[section]})
        for section, part in parts.items()
    }
    try:
        return Recipe(**made, start=before)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error


def _other(
    key: str,
    given: Any,
    source: str,
    lines: Mapping[tuple[str, ...], int] | None,
    files_before: tuple[Path, ...],
) -> Recipe | None:
    """Another recipe that one names as its base or start, by name or file, or by its content."""
    if given is None or isinstance(given, Recipe):
        return given
    if isinstance(given, str):
        return _read(_path(given), files_before)
    if not isinstance(given, Mapping):
        raise UsageError(f"{source}: {key} must be the name, file or content of a recipe, found {reprlib.repr(given)}.")
    inside = {names[1:]: line for names, line in (lines or {}).items() if names[:1] == (key,)}
    return recipe_from(given, source, inside, files_before)


def _read(path: Path, files_before: tuple[Path, ...] = ()) -> Recipe:
    """The recipe of a file, whose base and start may not lead back to it or to the files before."""
    if path in files_before:
        raise UsageError(f"{files_before[-1]}: the recipe {path} is made of itself, by way of its base or start.")
    return recipe_from(read_yaml(path, "recipe"), str(path), lines_of(path, "recipe"), (*files_before, path))


def _merged(inherited: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a section; those of the base where both have the same name (of an architecture or objective)."""
    return dict(own) if own.get("name") not in (None, inherited.get("name")) else {**inherited, **own}


def _sections(facts: Mapping[str, Any], place: Place) -> dict[str, dict[str, Any]]:
    """Convert a recipe in the flat format, which names a kind, into sections; see `FLAT`."""
    kind = facts["kind"]
    if not isinstance(kind, str) or kind not in FLAT:
        raise UnknownNameError(f"kind of recipe in {place('kind')}:", str(kind), FLAT)
    start, places = FLAT[kind]
    found = {section: dict(start.get(section, {})) for section in SECTIONS}
    for choice, value in facts.items():
        if choice == "kind":
            continue
        if choice not in places:
            raise UnknownNameError(f"choice in {place(str(choice))}:", str(choice), places)
        section, name = places[choice]
        found[section][name] = value
    return found


def _named(section: str, choices: dict[str, dict[str, Any]], registry: Any, place: Place) -> Any:
    """The class that a section names."""
    name = choices[section].pop("name", None)
    if not isinstance(name, str) or name not in registry.available():
        raise UnknownNameError(f"{section} in {place(section, 'name')}:", str(name), registry.available())
    return registry.get(name)


def build_part(cls: type, choices: Mapping[str, Any], source: str, places: Mapping[str, str] | None = None) -> Any:
    """Build one part of a recipe from its choices.

    In messages ``source`` names the origin of all, and ``places`` that of single choices by name.

    Raises
    ------
    UnknownNameError
        For a choice that is no field of the class.
    UsageError
        For a value that is not of the type of its field.
    """
    types, known = get_type_hints(cls), [part.name for part in fields(cls)]
    values = {}
    for name, value in choices.items():
        place = (places or {}).get(str(name), source)
        if name not in known:
            raise UnknownNameError(f"choice in {place}:", str(name), known)
        values[name] = _checked(value, types[name], f"{place}: {name}")
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error


def _checked(value: Any, kind: Any, what: str, zero: bool = False) -> Any:
    """Check a value against the type of a field: positive number, word, boolean, list of positive numbers, or table.

    Of a field that is a number or a word, words are checked as such. Numbers in tables may be 0 (``zero``).
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None and NoneType in options:
        return None
    kinds, found = [option for option in options if option is not NoneType], reprlib.repr(value)
    kind = kinds[-1] if isinstance(value, str) else kinds[0]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            numbers = ["a whole number" if int in kinds else "a number"] if len(kinds) > 1 else []
            raise UnknownNameError(f"choice in {what}:", str(value), [*get_args(kind), *numbers])
        return value
    if get_origin(kind) is tuple:
        length = None if Ellipsis in get_args(kind) else len(get_args(kind))
        if not isinstance(value, list | tuple) or length not in (None, len(value)):
            raise UsageError(
                f"{what} must be a list of {'' if length is None else f'{length} '}numbers, found {found}."
            )
        return tuple(_checked(item, get_args(kind)[0], what, zero) for item in value)
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise UsageError(f"{what} must be a table, found {found}.")
        return {str(key): _checked(item, get_args(kind)[1], f"{what}: {key}", zero=True) for key, item in value.items()}
    if kind in (bool, str):
        if not isinstance(value, kind):
            raise UsageError(f"{what} must be {'true or false' if kind is bool else 'a word'}, found {found}.")
        return value
    whole, right = kind is int, int if kind is int else int | float
    if not isinstance(value, right) or isinstance(value, bool) or not (0 < value < LARGEST or (zero and value == 0)):
        raise UsageError(
            f"{what} must be a {'whole ' * whole}number {'of at least' if zero else 'above'} 0, found {found}."
        )
    return value


def available() -> dict[str, Path]:
    """Names and files of the recipes of the package."""
    folder = Path(str(files("bidsfit.training").joinpath("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yml"))}


def load_recipe(name: str) -> Recipe:
    """Load a recipe of the package by name, or one of the user by path (.yml)."""
    return _read(_path(name))


def description(path: Path) -> str:
    """What a recipe of the package is and where it comes from: the comment at its beginning, in one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def _path(name: str) -> Path:
    """The file of a recipe given by name or path."""
    known = available()
    path = known.get(name, Path(name))
    if path.suffix != ".yml":
        raise UnknownNameError("recipe", name, known)
    return path
