"""Files of choices: small tables, or one sentence that names the file."""

import pytest

from bidsfit.choices import LONGEST, read_toml, read_yaml
from bidsfit.exceptions import BidsfitError

#: Nine levels of nine: 3 GB when it is written out.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_table(tmp_path):
    (tmp_path / "a.yml").write_text("kind: network\nunits: [1, {deep: [2]}]\n")
    assert read_yaml(tmp_path / "a.yml", "recipe") == {"kind": "network", "units": [1, {"deep": [2]}]}
    (tmp_path / "a.toml").write_text('[bidsfit]\nmodel = ["adc"]\n')
    assert read_toml(tmp_path / "a.toml", "configuration") == {"bidsfit": {"model": ["adc"]}}


@pytest.mark.parametrize("read", [read_yaml, read_toml])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("folder", "is not an ordinary file"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"# " + b"x" * LONGEST, "expected at most"),
        (b"a = [", "cannot be read as|must hold a table"),
        (b"a: [", "cannot be read as"),
        (b"[" * 5000, "nests|cannot be read as"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nests|must hold a table"),
    ],
    ids=range(8),
)
def test_one_sentence(tmp_path, read, content, words):
    path = tmp_path / "mine"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BidsfitError, match=words) as caught:
        read(path, "recipe")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, r"has an alias \(\*a\)"),
        ("kind: network\nunits: " + "[" * 30 + "]" * 30, "nests more than 20"),
        ("".join(" " * i + "a:\n" for i in range(300)), "nests more than 20"),
        ("a: 2024-99-99", "cannot be read as YAML"),
        ("? [1, 2]\n: 3", "cannot be read as YAML"),
        ("a: !!python/object:os.system 3", "cannot be read as YAML"),
        ("a: " + "9" * 5000, "cannot be read as YAML"),
        ("- 1", "must hold a table"),
        ("", "must hold a table"),
    ],
)
def test_yaml_that_is_no_table(tmp_path, text, words):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(BidsfitError, match=words) as caught:
        read_yaml(path, "recipe")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
