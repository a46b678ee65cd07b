"""Configurations for BABS and nipoppy: up to date, and what they give the parser takes."""

import json
from pathlib import Path

import yaml

from bidsfit.cli.parser import build_parser
from bidsfit.cli.platforms import babs_container, nipoppy_pipeline

DOCS = Path(__file__).parents[2] / "docs"


def test_the_files_are_those_of_the_code():
    """`python docs/_ext/generate.py` writes them."""
    assert (DOCS / "babs.yaml").read_text() == babs_container()
    for name, content in nipoppy_pipeline().items():
        assert json.loads((DOCS / "nipoppy" / name).read_text()) == content


def test_the_parser_takes_the_words_of_babs():
    words = ["in", "out", "participant"]
    for option, value in yaml.safe_load(babs_container())["bids_app_args"].items():
        words += [value, "sub-01"] if option.startswith("$") else [option, *([value] if value else [])]
    found = build_parser().parse_args(words)
    assert (found.participant_label, found.work_dir, found.nprocs) == (["sub-01"], "$BABS_TMPDIR", 1)


def test_the_parser_takes_the_invocation_of_nipoppy():
    invocation = nipoppy_pipeline()["invocation.json"]
    found = vars(build_parser().parse_args(["in", "out", "participant"]))
    assert invocation.keys() <= found.keys()
    known = {one["id"]: one for one in nipoppy_pipeline()["descriptor.json"]["inputs"]}
    assert all(isinstance(value, list) == known[name].get("list", False) for name, value in invocation.items())
