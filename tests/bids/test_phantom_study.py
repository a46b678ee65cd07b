"""A study of repeatability on disk: sessions, groups, regions, and its true medians."""

import csv
import json
from datetime import datetime

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.inputs import Folder
from bidsfit.bids.phantom import write_phantom
from bidsfit.bids.phantom_study import visits
from bidsfit.bids.regions import find_regions, region_files
from bidsfit.cohort.sessions import order_sessions, read_sessions
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.study import Study

#: Group and sessions of each participant.
PEOPLE = {"01": ("healthy", 1), "02": ("retest", 2), "03": ("retest", 2), "04": ("treated", 2)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = Study(
        n_retest=2,
        n_treated=1,
        between={"D": 0.1, "Dstar": 0.1},
        within={"D": 0.05, "f": 0.1},
        effect={"D": 0.2, "f": 0.3},
    )
    cohort = Cohort("ivim", n_healthy=1, n_patients=0, shape=(24, 24, 2), study=settings)
    out = tmp_path_factory.mktemp("phantom") / "ds"
    write_phantom(cohort, out)
    return cohort, out


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def load(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("root", ["", "derivatives/truth"])
def test_valid_bids(study, valid, root):
    assert valid(study[1] / root)


def test_groups(study):
    _, out = study
    assert {row["participant_id"][4:]: row["group"] for row in table(out / "participants.tsv")} == {
        label: group for label, (group, _) in PEOPLE.items()
    }
    levels = json.loads((out / "participants.json").read_text())["group"]["Levels"]
    assert {group for group, _ in PEOPLE.values()} <= set(levels)


def test_sessions_are_ordered_and_the_treated_are_known(study):
    """As the group level reads them."""
    _, out = study
    for label, (group, n) in PEOPLE.items():
        rows = read_sessions(out, label)
        assert [row["session_id"] for row in rows.values()] == [f"ses-{s:02d}" for s in range(1, n + 1)]
        assert {path.name for path in (out / f"sub-{label}").glob("ses-*")} == {
            row["session_id"] for row in rows.values()
        }
        ordered = order_sessions(rows, rows)
        assert ordered.treated == (group == "treated")
        assert ordered.by == ("condition" if group == "treated" else "acq_time")
        assert ordered.labels == ("01", "02")[:n]
        assert not ordered.remark
        sidecar = json.loads((out / f"sub-{label}/sub-{label}_sessions.json").read_text())
        conditions = {row["condition"] for row in rows.values()}
        assert conditions <= set(sidecar["condition"]["Levels"])
        assert conditions == ({"pre", "post"} if group == "treated" else {"untreated"})


def test_times_are_not_those_of_anybody_alive(study):
    cohort, _ = study
    for participant in cohort.participants():
        times = [datetime.fromisoformat(visit.acq_time) for visit in visits(cohort, participant)]
        assert times == sorted(set(times))
        assert times[-1].year < 1925


def test_everyone_has_the_region_in_every_session(study):
    """On the grid of the image, the same voxels, found as the group level finds regions."""
    cohort, out = study
    truth = out / "derivatives/truth"
    for participant in cohort.participants():
        files = region_files([Folder("truth", truth)], participant.label)
        for session in cohort.sessions(participant.group):
            name = f"sub-{participant.label}_ses-{session:02d}"
            image = nib.load(out / f"sub-{participant.label}/ses-{session:02d}/dwi/{name}_dwi.nii.gz")
            found = find_regions(files, name, image, ["roi"])
            np.testing.assert_array_equal(found.masks["roi"], participant.head.region)
            assert not found.remarks
        assert not list(truth.glob(f"sub-{participant.label}/ses-*/dwi/*lesion*"))


def test_true_maps_are_of_their_session(study):
    cohort, out = study
    treated = list(cohort.participants())[-1]
    for session in (1, 2):
        stem = out / f"derivatives/truth/sub-04/ses-{session:02d}/dwi/sub-04_ses-{session:02d}_model-ivim_param-D"
        expected = cohort.head_at(treated, session).parameters["D"] * 1e-3
        np.testing.assert_allclose(load(f"{stem}_desc-truth_dwimap.nii.gz"), expected, rtol=1e-6)
        sidecar = json.loads(stem.with_name(f"{stem.name}_desc-truth_dwimap.json").read_text())["Simulation"]["Study"]
        treatment = {"f": 1.3, "D": 1.2, "Dstar": 1.0} if session == 2 else {"f": 1.0, "D": 1.0, "Dstar": 1.0}
        assert sidecar["Factors"]["Treatment"] == treatment
        assert sidecar["TreatmentEffect"] == {"D": 0.2, "f": 0.3}
        assert sidecar["Factors"]["Session"]["Dstar"] == 1


def test_table_of_true_medians(study):
    """The same numbers as from the written maps and masks."""
    _, out = study
    truth = out / "derivatives/truth"
    rows = table(truth / "group_truth.tsv")
    assert {(row["participant_id"], row["session_id"]) for row in rows} == {
        (f"sub-{label}", f"ses-{session:02d}") for label, (_, n) in PEOPLE.items() for session in range(1, n + 1)
    }
    assert {row["region"] for row in rows} == {"roi", "whole", "wm", "gm", "csf"}
    for row in rows:
        stem = (
            truth / row["participant_id"] / row["session_id"] / "dwi" / f"{row['participant_id']}_{row['session_id']}"
        )
        values = load(f"{stem}_model-ivim_param-{row['parameter']}_desc-truth_dwimap.nii.gz")
        tissue = load(f"{stem}_dseg.nii.gz")
        if row["region"] == "roi":
            where = load(f"{stem}_label-roi_mask.nii.gz") > 0
        else:
            where = tissue > 0 if row["region"] == "whole" else tissue == {"wm": 1, "gm": 2, "csf": 3}[row["region"]]
        if row["parameter"] == "Dstar":
            where &= load(f"{stem}_model-ivim_param-f_desc-truth_dwimap.nii.gz") >= np.float32(0.05)
        assert int(row["n_voxels"]) == where.sum()
        assert float(row["median"]) == pytest.approx(np.median(values[where]), rel=1e-6)
        assert row["group"] == PEOPLE[row["participant_id"][4:]][0]
    assert {row["units"] for row in rows if row["parameter"] == "D"} == {"mm^2/s"}
    sidecar = json.loads((truth / "group_truth.json").read_text())
    assert set(rows[0]) <= set(sidecar)
    assert sidecar["Planted"]["WithinParticipants"] == {"D": 0.05, "f": 0.1}


def test_planted_effect_is_in_the_table(study):
    cohort, out = study
    rows = table(out / "derivatives/truth/group_truth.tsv")
    found = {
        row["session_id"]: float(row["median"])
        for row in rows
        if (row["participant_id"], row["region"], row["parameter"]) == ("sub-04", "roi", "D")
    }
    factors = [cohort.factors(list(cohort.participants())[-1], session)["session"]["D"] for session in (1, 2)]
    assert found["ses-02"] / found["ses-01"] == pytest.approx(1.2 * factors[1] / factors[0], rel=1e-6)


def test_readme_says_what_was_planted(study):
    readme = (study[1] / "README").read_text()
    for text in ("1 healthy", "2 patients scanned twice", "1 scanned before and", "D 5 %, f 10 %", "D +20 %, f +30 %"):
        assert text in readme
    assert "same truth and fresh noise" not in readme


def test_variation_without_repeats_needs_no_sessions(tmp_path, valid):
    cohort = Cohort("adc", 1, 1, shape=(16, 16, 1), study=Study(between={"D": 0.2}))
    write_phantom(cohort, tmp_path / "ds")
    assert valid(tmp_path / "ds")
    assert not list((tmp_path / "ds").rglob("*sessions*"))
    truth = tmp_path / "ds/derivatives/truth"
    assert len(list(truth.rglob("*label-roi_mask.nii.gz"))) == 2
    assert {row["session_id"] for row in table(truth / "group_truth.tsv")} == {"n/a"}
