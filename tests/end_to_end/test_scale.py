"""Five hundred participants: how long until a run starts."""

import json
import resource
import shutil
import subprocess
import time

import pytest

N = 500

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, new_dataset):
    """Tiny images and masks of many participants."""
    folder = tmp_path_factory.mktemp("cohort")
    raw, masks = new_dataset(folder / "ds"), new_dataset(folder / "masks", derivative=True)
    for i in range(1, N + 1):
        raw.add(f"sub-{i:03d}/dwi/sub-{i:03d}_dwi")
        masks.add_mask(f"sub-{i:03d}/dwi/sub-{i:03d}_desc-brain_mask")
    return raw, masks, folder / "out"


def timed(command, cohort, *options):
    """Seconds of a dry run in a process of its own, and what it said."""
    raw, masks, out = cohort
    start = time.perf_counter()
    process = command(
        raw,
        out,
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"masks={masks}",
        "--dry-run",
        *options,
        stdout=subprocess.PIPE,
    )
    said, _ = process.communicate()
    seconds = time.perf_counter() - start
    assert process.returncode == 0
    return seconds, said


def test_one_of_many(command, cohort):
    seconds, said = timed(command, cohort, "--participant-label", "250")
    print(f"\none of {N} participants: {seconds:.1f} s")
    assert said.count("fit adc") == 1
    assert seconds < 15  # about 5 s on a quiet machine


def test_all_of_many(command, cohort):
    seconds, said = timed(command, cohort)
    print(f"\nall {N} participants: {seconds:.1f} s")
    assert said.startswith(f"{N} images  ")
    assert seconds < 60


def test_sessions_of_a_thousand_are_planned_in_seconds(command, tmp_path, new_dataset):
    """With the images that preprocessing looks for. Processor time, as other work shares the machine."""
    raw = new_dataset(tmp_path / "ds")
    stem, encoding = "sub-0001/ses-1/{0}/sub-0001_ses-1_{1}".format, {"TotalReadoutTime": 0.05}
    raw.add(stem("dwi", "dir-AP_dwi"), sidecar=encoding | {"PhaseEncodingDirection": "j-"})
    raw.write(stem("fmap", "dir-PA_epi.json"), json.dumps(encoding | {"PhaseEncodingDirection": "j"}))
    raw.nifti(stem("fmap", "dir-PA_epi.nii.gz"), raw.signals((0, 0)))
    raw.nifti(stem("anat", "T1w.nii.gz"), raw.signals((0,))[..., 0])
    first = raw.root / "sub-0001" / "ses-1"
    files = [path for path in first.rglob("*") if path.is_file()]
    for label, session in [(f"sub-{i:04d}", f"ses-{k}") for i in range(1, 1001) for k in (1, 2)][1:]:
        for path in files:
            new = (
                raw.root
                / label
                / session
                / path.parent.name
                / path.name.replace("sub-0001_ses-1", f"{label}_{session}")
            )
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, new)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = (raw, tmp_path / "out", "participant", "--dry-run", "--skip-bids-validation")
    process = command(*words, stdout=subprocess.PIPE)
    said, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\n1,000 participants with two sessions: {seconds:.1f} CPU s")
    assert process.returncode == 0
    assert said.count("sub-1000_ses-") == 2
    assert said.startswith("2000 images  ")
    assert "with sub-*_ses-*_dir-PA_epi.nii.gz" in said
    assert seconds < 20  # about 13 s on a quiet machine


def test_many_jobs_share_an_output_folder(command, cohort, outputs, tmp_path):
    """As a scheduler starts them: one participant each, at the same time, one work folder."""
    raw, masks, out = cohort
    labels = [f"{i:03d}" for i in range(1, 17)]
    recipe = tmp_path / "tiny.yml"
    recipe.write_text("kind: network\nsteps: 60\nbatch: 256\nunits: 16\nvalidation: 2048\nchecks: 10\n")
    words = (
        raw,
        out,
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"masks={masks}",
        "--nprocs",
        1,
        "--skip-bids-validation",
        *("--estimators", "lsq", "net-uniform", "--training-recipe", recipe, "--training-snr", 20, "--model", "adc"),
    )
    jobs = [command(*words, "--participant-label", label, stdout=subprocess.DEVNULL) for label in labels]
    assert [job.wait(1800) for job in jobs] == [0] * len(labels)
    maps = outputs(out).maps()
    kinds = {name.split("_", 1)[1] for name in maps}
    assert len(kinds) * len(labels) == len(maps)
    # The images are equal, and so are their maps.
    assert len({(name.split("_", 1)[1], content) for name, content in maps.items()}) == len(kinds)
    assert len(list((out / "trained").glob("*.zip"))) == 1
    for path in out.rglob("*.json"):
        if "work" not in path.parts:
            json.loads(path.read_text())
    assert json.loads((out / "dataset_description.json").read_text())["DatasetLinks"].keys() == {"raw", "masks"}
    assert {"desc-lsq", "desc-netuniform"} <= {row.split("\t")[0] for row in (out / "descriptions.tsv").open()}
    page = (out / "index.html").read_text()
    assert all(f"sub-{label}.html" in page for label in labels)
    assert [path for path in out.rglob(".*.*.*") if "work" not in path.parts] == []  # temporary files
