"""Who is compared with whom, from participants.tsv and the tables of sessions."""

import pytest

from bidsfit.cohort.design import Pair, Repeats, read_design
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError

PARTICIPANTS = """participant_id\tgroup\tdrug
sub-01\tretest\tno
sub-02\tretest\tno
sub-03\ttreated\tyes
sub-04\ttreated\tyes
"""
TWO = ("1", "2")
SCANNED = {"01": TWO, "02": TWO, "03": TWO, "04": TWO}
COHORTS = {"repeatability": "group=retest", "treatment": "group=treated"}


@pytest.fixture
def study(tmp_path):
    """``study(sub="session rows")``: the root of a dataset with tables of sessions."""
    (tmp_path / "participants.tsv").write_text(PARTICIPANTS)

    def make(columns="condition", **tables):
        for label, lines in tables.items():
            folder = tmp_path / label.replace("_", "-")
            folder.mkdir()
            text = "\n".join([f"session_id\t{columns}", *("\t".join(line.split()) for line in lines)])
            (folder / f"{folder.name}_sessions.tsv").write_text(text + "\n")
        return tmp_path

    return make


def reasons(design):
    return {(one.participant, one.cohort): one.reason for one in design.left_out}


def test_cohorts_are_columns_of_the_participants(study):
    design = read_design(study(), SCANNED, **COHORTS)
    assert design.repeatability == (Repeats("01", TWO), Repeats("02", TWO))
    assert design.treatment == (Pair("03", "1", "2"), Pair("04", "1", "2"))
    assert design.choices["repeatability"] == "group=retest"
    assert any("told apart by the order of their labels" in words for words in design.remarks)
    assert not design.empty


def test_time_decides_what_came_first(study):
    root = study("acq_time", sub_03=["ses-1 2020-02-01", "ses-2 2020-01-01"])
    design = read_design(root, SCANNED, **COHORTS)
    assert design.treatment == (Pair("03", "2", "1"), Pair("04", "1", "2"))
    assert design.baseline["03"] == "2"
    assert "by acq_time of the tables of sessions (1 participant)" in design.choices["sessions"]
    assert "by label" in design.choices["sessions"]


def test_sessions_may_be_named_and_who_lacks_one_is_listed(study):
    scanned = SCANNED | {"03": ("1", "2", "3"), "04": ("1",)}
    design = read_design(study(), scanned, sessions=["pre=ses-2", "post=ses-1"], **COHORTS)
    assert design.treatment == (Pair("03", "2", "1"),)
    assert design.repeatability[0] == Repeats("01", ("2", "1"))
    assert reasons(design)["04", "treatment"] == "no maps of ses-2"


def test_by_default_everyone_with_two_sessions_is_a_repeated_scan(study):
    design = read_design(study(), SCANNED | {"04": ("1",)})
    assert [one.participant for one in design.repeatability] == ["01", "02", "03"]
    assert design.treatment == ()
    assert design.choices["repeatability"] == "everyone with two sessions and no treatment"


def test_but_those_whose_sessions_are_called_pre_and_post_were_treated(study):
    root = study(sub_03=["ses-1 post", "ses-2 pre"])
    design = read_design(root, SCANNED | {"04": ("pre", "post")})
    assert design.treatment == (Pair("03", "2", "1"), Pair("04", "pre", "post"))
    assert [one.participant for one in design.repeatability] == ["01", "02"]
    assert any(words.startswith("sub-03 and sub-04 count as treated") for words in design.remarks)


def test_naming_sessions_does_not_make_them_repeated_scans(study):
    root = study(sub_03=["ses-1 pre", "ses-2 post"], sub_04=["ses-1 pre", "ses-2 post"])
    design = read_design(root, SCANNED, sessions=["pre=1", "post=2"])
    assert design.treatment == (Pair("03", "1", "2"), Pair("04", "1", "2"))
    assert any(
        words.startswith("Nobody is said")
        for words in read_design(root, {"01": TWO, "02": TWO}, sessions=["pre=1", "post=2"]).remarks
    )


def test_unless_the_user_says_that_nothing_was_done(study):
    root = study(sub_01=["ses-1 pre", "ses-2 post"])
    design = read_design(root, SCANNED, repeatability="group=retest")
    assert Repeats("01", TWO) in design.repeatability
    assert any("taken for repeated scans as you chose" in words for words in design.remarks)


def test_everyone_who_is_not_treated_repeats_where_only_the_treatment_is_given(study):
    design = read_design(study(), SCANNED, treatment="drug=yes")
    assert [one.participant for one in design.repeatability] == ["01", "02"]


def test_more_than_two_sessions(study):
    three = ("1", "2", "3")
    design = read_design(study(), {"01": three, "02": TWO, "03": three, "04": three}, **COHORTS)
    assert design.repeatability[0] == Repeats("01", three)
    assert design.treatment[0] == Pair("03", "1", "3")
    (words,) = [words for words in design.remarks if "more than two sessions" in words]
    assert words.startswith("sub-03 and sub-04: ")
    assert "from ses-1 to ses-3" in words


def test_scans_before_the_treatment_may_be_repeats_those_after_it_may_not(study):
    root = study(sub_03=["ses-1 pre", "ses-2 pre", "ses-3 post"])
    scanned = SCANNED | {"03": ("1", "2", "3")}
    (root / "participants.tsv").write_text(PARTICIPANTS + "sub-05\tretest\tyes\n")
    design = read_design(root, scanned | {"05": TWO}, repeatability="drug=yes", treatment="group=treated")
    assert design.repeatability == (Repeats("03", TWO), Repeats("05", TWO))
    assert design.treatment[0] == Pair("03", "1", "3")
    assert "treated, without two sessions" in reasons(design)["04", "repeatability"]


def test_a_treated_participant_without_a_session_after_it_is_listed(study):
    root = study(sub_03=["ses-1 pre", "ses-2 pre"])
    design = read_design(root, SCANNED, **COHORTS)
    assert design.treatment == (Pair("04", "1", "2"),)
    assert reasons(design)["03", "treatment"].endswith("(ses-1 pre, ses-2 pre)")


@pytest.mark.parametrize(
    ("scanned", "choices", "kind", "message"),
    [
        ({"01": TWO, "02": ("1",)}, COHORTS, UnusableInputError, "nobody has.\n  sub-03: no maps"),
        ({"01": TWO, "02": ("1",)}, {"repeatability": "group=retest"}, UnusableInputError,
         "needs 2 participants with maps of two sessions, and 1 has.\n  sub-02: maps of one session only"),
        ({"01": ("",), "02": ("",)}, {"repeatability": "group=retest"}, UnusableInputError, "and 0 have"),
        (SCANNED, {"treatment": "groop=treated"}, UnknownNameError, "Did you mean 'group'"),
        (SCANNED, {"treatment": "group=drug"}, UsageError, "holds: retest, treated. Choose one of them"),
        (SCANNED, {"repeatability": "retest"}, UsageError, "--repeatability takes COLUMN=VALUE"),
        (SCANNED, {"condition": "visit"}, UnknownNameError, "Unknown column of the tables of sessions"),
        (SCANNED, {"condition": "acq_time"}, UsageError, "holds no word for a condition; found 2020-01-01"),
        (SCANNED, {"healthy": "group=well"}, UsageError, "--healthy"),
    ],
)  # fmt: skip
def test_what_the_design_does_not_identify_is_refused(study, scanned, choices, kind, message):
    root = study("acq_time", sub_01=["ses-1 2020-01-01"])
    with pytest.raises(kind) as error:
        read_design(root, scanned, **choices)
    assert message in str(error.value)


def test_what_nobody_asked_for_is_only_said(study):
    design = read_design(study(), {"01": TWO, "02": ("1",)})
    assert design.empty
    assert any("only sub-01 has two" in words for words in design.remarks)
    assert any("Nobody is known to be healthy" in words for words in design.remarks)


def test_a_dataset_without_a_table_of_participants_has_a_design(tmp_path):
    assert len(read_design(tmp_path, SCANNED).repeatability) == 4


def test_healthy_participants_and_the_others_with_maps(study):
    design = read_design(study(), {"01": ("",), "03": TWO, "09": TWO}, healthy="group=retest")
    assert (design.healthy, design.patients) == (("01",), ("03", "09"))
    assert reasons(design)["02", "healthy"] == "no maps"


def test_everything_may_be_restricted_to_some_participants(study):
    design = read_design(study(), SCANNED, participants=["01", "02", "03"], **COHORTS)
    assert design.treatment == (Pair("03", "1", "2"),)
    assert design.left_out == ()
