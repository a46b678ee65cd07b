"""Recipes: those of the package load, and what cannot be is refused before hours are spent on it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import yaml

from bidsfit.exceptions import BidsfitError, UnknownNameError, UsageError
from bidsfit.simulation.simulator import Simulation
from bidsfit.training.architectures import Perceptron
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.objectives import Logits, Parameters, Relative, Signals
from bidsfit.training.recipe import (
    FLAT,
    SECTIONS,
    Recipe,
    available,
    build_part,
    description,
    load_recipe,
    recipe_facts,
    recipe_from,
)
from bidsfit.training.trainer import Schedule

NAMED = {"architecture": {"name": "perceptron", "units": 8}, "objective": {"name": "logits"}}


@pytest.mark.parametrize("name", available())
def test_every_recipe_of_the_package_loads(name):
    recipe = load_recipe(name)
    assert recipe.kind == ("forest" if name.startswith("forest") else "network")
    assert 10 < len(description(available()[name])) < 400
    assert recipe_from(json.loads(json.dumps(recipe_facts(recipe))), "test") == recipe


def test_recipes_of_the_paper_and_defaults():
    paper = load_recipe("forest-gyori2022")
    assert paper.architecture == RandomForest(trees=200, depth=20, samples_per_leaf=1)
    assert load_recipe("network") == Recipe(Perceptron(), Parameters(), Schedule())
    assert load_recipe("forest") == Recipe(RandomForest(), Relative(), Growth(), Simulation(samples=393216))
    assert load_recipe("network-noise-free").architecture.hidden_layers == 8
    networks = [load_recipe(name).architecture for name in available() if name.startswith("network")]
    assert {network.units for network in networks if isinstance(network, Perceptron)} == {280}


def test_a_file_of_the_user(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("kind: network\nunits: 16\npeak_rate: 0.01\nloss: logits\n")
    assert load_recipe(str(path)) == Recipe(Perceptron(units=16), Logits(), Schedule(peak_rate=0.01))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "architecture in test: 'None'"),
        ({"kind": None}, "kind of recipe in test: 'None'"),
        ({"architecture": {"name": "perceptrons"}}, "Did you mean 'perceptron'"),
        ({"architecture": {"name": ["perceptron"]}}, "architecture in test"),
        ({"architecture": {"name": "perceptron"}}, "objective in test: 'None'"),
        (NAMED | {"objective": {"name": "logit"}}, "Did you mean 'logits'"),
        (NAMED | {"objectives": {}}, "section in test: 'objectives'. Did you mean 'objective'"),
        (NAMED | {"schedule": {"step": 3}}, "choice in test: 'step'. Did you mean 'steps'"),
        (NAMED | {"schedule": {"optimiser": "adams"}}, "Did you mean 'adam'"),
        (NAMED | {"architecture": {"name": "perceptron", "units": "input"}}, "Did you mean 'inputs'"),
        (NAMED | {"simulation": {"set_noise": ["fresh"]}}, "choice in test: set_noise"),
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


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"schedule": {"steps": 0}}, "steps must be a whole number above 0, found 0"),
        ({"schedule": {"patience": 2.5}}, "patience must be a whole number"),
        ({"schedule": 3}, "schedule must be a table of choices, found 3"),
        ({"simulation": {"snr_levels": 20}}, "snr_levels must be a list of numbers, found 20"),
        ({"objective": {"name": "signals", "bounds": [0, 5]}}, "bounds must be a table, found"),
        (
            {"objective": {"name": "signals", "bounds": {"D": [-1, 5]}}},
            "bounds: D must be a number of at least 0, found -1",
        ),
        ({"simulation": {"snr_levels": [20, -3]}}, "snr_levels must be a number above 0, found -3"),
        ({"simulation": {"snr_range": [1, 2, 3]}}, "snr_range must be a list of 2 numbers"),
        ({"simulation": {"snr_range": [20, 10]}}, "snr_range must be the lowest and the highest"),
    ],
)
def test_sections_that_cannot_be_are_refused(sections, message):
    with pytest.raises(UsageError, match=f"test: {message}"):
        recipe_from(NAMED | sections, "test")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("architecture:\n  name: perceptrons\n", 2, "'perceptron'"),
        ("architecture:\n  name: perceptron\nobjectiv: {}\n", 3, "'objective'"),
        ("architecture:\n  name: perceptron\n  unit: 3\nobjective: {name: logits}\n", 3, "'units'"),
        ("# mine\nobjective: {name: logits}\narchitecture:\n  name: perceptron\n\n  units: -3\n", 6, "units must be"),
        ("architecture: {name: perceptron}\nobjective: {name: logits}\nschedule:\n  rate: inverse\n", 3, "a decay"),
        ("architecture: {name: perceptron}\nstart:\n  architecture:\n    name: perceptrons\n", 4, "'perceptron'"),
        ("kind: network\nunit: 3\n", 2, "'units'"),
        ("kind: netwrk\n", 1, "'network'"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, text, line, message):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"mine\.yml, line {line}:.*{message}"):
        load_recipe(str(path))


@pytest.mark.parametrize("choices", [{"sure": 1}, {"sure": "yes"}, {"word": 3}])
def test_choices_of_other_types(choices):
    @dataclass(frozen=True)
    class Part:
        sure: bool = False
        word: str = "one"

    assert build_part(Part, {"sure": True, "word": "two"}, "test") == Part(True, "two")
    with pytest.raises(UsageError, match=rf"test: {next(iter(choices))} must be (true or false|a word), found"):
        build_part(Part, choices, "test")


def test_a_forest_without_samples_is_refused_where_it_is_read():
    with pytest.raises(UsageError, match="test: A forest averages what it is taught"):
        recipe_from({"architecture": {"name": "forest"}, "objective": {"name": "relative"}}, "test")


def test_the_four_parts_of_a_recipe():
    sections = {
        "simulation": {"snr_range": [5, 80.0], "realisations": 2, "samples": 1000, "set_noise": "fixed"},
        "schedule": {"optimiser": "sgd", "steps": 20, "patience": 3},
    }
    recipe = recipe_from(NAMED | sections, "test")
    assert recipe == Recipe(
        Perceptron(units=8),
        Logits(),
        Schedule(optimiser="sgd", steps=20, patience=3),
        Simulation(snr_range=(5, 80.0), realisations=2, samples=1000, set_noise="fixed"),
    )
    facts = recipe_facts(recipe)
    assert facts["architecture"] == {"name": "perceptron", "units": 8, "hidden_layers": 2}
    assert facts["objective"] == {"name": "logits"}
    assert recipe_from(json.loads(json.dumps(facts)), "test") == recipe


def test_the_recipe_of_the_documentation_holds_every_choice():
    page = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sections = yaml.safe_load(block)
    together = {
        "snr_spacing",
        "rate",
        "decay",
        "members",
        "labels",
        "label_share",
        "scope",
        "label_bounds",
        "amplitude",
        "balance",
        "allowance",
    }  # choices that need others
    for section, part in zip(SECTIONS, (Simulation, Perceptron, Parameters, Schedule), strict=True):
        choices = sections[section]
        choices.pop("name", None)
        of_others = {"snr", "snr_levels", "signals", "filter"}  # instead of a range, or of simulation
        assert set(choices) | of_others == {choice.name for choice in fields(part)} | of_others
        for name in set(choices) - together:  # which need others
            build_part(part, {name: choices[name]}, "docs")


@pytest.mark.parametrize("kind", FLAT)
def test_every_choice_of_a_recipe_without_sections_has_a_place(kind):
    _, places = FLAT[kind]
    for choice, (section, name) in places.items():
        value = "logits" if choice == "loss" else 7
        assert recipe_facts(recipe_from({"kind": kind, choice: value}, "test"))[section][name] == value


FIXED = {"samples": 10, "set_noise": "fixed", "labels": "mle-rician"}


@pytest.mark.parametrize(
    ("objective", "simulation", "message"),
    [
        ({"name": "parameters", "form": "wvce"}, {}, "'wvce' compares noise realisations .* at least 2, found 1"),
        ({"name": "parameters", "form": "wbce"}, {"realisations": 1}, "needs at least 2"),
        ({"name": "parameters", "error": "absolute"}, FIXED | {"label_share": 0.5}, "hybrid for squared errors"),
        ({"name": "parameters", "error": "stated"}, FIXED | {"label_share": 0.5}, "hybrid for squared errors"),
        ({"name": "logits"}, FIXED | {"label_share": 0.5}, "'logits' has others"),
        ({"name": "directions"}, FIXED | {"label_share": 0.5}, "'directions' has others"),
        ({"name": "signals"}, FIXED, "'signals' does not look at labels"),
    ],
)
def test_an_objective_and_a_simulation_that_do_not_go_together(objective, simulation, message):
    with pytest.raises(UsageError, match=f"test: .*{message}"):
        recipe_from(NAMED | {"objective": objective, "simulation": simulation}, "test")


def test_bounds_of_labels_are_a_table():
    sections = NAMED | {
        "simulation": {"samples": 10, "set_noise": "fixed", "labels": "mle-rician", "label_bounds": {"D": [0.01, 4]}}
    }
    recipe = recipe_from(sections, "test")
    assert recipe.simulation.label_bounds == {"D": (0.01, 4)}
    assert recipe_from(json.loads(json.dumps(recipe_facts(recipe))), "test") == recipe
    for given, message in ((3, "label_bounds must be a table"), ({"D": [1]}, "label_bounds: D must be a list of 2")):
        with pytest.raises(UsageError, match=message):
            recipe_from(NAMED | {"simulation": sections["simulation"] | {"label_bounds": given}}, "test")


def test_a_tree_may_be_of_any_depth():
    assert recipe_from({"kind": "forest", "depth": None}, "test").architecture.depth is None
    assert recipe_from({"kind": "forest", "depth": 3}, "test").architecture.depth == 3


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


def test_a_recipe_starts_from_another(tmp_path):
    """By name, by file or by content; the whole of it becomes part of what determines the estimator."""
    path = tmp_path / "mine.yml"
    before = NAMED | {"schedule": {"steps": 7}}
    path.write_text(yaml.safe_dump(before))
    first, second = (recipe_from(NAMED | {"start": given}, "test") for given in (str(path), before))
    assert first == second
    assert first.start.schedule.steps == 7
    assert recipe_from(json.loads(json.dumps(recipe_facts(first))), "test") == first
    for given, message in (
        (before | {"start": before}, "without a start of its own"),
        (3, "start must be the name, file or content of a recipe, found 3"),
        (before | {"architecture": {"name": "perceptron", "units": 9}}, "of the same architecture"),
    ):
        with pytest.raises(UsageError, match=message):
            recipe_from(NAMED | {"start": given}, "test")


def test_a_recipe_builds_on_another(tmp_path):
    """What it does not choose is its base's, the start included; `null` takes a choice back."""
    path = tmp_path / "mine.yml"
    path.write_text(
        "base: hybrid\nsimulation:\n  label_share: 0.2\n  s0_range: null\nschedule: {steps: 7}\nstart: null\n"
    )
    found, base = load_recipe(str(path)), load_recipe("hybrid")
    assert base.start == load_recipe("supervised-gt")
    assert found == replace(
        base,
        simulation=replace(base.simulation, label_share=0.2, s0_range=None),
        schedule=replace(base.schedule, steps=7),
        start=None,
    )
    assert recipe_from({"base": "hybrid"}, "test") == base
    assert recipe_from({"base": "supervised-gt", "objective": {"name": "signals"}}, "test").objective == Signals()
    assert recipe_from({"base": NAMED, "schedule": {"steps": 7}}, "test") == recipe_from(
        NAMED | {"schedule": {"steps": 7}}, "test"
    )


@pytest.mark.parametrize("key", ["base", "start"])
def test_a_recipe_that_leads_back_to_itself_is_refused(tmp_path, key):
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text(yaml.safe_dump(NAMED | {key: str(second)}))
    second.write_text(yaml.safe_dump({"base": str(first)}))
    with pytest.raises(UsageError, match=r"second\.yml: the recipe .*first.yml is made of itself"):
        load_recipe(str(first))


def test_a_mistake_in_a_base_is_named_with_its_own_file(tmp_path):
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text(f"base: {second}\nschedule:\n  step: 3\n")
    second.write_text("architecture: {name: perceptron}\nobjective: {name: logit}\n")
    with pytest.raises(UsageError, match=r"second\.yml, line 2: 'logit'"):
        load_recipe(str(first))
    second.write_text("architecture: {name: perceptron}\nobjective: {name: logits}\n")
    with pytest.raises(UsageError, match=r"first\.yml, line 3: 'step'"):
        load_recipe(str(first))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"rate": "inverse"}, "a decay need each other"),
        ({"decay": 0.1}, "a decay need each other"),
        ({"members": 3, "restarts": 3}, "not both"),
        ({"steps": 10, "checkpoints": [20]}, "steps up to 10, found 20"),
    ],
)
def test_schedules_that_cannot_be(choices, message):
    with pytest.raises(UsageError, match=message):
        recipe_from(NAMED | {"schedule": choices}, "test")


def test_missing_recipes(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'network'"):
        load_recipe("networ")
    with pytest.raises(BidsfitError, match=r"nowhere\.yml does not exist"):
        load_recipe(str(tmp_path / "nowhere.yml"))
