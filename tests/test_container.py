"""The recipe of the container image: what it holds is what its label says."""

import re
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "Dockerfile"


@pytest.mark.parametrize(("target", "licences"), [(None, "Apache-2.0"), ("distortion", "Apache-2.0 AND GPL-3.0-only")])
def test_the_label_names_the_licence_of_what_is_inside(target, licences):
    """PyHySCO is under the GPL: an image that holds it says so, and the default one does not hold it."""
    text = re.sub(r"^#.*\n|\\\n", "", RECIPE.read_text(), flags=re.MULTILINE)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL)
    found = {name: (base, body) for base, name, body in stages}
    base, content = found[target or ""]
    while base in found:
        base, body = found[base]
        content = body + content
    inside = found["build"][1] + content
    assert re.findall(r'image\.licenses="(.*?)"', content)[-1] == licences
    assert ("[distortion]" in inside) == (target is not None)
