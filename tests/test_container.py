"""The recipe of the container image: what it holds is what its label and its lock say."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
RECIPE = (PROJECT / "Dockerfile").read_text()
LOCK = (PROJECT / "requirements.lock").read_text()


def pinned(text):
    """Versions by name, without what follows a + in them."""
    rows = re.findall(r"^([\w.-]+)==([^\s+]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in rows}


@pytest.mark.parametrize(("target", "licences"), [(None, "Apache-2.0"), ("distortion", "Apache-2.0 AND GPL-3.0-only")])
def test_the_label_names_the_licence_of_what_is_inside(target, licences):
    """PyHySCO is under the GPL: an image that holds it says so, and the default one does not hold it."""
    text = re.sub(r"^#.*\n|\\\n", "", RECIPE, flags=re.MULTILINE)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL)
    found = {name: (base, body) for base, name, body in stages}
    base, content = found[target or ""]
    while base in found:
        base, body = found[base]
        content = body + content
    inside = found["dependencies"][1] + content
    assert re.findall(r'image\.licenses="(.*?)"', content)[-1] == licences
    assert ("--require-hashes -r /opt/bidsfit/requirements.lock" in inside) == (target is not None)


def test_the_default_image_gets_all_of_the_lock_but_pyhysco():
    script = re.search(r"^RUN (sed '.*?') /opt/bidsfit/requirements.lock", RECIPE, re.MULTILINE)[1]
    left = subprocess.run(script, shell=True, input=LOCK, capture_output=True, text=True, check=True).stdout
    entry = re.search(r"^pyhysco==.*?[^\\]\n", LOCK, re.MULTILINE | re.DOTALL)[0]
    assert entry.count("--hash=") >= 1
    assert left == LOCK.replace(entry, "")


def test_the_lock_holds_what_is_required_in_the_versions_that_were_tested():
    """Where this fails: ``make lock``."""
    locked, tested = pinned(LOCK), pinned((PROJECT / "constraints.txt").read_text())
    del locked["setuptools"]  # which `pip freeze` does not list
    assert locked.items() <= tested.items()
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    names = re.findall(r"^[\w.-]+", setup["options"]["install_requires"], re.MULTILINE)
    assert {name.lower() for name in names} <= locked.keys()
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:])
