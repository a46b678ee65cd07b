"""Recipes: those of the package load, and what cannot be is refused before hours are spent on it."""

from __future__ import annotations

import json

import pytest

from bidsfit.exceptions import BidsfitError, UnknownNameError, UsageError
from bidsfit.training.recipe import ForestRecipe, NetworkRecipe, available, load_recipe, recipe_facts, recipe_from


@pytest.mark.parametrize("name", available())
def test_every_recipe_of_the_package_loads(name):
    recipe = load_recipe(name)
    assert recipe.kind == name.split("-")[0]
    assert recipe_from(json.loads(json.dumps(recipe_facts(recipe))), "test") == recipe


def test_recipes_of_the_paper_and_defaults():
    paper = load_recipe("forest-gyori2022")
    assert (paper.trees, paper.depth, paper.samples_per_leaf) == (200, 20, 1)
    assert load_recipe("network") == NetworkRecipe()
    assert load_recipe("forest") == ForestRecipe()
    assert load_recipe("network-noise-free").hidden_layers == 8
    assert {load_recipe(name).units for name in available() if name.startswith("network")} == {280}


def test_a_file_of_the_user(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("kind: network\nunits: 16\npeak_rate: 0.01\nloss: logits\n")
    assert load_recipe(str(path)) == NetworkRecipe(units=16, peak_rate=0.01, loss="logits")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "kind of recipe in test: 'None'"),
        ({"kind": "netwrk"}, "Did you mean 'network'"),
        ({"kind": ["network"]}, "kind of recipe in test"),
        ({"kind": "network", "unit": 3}, "choice in test: 'unit'. Did you mean 'units'"),
        ({"kind": "network", 3: 3}, "choice in test: '3'"),
        ({"kind": "forest", "units": 3}, "Unknown choice in test: 'units'"),
        ({"kind": "network", "loss": "logit"}, "Did you mean 'logits'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(facts, message):
    with pytest.raises(UnknownNameError, match=message):
        recipe_from(facts, "test")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("network", "steps", 0),
        ("network", "steps", -5),
        ("network", "steps", "many"),
        ("network", "steps", None),
        ("network", "steps", True),
        ("network", "steps", 100.5),
        ("network", "peak_rate", float("nan")),
        ("network", "peak_rate", float("inf")),
        ("network", "units", [280]),
        ("forest", "depth", 0),
        ("forest", "trees", None),
        ("forest", "trees", 1e400),
        ("forest", "trees", 10**300),
    ],
)
def test_values_that_cannot_be_are_refused(kind, name, value):
    with pytest.raises(UsageError, match=f"test: {name} must be a"):
        recipe_from({"kind": kind, name: value}, "test")


def test_a_tree_may_be_of_any_depth():
    assert recipe_from({"kind": "forest", "depth": None}, "test").depth is None
    assert recipe_from({"kind": "forest", "depth": 3}, "test").depth == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "must hold a table"),
        (b"{", "cannot be read as YAML"),
        (b"\xff\xfe\x00", "is not text"),
        (b"kind: &k [network]\nunits: *k\n", "has an alias"),
        (b"kind: network\nunits: [" + b"1, " * 10_000 + b"]", "units must be a whole number above 0, found .1, 1"),
        (b"kind: " + b"n" * 10_000, "Unknown kind of recipe"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.yml"
    path.write_bytes(content)
    with pytest.raises(BidsfitError, match=message) as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 500


def test_missing_recipes(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'network'"):
        load_recipe("networ")
    with pytest.raises(BidsfitError, match=r"nowhere\.yml does not exist"):
        load_recipe(str(tmp_path / "nowhere.yml"))
