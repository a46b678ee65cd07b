"""The order of sessions, and which of them came before and after a treatment."""

import pytest

from bidsfit.cohort.sessions import named_sessions, order_sessions, read_sessions
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError


def rows(**columns):
    """Rows of a table of sessions: ``rows(**{"1": {...}})``."""
    return {label: {"session_id": f"ses-{label}", **row} for label, row in columns.items()}


def times(**texts):
    return rows(**{label: {"acq_time": text} for label, text in texts.items()})


def test_time_orders_sessions_whatever_they_are_called():
    table = times(
        b="2020-01-02T09:00:00", a="2020-01-02T17:30:00.5", c="1877-06-01"
    )  # the last one as BIDS shifts dates
    found = order_sessions(["a", "b", "c"], table)
    assert (found.labels, found.by, found.remark) == (("c", "b", "a"), "acq_time", "")


def test_without_times_numbers_in_labels_count_as_numbers():
    found = order_sessions(["10", "9", "2b", "2a"], {})
    assert (found.labels, found.by) == (("2a", "2b", "9", "10"), "label")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (times(**{"1": "2020-01-02", "2": "2020-01-02"}), "the same acq_time"),
        (times(**{"1": "2020-01-02", "2": "n/a"}), "not given for all sessions"),
        (times(**{"1": "2020-01-02T09:00:00", "2": "2020-01-01T09:00:00Z"}), "in one form"),
    ],
)
def test_times_that_order_nothing_are_not_used_and_said(table, words):
    found = order_sessions(["2", "1"], table)
    assert (found.labels, found.by) == (("1", "2"), "label")
    assert words in found.remark


def test_conditions_come_before_time_and_a_contradiction_is_said():
    table = rows(
        **{
            "1": {"condition": "Pre-treatment", "acq_time": "2020-03-01"},
            "2": {"condition": "post", "acq_time": "2020-01-01"},
            "3": {"condition": "pre", "acq_time": "2020-02-01"},
        }
    )
    found = order_sessions(["1", "2", "3"], table)
    assert (found.labels, found.by, found.treated) == (("3", "1", "2"), "condition", True)
    assert found.of_condition("pre") == ("3", "1")
    assert "the condition was believed" in found.remark


def test_labels_may_be_conditions_and_another_column_may_tell_them():
    assert order_sessions(["post", "pre"], {}).labels == ("pre", "post")
    assert order_sessions(["post2", "pre1"], {}).treated
    table = rows(a={"visit": "baseline"}, b={"visit": "follow-up"})
    assert order_sessions(["b", "a"], table, "visit").treated
    assert not order_sessions(["b", "a"], table).treated
    assert not order_sessions(["1", "2"], rows(**{"1": {"condition": "pre"}, "2": {"condition": "n/a"}})).treated


def test_the_table_is_read_without_prefixes(tmp_path):
    assert read_sessions(tmp_path, "01") == {}
    path = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    path.parent.mkdir()
    path.write_text("\ufeffsession_id\tacq_time\nses-1\t2020-01-01\n2\tn/a\n")
    assert list(read_sessions(tmp_path, "01")) == ["1", "2"]
    path.write_text("session\n1\n")
    with pytest.raises(UnusableInputError, match="must have a column session_id; found session"):
        read_sessions(tmp_path, "01")


def test_a_session_has_one_row(tmp_path):
    path = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    path.parent.mkdir()
    path.write_text("session_id\tcondition\nses-1\tpre\n1\tpost\n")
    with pytest.raises(UnusableInputError, match="two rows of ses-1 that differ"):
        read_sessions(tmp_path, "01")


def test_sessions_may_be_named():
    known = {"1", "2", ""}
    assert named_sessions([], known) is None
    assert named_sessions(["post=ses-2", "pre=1"], known) == ("1", "2")


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["pre=1"], UsageError, "takes pre=LABEL post=LABEL"),
        (["pre=1", "after=2"], UsageError, "for example pre=ses-1 post=ses-2"),
        (["pre=1", "post="], UsageError, "takes pre=LABEL"),
        (["pre=1", "post=ses-1"], UsageError, "ses-1 twice"),
        (["pre=1", "post=3"], UnknownNameError, "Unknown session"),
    ],
)
def test_names_that_do_not_tell_two_sessions_are_refused(words, kind, message):
    with pytest.raises(kind, match=message):
        named_sessions(words, {"1", "2"})
