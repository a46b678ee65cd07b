"""Volumes that were left out, in sidecars and in words."""

import json

from bidsfit.bids.left_out import (
    FIELD,
    in_words,
    left_out,
    left_out_of,
    methods_sentence,
    numbers,
    numbers_of_others,
    without,
    without_in_sidecar,
)

ROWS = [left_out(2, 1000, "it holds only zeros"), left_out(5, 0.004, "it holds only zeros"), left_out(7, 500, "odd")]


def test_words_name_every_volume_and_say_a_reason_once():
    words = in_words(ROWS)
    assert words.startswith("3 volumes are no diffusion images")
    assert "2 (b = 1000 s/mm²), 5 (b = 0 s/mm²): it holds only zeros; 7 (b = 500 s/mm²): odd." in words
    assert in_words(ROWS[:1]).startswith("1 volume is no diffusion image of the b-value given for it, and was left out")
    assert in_words([]) == ""


def test_the_methods_text_counts_them():
    assert methods_sentence("sub-01_dwi", 9, ROWS).startswith("Of the 9 volumes of sub-01_dwi, 3 were left out")
    assert methods_sentence("sub-01_dwi", 9, ROWS[:1]).endswith(
        "because it is no diffusion image of the b-value given."
    )


def test_a_scan_that_was_stopped_early_is_told_of_in_short():
    assert "and 94 more: it holds only zeros" in in_words(
        [left_out(k, 1000, "it holds only zeros") for k in range(100)]
    )


def test_values_of_volumes_lose_theirs():
    assert numbers(ROWS) == [2, 5, 7]
    assert numbers_of_others(6, ROWS) == [0, 1, 3, 4, 6, 8]
    assert without(range(9), ROWS) == [0, 1, 3, 4, 6, 8]
    times = [0.08] * 8
    assert without_in_sidecar({"EchoTime": times, "FlipAngle": 90}, ROWS) == {"EchoTime": [0.08] * 5, "FlipAngle": 90}
    assert without_in_sidecar({"EchoTime": 0.08}, ROWS) == {"EchoTime": 0.08}
    assert without_in_sidecar({"EchoTime": times}, []) == {"EchoTime": times}


def test_a_sidecar_tells_what_an_earlier_run_left_out(tmp_path):
    path = tmp_path / "sub-01_desc-preproc_dwi.json"
    assert left_out_of(path) == []
    path.write_text(json.dumps({FIELD: ROWS}))
    assert left_out_of(path) == ROWS
    for odd in ({}, {FIELD: 3}, {FIELD: [3, {"Volume": 1}]}):
        path.write_text(json.dumps(odd))
        assert left_out_of(path) == []
