"""The file of a trained estimator: whole, or refused; and nothing in it is ever executed."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from bidsfit import Acquisition, companions, models
from bidsfit.exceptions import UnusableInputError
from bidsfit.laboratory.bench import estimator_of
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Mixture, Pooled, Uniform, digest
from bidsfit.simulation.simulator import Noise, Simulation
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import (
    CURVE,
    DOMAIN,
    FACTS,
    PERFORMANCE,
    SAMPLES,
    _checksum,
    _sha256,
    acquisition_facts,
    acquisition_from,
    check_bundle,
    read_bundle,
    read_facts,
    write_bundle,
)
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Parameters, Relative
from bidsfit.training.recipe import Recipe
from bidsfit.training.task import Task, train
from bidsfit.training.trainer import Schedule

SPACE = ParameterSpace(models.get("smt2"))
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
RECIPES = {
    "network": Recipe(
        Perceptron(units=16, hidden_layers=2), Parameters(), Schedule(steps=60, batch=256, validation=1024, checks=6)
    ),
    "forest": Recipe(
        RandomForest(trees=5, samples_per_leaf=20), Relative(), Growth(validation=512), Simulation(samples=2048)
    ),
}
NETWORK, FOREST = Perceptron.member, RandomForest.member
#: What was called while a file was read.
CALLED: list[str] = []


def distribution():
    samples = np.random.default_rng(0).uniform((0.2, 0.5), (0.8, 2.5), (300, 2))
    return Mixture((Uniform(SPACE), Pooled(SPACE, samples, np.arange(300) % 2, ("sub-01", "sub-02"))))


@pytest.fixture(scope="module")
def bundles():
    return {kind: train(Task(distribution(), SHELLS, Noise(25.0), recipe)) for kind, recipe in RECIPES.items()}


@pytest.fixture(scope="module")
def files(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for kind, bundle in bundles.items():
        write_bundle(folder / f"{kind}.zip", bundle)
    return {kind: folder / f"{kind}.zip" for kind in bundles}


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def consistent(path, members, **changes):
    """A file whose checksums are all right, as whoever means harm would write it."""
    facts = json.loads(members[FACTS]) | changes
    if "Files" not in changes:
        facts["Files"] = {name: _sha256(content) for name, content in members.items() if name != FACTS}
    facts["Checksum"] = _checksum(facts)
    return zipped(path, {**members, FACTS: json.dumps(facts)})


def refused(path, message=None):
    """Every reader refuses it and names the file."""
    with pytest.raises(UnusableInputError, match=message) as caught:
        read_bundle(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", RECIPES)
class TestRoundTrip:
    def test_predictions_are_identical(self, kind, bundles, files):
        signals = np.random.default_rng(1).uniform(0.1, 1, (3000, 5))
        first, second = (
            Inverter(bundle.recipe, bundle.machine, SPACE, SHELLS)(signals)
            for bundle in (bundles[kind], read_bundle(files[kind]))
        )
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_all_that_judges_it_is_there(self, kind, bundles, files):
        bundle, found = bundles[kind], read_bundle(files[kind])
        assert {name: found.facts[name] for name in bundle.facts} == bundle.facts
        assert digest(found.distribution(SPACE.model)) == bundle.facts["DistributionDigest"] == digest(distribution())
        assert list(found.curve) == list(bundle.curve)
        for name, column in found.curve.items():
            np.testing.assert_allclose(column, bundle.curve[name], rtol=1e-6)
        assert found.performance.dump() == bundle.performance.dump()
        for name, array in found.domain.arrays.items():
            np.testing.assert_array_equal(array, bundle.domain.arrays[name])
        assert found.acquisition.weights.tolist() == SHELLS.weights.tolist()
        assert found.path == files[kind]
        assert read_facts(files[kind]) == check_bundle(files[kind]) == found.facts

    def test_without_the_machine(self, kind, files):
        found = read_bundle(files[kind], machine=False)
        assert found.machine is None
        assert found.performance.facts["Truths"] == 256

    def test_the_members_are_what_they_say(self, kind, files):
        machine = {"network": NETWORK, "forest": FOREST}[kind]
        members = members_of(files[kind])
        assert set(members) == {FACTS, machine, SAMPLES, PERFORMANCE, DOMAIN, CURVE}
        assert json.loads(members[FACTS])["Kind"] == kind


class TestDamage:
    @pytest.mark.parametrize("kind", RECIPES)
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
    def test_truncated(self, tmp_path, files, kind, share):
        content = files[kind].read_bytes()
        path = tmp_path / "cut.zip"
        path.write_bytes(content[: int(share * len(content))])
        refused(path)
        with pytest.raises(UnusableInputError, match=r"cut\.zip"):
            read_facts(path)

    @pytest.mark.parametrize("seed", range(5))
    def test_random_bytes(self, tmp_path, seed):
        path = tmp_path / "noise.zip"
        path.write_bytes(np.random.default_rng(seed).bytes(5000))
        refused(path)

    @given(data=st.data())
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_changed_byte_is_noticed_or_does_not_matter(self, tmp_path, files, data):
        content = bytearray(files["network"].read_bytes())
        # in the last 1200 bytes is the directory of the archive, where most fields matter
        place = data.draw(
            st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 1200, len(content) - 1))
        )
        content[place] ^= data.draw(st.integers(1, 255))
        path = tmp_path / "flipped.zip"
        path.write_bytes(content)
        original = read_bundle(files["network"])
        try:
            found = read_bundle(path)
        except UnusableInputError as error:
            message = str(error)
        else:
            message = str(path)
            assert found.facts == original.facts
            for name, array in found.machine.items():
                np.testing.assert_array_equal(array, original.machine[name])
        assert str(path) in message

    def test_bytes_of_a_compressed_member(self, tmp_path, files):
        """Not only a checksum, the decompression itself can fail."""
        content = files["network"].read_bytes()
        with zipfile.ZipFile(files["network"]) as archive:
            member = archive.getinfo(PERFORMANCE)
        start = member.header_offset + 30 + len(PERFORMANCE)
        path = tmp_path / "inflated.zip"
        path.write_bytes(content[:start] + b"\xff" * 50 + content[start + 50 :])
        refused(path)

    def test_a_zip_of_something_else(self, tmp_path):
        refused(zipped(tmp_path / "other.zip", {"README": "hello"}))
        refused(zipped(tmp_path / "json.zip", {FACTS: "{}"}))
        refused(zipped(tmp_path / "list.zip", {FACTS: "[1, 2]"}))
        refused(zipped(tmp_path / "text.zip", {FACTS: "not JSON"}))

    def test_missing(self, tmp_path):
        refused(tmp_path / "nowhere.zip", "does not exist")
        refused(tmp_path, "does not exist")

    @pytest.mark.parametrize("kind", RECIPES)
    def test_a_member_that_was_changed(self, tmp_path, files, kind):
        members = members_of(files[kind])
        for name in set(members) - {FACTS}:
            content = bytearray(members[name])
            content[len(content) // 2] ^= 1
            path = zipped(tmp_path / "changed.zip", {**members, name: bytes(content)})
            refused(path, f"its {name} was changed")
            read_facts(path)  # which looks at no member

    def test_facts_that_were_changed(self, tmp_path, files):
        members = members_of(files["network"])
        facts = json.loads(members[FACTS])
        facts["Noise"]["SNR"] = 100.0
        path = zipped(tmp_path / "changed.zip", {**members, FACTS: json.dumps(facts)})
        refused(path, "was changed after it was written")
        with pytest.raises(UnusableInputError, match="was changed after"):
            read_facts(path)

    def test_members_that_came_or_went(self, tmp_path, files):
        members = members_of(files["network"])
        for name in members:
            refused(zipped(tmp_path / f"without-{name}.zip", {k: v for k, v in members.items() if k != name}))
        refused(zipped(tmp_path / "more.zip", {**members, "extra.py": "print()"}), "was changed")

    def test_another_version(self, tmp_path, files):
        path = consistent(tmp_path / "new.zip", members_of(files["network"]), Version=5)
        refused(path, "its format has version 5, and this release reads 1, 2, 3, 4")

    def test_the_performance_of_version_3_is_not_read(self, tmp_path, files):
        old = read_bundle(consistent(tmp_path / "old.zip", members_of(files["network"]), Version=3))
        assert old.performance is None
        assert old.domain is not None

    @pytest.mark.parametrize(
        "changes",
        [
            {"Files": 3},
            {"Files": [NETWORK, SAMPLES, PERFORMANCE, DOMAIN, CURVE]},
            {"Files": {}},
            {"Kind": "forest"},
            {"Parameters": ["vcyl"]},
            {"Features": 7},
            {"Acquisition": {"BValues": [0, 1000], "Measurements": [1, 1], "Directions": [1, 1]}},
            {"Parameters": None},
        ],
        ids=str,
    )
    def test_facts_that_do_not_fit_what_is_there(self, tmp_path, files, changes):
        refused(consistent(tmp_path / "odd.zip", members_of(files["network"]), **changes))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (NETWORK, b"nothing"),
            (NETWORK, b"\xff" * 64),
            (SAMPLES, b""),
            (PERFORMANCE, b""),
            (PERFORMANCE, b"a,b\n1\n"),
            (DOMAIN, b"\xff" * 64),
            (CURVE, b"step\nmany\n"),
            (CURVE, b"\xff\xfe"),
        ],
    )
    def test_content_that_no_parser_expects(self, tmp_path, files, name, content):
        refused(consistent(tmp_path / "odd.zip", {**members_of(files["network"]), name: content}), "cannot be read")

    def test_writing_leaves_nothing_half_done(self, tmp_path, bundles):
        path = tmp_path / "kept.zip"
        write_bundle(path, bundles["network"])
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_bundle(path, replace(bundles["network"], facts=bundles["network"].facts | {"Value": np.nan}))
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def altered(path, name, change):
    """A consistent file whose arrays, table or facts were changed."""
    members = members_of(path)
    if name == FACTS:
        facts = json.loads(members[FACTS])
        change(facts)
        members[FACTS] = json.dumps(facts)
    elif name.endswith(".csv"):
        rows = [line.split(",") for line in members[name].decode().splitlines()]
        change(rows)
        members[name] = "\n".join(map(",".join, rows)).encode()
    else:
        arrays, content = load(members[name]), members[name]
        change(arrays)
        said = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__")
        members[name] = save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, said)
    return members


def put(key, value):
    """A change of one entry; of an array, of its first number."""

    def change(content):
        *way, last = key if isinstance(key, tuple) else (key,)
        for step in way:
            content = content[step]
        if value is MISSING:
            del content[last]
        else:
            content[last] = value

    return change


def cast(name, change):
    """A change of a whole array."""
    return lambda arrays: arrays.update({name: change(arrays[name])})


MISSING = object()
FIRST = (0, 0)


class TestContentThatCannotBe:
    """Checksums are right, and what they vouch for cannot be used: refused in one sentence, with no map."""

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            (NETWORK, put(("0.weight", FIRST), np.nan), "0.weight holds something that is not a finite number"),
            (NETWORK, put(("1.bias", 0), np.inf), "1.bias holds something that is not a finite number"),
            (NETWORK, put("0.bias", np.zeros(3, np.float32)), "are no network of 4 signals and 2 parameters"),
            (NETWORK, cast("0.bias", lambda bias: bias[:, None]), "are not matrices and vectors"),
            (NETWORK, cast("0.weight", lambda weight: weight.astype(int)), "are not matrices and vectors"),
            (NETWORK, put("1.weight", MISSING), "not the weights and biases of layers"),
            (SAMPLES, put(("1.samples", FIRST), np.nan), "or samples outside the bounds"),
            (SAMPLES, put(("1.samples", FIRST), 1e6), "or samples outside the bounds"),
            (SAMPLES, put(("1.participant", 0), 7), "participants from 0 to 1, found 0 to 7"),
            (SAMPLES, put("1.samples", np.zeros((300, 5), np.float32)), "cannot be read"),
            (SAMPLES, put("1.samples", MISSING), "incomplete"),
            (SAMPLES, put("more", np.zeros(3)), "holds other arrays"),
            (PERFORMANCE, put(("spreads", 0), np.nan), "numbers that are not finite"),
            (PERFORMANCE, put(("at_truth.coefficients", FIRST), np.inf), "numbers that are not finite"),
            (PERFORMANCE, put("bands", np.ones(3)), "arrays of other shapes"),
            (PERFORMANCE, put("at_estimate.centres", np.ones((4, 2))), "are no smooth functions"),
            (PERFORMANCE, put("tails", MISSING), "arrays of other shapes"),
            (DOMAIN, put(("limits", 0), np.nan), "numbers that are not finite"),
            (DOMAIN, put(("bands", 0), -1.0), "numbers that are not finite"),
            (DOMAIN, put("axes", np.ones((2, 9))), "arrays of other shapes"),
            (CURVE, put((0, 0), "epoch"), "has the columns epoch"),
            (FACTS, put("Kind", MISSING), "Kind: field required"),
            (FACTS, put("Kind", ["network"]), "Kind: input should be"),
            (FACTS, put("Model", "none"), "Unknown model"),
            (FACTS, put("Parameters", ["lambda", "vcyl"]), "the model 'smt2' has the parameters vcyl, lambda"),
            (FACTS, put("Noise", MISSING), "Noise: field required"),
            (FACTS, put(("Noise", "SNR"), -25), "Noise.SNR: input should be greater than 0"),
            (FACTS, put(("Noise", "SNR"), "25"), "Noise.SNR: input should be a valid number"),
            (FACTS, put(("Noise", "SNR"), np.nan), "Noise.SNR"),
            (FACTS, put(("Noise", "AtLowestBValue"), "no"), "Noise.AtLowestBValue: input should be a valid boolean"),
            (FACTS, put(("Acquisition", "BValues"), [0, -1000]), "Acquisition.BValues.1"),
            (FACTS, put(("Acquisition", "Measurements"), None), "Acquisition.Measurements"),
            (FACTS, put(("Acquisition", "Directions"), [1, 2]), "cannot be read"),
            (FACTS, put(("Distribution", "Kind"), "normal"), "Distribution: input tag 'normal'"),
            (FACTS, put(("Distribution", "Bounds", "vcyl"), [0]), "Distribution.mixture.Bounds.vcyl"),
            (FACTS, put(("Distribution", "Bounds", "vcyl"), [1, 0]), "lower <= upper"),
            (FACTS, put(("Distribution", "Parts"), []), "Distribution.mixture.Parts"),
            (FACTS, put(("Distribution", "Weights"), [1, 1]), "sum of 1"),
            (FACTS, put(("Training", "ResidualLimit"), MISSING), "Training.ResidualLimit: field required"),
            (FACTS, put(("Training", "ResidualLimit"), np.nan), "Training.ResidualLimit: input should be a finite"),
            (FACTS, put("Recipe", {"kind": "network", "units": "many"}), "Valid: a whole number, inputs"),
            (FACTS, put("Recipe", {"kind": "forest"}), "recipe is of another kind"),
            (FACTS, put("Recipe", {"base": "network"}), "leads to other recipes"),
            (FACTS, put("Recipe", {"kind": "network", "start": {"base": "network"}}), "leads to other recipes"),
            (FACTS, put("Recipe", {"kind": "network", "start": "network"}), "leads to other recipes"),
            (FACTS, put("Seed", "zero"), "Seed: input should be a valid integer"),
            (FACTS, put("Software", 3), "Software: input should be a valid dictionary"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_one_clear_sentence(self, tmp_path, files, name, change, words):
        path = consistent(tmp_path / "odd.zip", altered(files["network"], name, change))
        refused(path, re.escape(words))
        with pytest.raises(UnusableInputError) as caught:
            read_bundle(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700

    def test_what_is_changed_above_was_good(self, tmp_path, files):
        for name in (NETWORK, SAMPLES, PERFORMANCE, CURVE, FACTS):
            read_bundle(consistent(tmp_path / f"{name}.zip", altered(files["network"], name, lambda content: None)))

    def test_deep_json(self, tmp_path, files):
        deep = "[" * 100_000 + "]" * 100_000
        refused(zipped(tmp_path / "deep.zip", {**members_of(files["network"]), FACTS: deep}), "RecursionError")
        facts = (
            members_of(files["network"])[FACTS]
            .decode()
            .replace('"mixture"', '"uniform", "More": ' + deep[99_500:100_500])
        )
        refused(zipped(tmp_path / "deeper.zip", {**members_of(files["network"]), FACTS: facts}))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 1e30])
    def test_a_forest_of_numbers_that_cannot_be(self, tmp_path, bundles, value):
        forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
        forest.estimators_[1].tree_.value[:] = value
        write_bundle(tmp_path / "forest.zip", replace(bundles["forest"], machine=forest))
        refused(tmp_path / "forest.zip", "not numbers between the bounds")
        forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
        forest.estimators_[1].tree_.threshold[:] = np.nan
        write_bundle(tmp_path / "forest.zip", replace(bundles["forest"], machine=forest))
        refused(tmp_path / "forest.zip", "not numbers between the bounds")


class TestBombs:
    """What would unpack to far more than it holds is refused before it is unpacked."""

    @staticmethod
    def refused(path, message=None):
        tracemalloc.start()
        refused(path, message)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32e6

    @staticmethod
    def bomb(name, method=zipfile.ZIP_DEFLATED, size=200_000_000):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive, archive.open(name, "w") as stream:
            for _ in range(size // 1_000_000):
                stream.write(bytes(1_000_000))
        return content.getvalue()

    @pytest.mark.parametrize("name", [FACTS, NETWORK, PERFORMANCE])
    def test_of_a_member(self, tmp_path, name):
        path = tmp_path / "bomb.zip"
        path.write_bytes(self.bomb(name))
        self.refused(path, "would unpack to 200,000,000 bytes")
        with pytest.raises(UnusableInputError, match="would unpack"):
            read_facts(path)

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_of_other_compression(self, tmp_path, method):
        """Python unpacks these whole, whatever size is asked for."""
        path = tmp_path / "bomb.zip"
        path.write_bytes(self.bomb(FACTS, method).replace((200_000_000).to_bytes(4, "little"), b"\1\0\0\0"))
        self.refused(path, "compressed in a way")

    def test_that_hides_its_size(self, tmp_path):
        path = tmp_path / "bomb.zip"
        path.write_bytes(self.bomb(FACTS).replace((200_000_000).to_bytes(4, "little"), b"\1\0\0\0"))
        self.refused(path, "damaged")

    def test_inside_the_forest(self, tmp_path, files):
        members = members_of(files["forest"])
        hidden = self.bomb("schema.json").replace((200_000_000).to_bytes(4, "little"), b"\1\0\0\0")
        for content in (self.bomb("schema.json"), hidden):
            self.refused(consistent(tmp_path / "bomb.zip", {**members, FOREST: content}), "cannot be read")

    def test_of_members(self, tmp_path):
        path = tmp_path / "many.zip"
        zipped(path, {f"{i:060}": b"" for i in range(12_000)})
        self.refused(path, "more members than such a file has")

    def test_a_member_twice(self, tmp_path, files):
        members = members_of(files["network"])
        path = zipped(tmp_path / "twice.zip", members)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(FACTS, members[FACTS])
        refused(path, "twice")


class Harmful:
    """Does something where it is made from its state."""

    def __getstate__(self):
        return {"content": 1}

    def __setstate__(self, state):
        CALLED.append("state")


def harm(x):
    CALLED.append("function")
    return x


class TestNothingIsExecuted:
    @pytest.fixture(autouse=True)
    def nothing_was_called(self):
        CALLED.clear()

    def test_types_that_no_forest_has_are_refused(self, tmp_path, bundles):
        from skops import io as skops

        path = tmp_path / "harmful.zip"
        write_bundle(path, replace(bundles["forest"], machine=Harmful()))
        refused(path, "types that no forest has: .*Harmful")
        assert CALLED == []
        content = members_of(path)[FOREST]
        skops.loads(content, trusted=skops.get_untrusted_types(data=content))
        assert CALLED == ["state"]  # so that the test could have noticed

    def test_a_transformer_of_a_function_is_refused(self, tmp_path, bundles):
        from sklearn.preprocessing import FunctionTransformer

        path = tmp_path / "function.zip"
        write_bundle(path, replace(bundles["forest"], machine=FunctionTransformer(harm)))
        refused(path, "types that no forest has: .*harm")
        forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
        forest.estimators_[2].criterion = harm
        write_bundle(path, replace(bundles["forest"], machine=forest))
        refused(path, "types that no forest has: .*harm")
        assert CALLED == []

    def test_a_pickle_is_refused(self, tmp_path, files):
        class Bomb:
            def __reduce__(self):
                return exec, (f"from pathlib import Path; Path({str(tmp_path / 'exploded')!r}).touch()",)

        content = pickle.dumps(Bomb())
        path = tmp_path / "forest.zip"
        path.write_bytes(content)
        refused(path)
        for kind, name in (("forest", FOREST), ("network", NETWORK)):
            refused(consistent(path, {**members_of(files[kind]), name: content}), "cannot be read")
        assert not (tmp_path / "exploded").exists()

    def test_another_estimator_is_no_forest(self, tmp_path, bundles):
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.linear_model import LinearRegression

        path = tmp_path / "other.zip"
        x = np.random.default_rng(0).random((50, 3))
        others = (LinearRegression(), RandomForestRegressor(2).fit(x, x[:, :2]))
        for machine in others:
            write_bundle(path, replace(bundles["forest"], machine=machine))
            refused(path, "no forest of this estimator")

    def manipulated(self, bundle, change):
        """A forest with a tree whose nodes were changed."""
        forest = pickle.loads(pickle.dumps(bundle.machine))
        tree = forest.estimators_[3]
        state = tree.tree_.__getstate__()
        change(state["nodes"])
        made = type(tree.tree_)(tree.n_features_in_, np.ones(tree.n_outputs_, np.intp), tree.n_outputs_)
        made.__setstate__(state)
        tree.tree_ = made
        return replace(bundle, machine=forest)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("left_child", 10**6),
            ("right_child", 10**6),
            ("left_child", -7),
            ("right_child", -1),
            ("left_child", 0),
            ("feature", 99),
            ("feature", -5),
        ],
    )
    def test_a_tree_that_leads_nowhere_is_refused(self, tmp_path, bundles, field, value):
        path = tmp_path / "tree.zip"

        def change(nodes):
            nodes[field][0] = value

        write_bundle(path, self.manipulated(bundles["forest"], change))
        refused(path, "branches lead nowhere")

    def test_a_tree_with_another_threshold_is_a_tree(self, tmp_path, bundles):
        """What the test above changes is what is refused."""
        path = tmp_path / "tree.zip"

        def change(nodes):
            nodes["threshold"][0] += 0.3

        bundle = self.manipulated(bundles["forest"], change)
        write_bundle(path, bundle)
        x = np.random.default_rng(0).random((500, 4)).astype(np.float32)
        np.testing.assert_array_equal(read_bundle(path).machine.predict(x), bundle.machine.predict(x))
        assert np.any(bundle.machine.predict(x) != bundles["forest"].machine.predict(x))

    @pytest.mark.parametrize("number", [1, 7])
    def test_a_forest_whose_parts_disagree_is_refused(self, tmp_path, bundles, number):
        """Trees of other features, or outputs, than the forest's would read foreign memory, or fail later."""
        path = tmp_path / "parts.zip"
        forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
        for tree in forest.estimators_:
            tree.n_features_in_ = number
        write_bundle(path, replace(bundles["forest"], machine=forest))
        refused(path)
        forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
        forest.n_outputs_ = number
        write_bundle(path, replace(bundles["forest"], machine=forest))
        refused(path)

    @pytest.mark.parametrize("number", [10**9, 0, -5])
    def test_a_tree_cannot_claim_nodes_that_it_does_not_have(self, tmp_path, files, number):
        def claim(part):
            if isinstance(part, dict):
                if "node_count" in part:
                    part["node_count"]["content"] = str(number)
                return sum(claim(value) for value in part.values()) + ("node_count" in part)
            return sum(map(claim, part)) if isinstance(part, list) else 0

        members = members_of(files["forest"])
        with zipfile.ZipFile(io.BytesIO(members[FOREST])) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        schema = json.loads(parts["schema.json"])
        assert claim(schema) == 5
        zipped(tmp_path / "forest.skops", parts | {"schema.json": json.dumps(schema)})
        content = (tmp_path / "forest.skops").read_bytes()
        path = consistent(tmp_path / "claim.zip", {**members, FOREST: content})
        if number < 1:
            refused(path, "a tree that is none")
        else:  # scikit-learn counts them itself
            x = np.random.default_rng(0).random((500, 4)).astype(np.float32)
            found, original = (read_bundle(file).machine.predict(x) for file in (path, files["forest"]))
            np.testing.assert_array_equal(found, original)


def test_a_forest_without_trees_is_refused(tmp_path, bundles):
    forest = pickle.loads(pickle.dumps(bundles["forest"].machine))
    forest.estimators_ = []
    write_bundle(tmp_path / "empty.zip", replace(bundles["forest"], machine=forest))
    refused(tmp_path / "empty.zip")


def test_the_file_can_be_moved(tmp_path, files):
    shutil.copy(files["network"], tmp_path / "moved.zip")
    assert read_bundle(tmp_path / "moved.zip").facts == read_bundle(files["network"]).facts


def test_the_file_is_a_plain_zip_that_anyone_can_look_into(files):
    facts = json.loads(members_of(files["network"])[FACTS])
    assert facts["Format"] == "bidsfit trained estimator"
    assert zipfile.ZipFile(io.BytesIO(files["network"].read_bytes())).testzip() is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("network", [0.7966966741505116, 0.15165115816052732, 2.847099895527603, 0.07411495399468282]),
        ("forest", [0.9224451760772083, 0.2796206337759023, 2.136482859873825, 0.2796206337759023]),
    ],
)
def test_a_file_of_an_earlier_release_gives_its_estimates(kind, expected):
    """As they were when it was written; its recipe had no sections then."""
    path = Path(__file__).with_name("data") / f"version-1-{kind}.zip"
    assert json.loads(members_of(path)[FACTS])["Recipe"]["kind"] == kind
    estimator = estimator_of(path, models.get("adc"))
    signals = np.array([[100.0, 60, 40], [100, 90, 82], [100, 37, 12], [100, 100, 100]])
    acquisition = Acquisition([0, 500, 1000], counts=[2, 6, 6], n_directions=[1, 6, 6])
    found = estimator.estimate(signals, acquisition, 4.0)
    np.testing.assert_allclose(found.parameters["D"], expected, rtol=1e-5)  # sums of 32 bits, in any order
    section = {"network": ("schedule", "steps", 200), "forest": ("simulation", "samples", 1000)}[kind]
    assert estimator.trained.facts["Recipe"][section[0]][section[1]] == section[2]


def test_a_model_of_many_parameters(triexponential, tmp_path):
    """What is known of its errors is written, read, and stands beside every estimate."""
    space = ParameterSpace(triexponential)
    b_values = [0, 10, 20, 50, 100, 200, 400, 800, 1500, 2500]
    task = Task(Uniform(space), Acquisition(b_values, counts=[6] * 10), Noise(50.0), RECIPES["network"])
    write_bundle(tmp_path / "net.zip", train(task))
    found = read_bundle(tmp_path / "net.zip")
    rng = np.random.default_rng(0)
    truth = space.sample(50, rng)
    network = Network(triexponential, trained=found)
    signals = task.simulator.measure(truth, rng)
    estimate = network.estimate(signals, task.acquisition)
    judged = companions(network, estimate, 0.02, signals=signals, acquisition=task.acquisition)
    for name in space.names:
        assert np.isfinite(judged["bias"][name]).all()
        assert np.all(judged["expectedsd"][name] >= 0)
        assert np.all(judged["q025"][name] <= judged["q975"][name])


def test_directions_that_were_trained_are_counted_again():
    """So that a model which needs them supports the protocol of the file."""
    around, model = spread_directions(20), models.get("dti")
    protocol = Acquisition([0] + [1000] * 20, np.concatenate([np.zeros((1, 3)), around]))
    again = acquisition_from(acquisition_facts(protocol, model.variables))
    assert [shell.n_directions for shell in again.shells] == [1, 20]
    assert model.support(again)
