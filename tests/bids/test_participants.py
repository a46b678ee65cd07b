"""Who is healthy, by participants.tsv."""

import pytest

from bidsfit.bids.participants import healthy_participants
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError

TABLE = "participant_id\tgroup\tsex\nsub-02\tcontrol\tF\nsub-01\tcontrol\tM\nsub-03\tpatient\tF\n"


def table(folder, text=TABLE):
    (folder / "participants.tsv").write_text(text)
    return folder


def test_controls_or_who_is_called_healthy(tmp_path):
    assert healthy_participants(table(tmp_path), None) == (["01", "02"], "group=control")
    assert healthy_participants(table(tmp_path, TABLE.replace("control", "healthy")), None)[1] == "group=healthy"


def test_the_user_may_choose(tmp_path):
    assert healthy_participants(table(tmp_path), "sex=F") == (["02", "03"], "sex=F")


@pytest.mark.parametrize(
    ("choice", "kind", "words"),
    [
        ("group=well", UsageError, "has group=well. Its column 'group' holds: control, patient"),
        ("groups=control", UnknownNameError, "Did you mean 'group'"),
        ("group", UsageError, "COLUMN=VALUE, for example group=control; found 'group'"),
    ],
)
def test_a_choice_that_finds_nobody_is_refused(tmp_path, choice, kind, words):
    with pytest.raises(kind, match=words):
        healthy_participants(table(tmp_path), choice)


def test_without_a_choice_both_defaults_are_named(tmp_path):
    with pytest.raises(UsageError, match="has group=control or group=healthy"):
        healthy_participants(table(tmp_path, TABLE.replace("control", "volunteer")), None)


def test_a_dataset_without_a_table_is_refused(tmp_path):
    with pytest.raises(UnusableInputError, match=r"has no participants\.tsv"):
        healthy_participants(tmp_path, None)
    with pytest.raises(UnusableInputError, match="must have a column participant_id"):
        healthy_participants(table(tmp_path, "name\nx\n"), None)


def test_nobody_is_in_two_groups(tmp_path):
    twice = TABLE + "sub-01\tpatient\tM\n"
    with pytest.raises(UnusableInputError, match=r"two rows of sub-01 whose group differs \(control and patient\)"):
        healthy_participants(table(tmp_path, twice), None)
    assert healthy_participants(tmp_path, "sex=M") == (["01"], "sex=M")  # a row a session, say: the column agrees
