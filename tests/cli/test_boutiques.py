"""The Boutiques descriptor: valid, up to date, and what it builds is what the parser takes."""

import json
from pathlib import Path

import pytest

from bidsfit.cli.boutiques import descriptor
from bidsfit.cli.parser import build_parser

FILE = Path(__file__).parents[2] / "docs" / "boutiques.json"


@pytest.fixture
def bosh():
    """``bosh(words...)``: what Boutiques returns."""
    boutiques = pytest.importorskip("boutiques", reason="Boutiques is not installed (pip install boutiques)")
    return lambda *words: boutiques.bosh([str(word) for word in words])


def sample(argument, folder):
    """A value that an input takes."""
    if argument["type"] == "Flag":
        return True
    if argument["type"] == "Number":
        return 3
    if argument["type"] == "File":
        path = folder / argument["id"]
        path.touch()
        value = str(path)
    else:
        value = str(argument.get("value-choices", ["word"])[-1])
    return [value, value] if argument.get("list") else value


def test_the_file_is_that_of_the_parser():
    """`python docs/_ext/generate.py` writes it."""
    assert json.loads(FILE.read_text()) == descriptor()


def test_it_is_valid(bosh):
    bosh("validate", FILE)  # raises where it is not


def test_the_parser_takes_what_it_builds(bosh, tmp_path):
    """Every option at once, each with its value."""
    values = {one["id"]: sample(one, tmp_path) for one in descriptor()["inputs"]}
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(values))
    line = bosh("exec", "simulate", FILE, "-i", invocation).shell_command
    parsed = vars(build_parser().parse_args(line.split()[1:]))
    assert parsed == values | {"verbosity": 1}
