"""Reading b-values, directions and echo times as they come."""

import os

import numpy as np
import pytest

from bidsfit.bids.acquisitions import read_acquisition, read_numbers, read_table
from bidsfit.exceptions import UnusableInputError


@pytest.mark.parametrize(
    "text",
    [
        *("0 500 1000", "0 500 1000\n", "0\t500  1000 \n\n", "0\n500\n1000\n"),
        *("0,500,1000", "0, 500, 1000", "0 5e2 1e3", "\ufeff0 500 1000"),
    ],
)
def test_ways_to_write_b_values(tmp_path, text):
    (tmp_path / "a.bval").write_text(text)
    assert read_acquisition(tmp_path / "a.bval", None).b_values.tolist() == [0, 500, 1000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 500 b1000", "not a number"),
        ("", "empty"),
        ("0 500\n1000", "differ in length"),
        ("0 -500", "negative"),
        ("0 nan", "not finite"),
        ("0 inf", "not finite"),
        ("0 500 1e308", r"above 1e\+06 s/mm²: 1e\+308 \(volumes 2, counted from 0\)"),
        ("0 500\n1000 1500", "holds 2 lines of 2 numbers"),
        ("0,5 1000,0", r"decimal comma \(0,5\); expected a point \(0.5\)"),
        ("0,5\n1000,0\n", "holds 2 lines of 2 numbers.*not commas"),
    ],
)
def test_b_values_that_cannot_be(tmp_path, text, message):
    (tmp_path / "a.bval").write_text(text)
    with pytest.raises(UnusableInputError, match=rf"{tmp_path / 'a.bval'}.*{message}"):
        read_acquisition(tmp_path / "a.bval", None)


def test_binary_rubbish_is_no_list_of_numbers(tmp_path):
    (tmp_path / "a.bval").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UnusableInputError, match="not text in UTF-8"):
        read_numbers(tmp_path / "a.bval")


def test_directions_in_rows_or_columns(tmp_path):
    (tmp_path / "a.bval").write_text("0 500 500 1000")
    directions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    for layout in (directions, directions.T):
        np.savetxt(tmp_path / "a.bvec", layout)
        np.testing.assert_array_equal(read_acquisition(tmp_path / "a.bval", tmp_path / "a.bvec").directions, directions)


@pytest.mark.parametrize("suffix", [".bval", ".bvec"])
def test_what_is_no_file_with_numbers(tmp_path, suffix):
    """Neither waited for, nor taken for numbers."""
    (tmp_path / "a.bval").write_text("0 500")
    (tmp_path / "a.bvec").write_text("0 1\n0 0\n0 0")
    path = tmp_path / f"a{suffix}"

    def read():
        return read_acquisition(tmp_path / "a.bval", tmp_path / "a.bvec")

    path.write_text("/annex/objects/MD5E-s4--0123456789abcdef\n")
    with pytest.raises(UnusableInputError, match=rf"{path} only points.*datalad get"):
        read()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnusableInputError, match=rf"{path} is not an ordinary file"):
        read()
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(UnusableInputError, match=rf"{path} is a link.*datalad get"):
        read()


@pytest.mark.parametrize("number", ["inf", "-inf", "1e308", "1e400"])
def test_directions_beyond_reason(tmp_path, number):
    (tmp_path / "a.bval").write_text("0 500 1000")
    (tmp_path / "a.bvec").write_text(f"0 1 0\n0 {number} 1\n0 0 0")
    with pytest.raises(UnusableInputError, match=rf"{tmp_path / 'a.bvec'}.*volumes 1, counted from 0"):
        read_acquisition(tmp_path / "a.bval", tmp_path / "a.bvec")


def test_nan_directions_at_b0_are_zero(tmp_path):
    """Some converters write them so."""
    (tmp_path / "a.bval").write_text("0 500 500 500")
    (tmp_path / "a.bvec").write_text("nan 1 0 0\nnan 0 1 0\nnan 0 0 1\n")
    acquisition = read_acquisition(tmp_path / "a.bval", tmp_path / "a.bvec")
    assert acquisition.directions[0].tolist() == [0, 0, 0]
    assert acquisition.shells[1].n_directions == 3


@pytest.mark.parametrize("text", ["1 0\n0 1\n", "1 0 0\n0 1 0\n", "1 0 0 1\n0 1 0 1\n0 0 1 1\n"])
def test_directions_that_do_not_fit(tmp_path, text):
    (tmp_path / "a.bval").write_text("0 500 1000")
    (tmp_path / "a.bvec").write_text(text)
    with pytest.raises(UnusableInputError, match=rf"{tmp_path / 'a.bvec'} holds . x . numbers"):
        read_acquisition(tmp_path / "a.bval", tmp_path / "a.bvec")


@pytest.mark.parametrize(
    ("echo_time", "expected"),
    [
        *((0.085, [85, 85]), ([0.06, 0.09], [60, 90]), ([0.06], None), ("85 ms", None), (None, None)),
        *((["a", "b"], None), (True, None), (1e306, None)),
    ],
)
def test_echo_time(tmp_path, echo_time, expected):
    """Seconds in metadata; what makes no sense is left out."""
    (tmp_path / "a.bval").write_text("0 500")
    found = read_acquisition(tmp_path / "a.bval", None, {"EchoTime": echo_time}).columns.get("TE")
    assert (found if found is None else found.tolist()) == expected


def test_fields_of_the_sidecar_fill_columns(tmp_path):
    """One number for all volumes, or one a volume; what makes no sense is left out."""
    (tmp_path / "a.bval").write_text("0 500 500")
    metadata = {"DiffusionTime": [0.02, 0.03, 0.04], "FlipAngle": 90, "InversionTime": [1, 2], "RepetitionTime": 3}
    found = read_acquisition(tmp_path / "a.bval", None, metadata)
    assert list(found.columns) == ["b", "flip_angle", "diffusion_time"]
    assert found.variable("diffusion_time").tolist() == [20, 30, 40]
    assert found.variable("flip_angle").tolist() == [90, 90, 90]


class TestTables:
    def read(self, tmp_path, text):
        (tmp_path / "protocol.tsv").write_text(text)
        return read_table(tmp_path / "protocol.tsv")

    def test_columns_are_variables(self, tmp_path):
        found = self.read(
            tmp_path, "b\tTE\tgx\tgy\tgz\taverages\tmine\n0\t60\t0\t0\t0\t4\t0.5\n700\t60\t0\t1\t0\t1\t-2\n"
        )
        assert found.b_values.tolist() == [0, 700]
        assert found.variable("TE").tolist() == [60, 60]
        assert found.variable("direction").tolist() == [[0, 0, 0], [0, 1, 0]]
        assert found.weights.tolist() == [4, 1]
        assert found.variable("mine").tolist() == [0.5, -2]

    def test_b_values_may_be_missing(self, tmp_path):
        found = self.read(tmp_path, "TI\n30\n900\n")
        assert found.b_values.tolist() == [0, 0]
        assert list(found.columns) == ["TI"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("TI\n30\nlong\n", "could not convert string to float: 'long'"),
            ("TI\n-5\n", "Inversion times must be finite, not negative"),
            ("b\tgx\tgy\n0\t1\t0\n", "Directions must have shape"),
            ("", "needs at least one column"),
        ],
    )
    def test_what_is_none_is_refused_by_name(self, tmp_path, text, words):
        with pytest.raises(UnusableInputError, match=rf"protocol\.tsv describes no acquisition: .*{words}"):
            self.read(tmp_path, text)
