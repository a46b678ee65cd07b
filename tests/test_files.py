"""Files are written whole or not at all."""

import json
import os
import subprocess
import sys
from socket import gethostname

import pytest

from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_tsv, remove_abandoned, whole_file, write_json


def test_the_name_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "map.nii.gz"
    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.name.endswith(".map.nii.gz")  # writers look at the extension
    assert path.read_text() == "half"


def test_a_file_with_the_same_content_is_left_alone(tmp_path):
    path = tmp_path / "map.json"
    path.write_text("same")
    before = path.stat().st_ino
    for text, kept in (("same", True), ("other", False)):
        with whole_file(path) as temporary:
            temporary.write_text(text)
        assert (path.stat().st_ino == before) is kept
        assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["map.json"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "map.json"
    path.write_text("old")

    def fail_half_way():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert [p.name for p in tmp_path.iterdir()] == ["map.json"]
    assert path.read_text() == "old"


def test_json_keeps_letters_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"Units": "µm²/ms"})
    assert "µm²/ms" in (tmp_path / "a.json").read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()
    assert json.loads((tmp_path / "a.json").read_text()) == {"Units": "µm²/ms"}


def test_leftovers_of_dead_processes_go(tmp_path):
    """Those of living processes, and of other machines, stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "dwi").mkdir()
    left = tmp_path / "dwi" / f".{gethostname()}.{dead.pid}.map.nii.gz"
    living = tmp_path / "dwi" / f".{gethostname()}.{os.getpid()}.map.nii.gz"
    elsewhere = tmp_path / "dwi" / f".another-host.{dead.pid}.map.nii.gz"
    other = tmp_path / "map.nii.gz"
    for path in (left, living, elsewhere, other):
        path.touch()
    remove_abandoned(tmp_path, "**/")
    assert not left.exists()
    assert all(path.exists() for path in (living, elsewhere, other))


@pytest.mark.parametrize("text", ["\ufeffid\tgroup\nsub-01\ta b\n", "id\tgroup\r\nsub-01\ta b\t\r\n"])
def test_rows_of_a_table(tmp_path, text):
    (tmp_path / "a.tsv").write_bytes(text.encode())
    assert read_tsv(tmp_path / "a.tsv") == [{"id": "sub-01", "group": "a b"}]


def test_a_cell_that_a_row_lacks_is_empty(tmp_path):
    (tmp_path / "a.tsv").write_text("id\tgroup\nsub-01\n")
    assert read_tsv(tmp_path / "a.tsv") == [{"id": "sub-01", "group": ""}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id\nsub-01\tcontrol\n", "more cells than there are columns"),
        (b"id\tgroup\nsub-01\t\xe4\n", "not text in UTF-8"),
        (b"id\tgroup\n" + b"x" * 200_000, "cannot be read as a table"),
        (b"/annex/objects/MD5E-s3--0.tsv\n", "datalad get"),
        (None, "not an ordinary file"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "a.tsv"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UnusableInputError, match=f"{path}.*{said}"):
        read_tsv(path)
