"""How an estimator is trained: a table of choices, kept as YAML in recipes/."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from bidsfit.bids.choices import read_yaml
from bidsfit.exceptions import UnknownNameError, UsageError

#: Every number of a recipe is below this.
LARGEST = 2**31

LossName = Literal["parameters", "logits"]


@dataclass(frozen=True)
class NetworkRecipe:
    """A multilayer perceptron, trained by Adam with a one-cycle learning rate.

    Parameters
    ----------
    units, hidden_layers : int
    loss : {"parameters", "logits"}
        Mean squared error of the parameters relative to their bounds, or of the network's outputs before the sigmoid.
    steps, batch : int
        Every step draws a batch of parameters and noise of its own.
    peak_rate : float
        The largest learning rate; it rises to it over 30 % of the steps and falls to nothing.
    validation : int
        Samples of the validation set, drawn once.
    checks : int
        How often over the training the validation set is looked at; the best weights are kept.
    """

    units: int = 280
    hidden_layers: int = 2
    loss: LossName = "parameters"
    steps: int = 6000
    batch: int = 4096
    peak_rate: float = 4e-3
    validation: int = 65536
    checks: int = 60

    kind = "network"


@dataclass(frozen=True)
class ForestRecipe:
    """A random forest of regression trees.

    Parameters
    ----------
    trees : int
    samples_per_leaf : int
        A leaf holds at least so many training samples.
    depth : int or None
        Deepest level of a tree; None for no limit.
    samples : int
        Training samples.
    validation : int
        Samples of the validation set.
    """

    trees: int = 50
    samples_per_leaf: int = 40
    depth: int | None = None
    samples: int = 393216
    validation: int = 65536

    kind = "forest"


Recipe = NetworkRecipe | ForestRecipe

KINDS: Mapping[str, type[NetworkRecipe] | type[ForestRecipe]] = {"network": NetworkRecipe, "forest": ForestRecipe}


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """All choices of a recipe, for JSON."""
    return {"kind": recipe.kind, **asdict(recipe)}


def recipe_from(facts: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of a table; ``source`` names where it came from in messages.

    Raises
    ------
    UnknownNameError, UsageError
        For a choice that does not exist, or a value that cannot be.
    """
    content = dict(facts)
    kind = content.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownNameError(f"kind of recipe in {source}:", str(kind), KINDS)
    known = {field.name: field for field in fields(KINDS[kind])}
    for name, value in content.items():
        if name not in known:
            raise UnknownNameError(f"choice in {source}:", str(name), known)
        if name == "loss":
            if value not in get_args(LossName):
                raise UnknownNameError(f"loss in {source}:", str(value), get_args(LossName))
        elif not (value is None and name == "depth"):
            whole = known[name].type != "float"
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not 0 < value < LARGEST:
                found = reprlib.repr(value)
                raise UsageError(f"{source}: {name} must be a {'whole ' * whole}number above 0, found {found}.")
    return KINDS[kind](**content)


def available() -> dict[str, Path]:
    """Names of the recipes of the package, and their files."""
    folder = Path(str(files("bidsfit.training").joinpath("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yml"))}


def load_recipe(name: str) -> Recipe:
    """A recipe of the package by its name, or one of the user by its path (.yml)."""
    known = available()
    path = known.get(name, Path(name))
    if path.suffix != ".yml":
        raise UnknownNameError("recipe", name, known)
    return recipe_from(read_yaml(path, "recipe"), str(path))
