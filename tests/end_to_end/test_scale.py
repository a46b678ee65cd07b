"""Five hundred participants: how long until a run starts."""

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


def test_many_jobs_share_an_output_folder(command, cohort, outputs):
    """As a scheduler starts them: one participant each, at the same time, one work folder."""
    raw, masks, out = cohort
    labels = [f"{i:03d}" for i in range(1, 5)]
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
    )
    jobs = [command(*words, "--participant-label", label, stdout=subprocess.DEVNULL) for label in labels]
    assert [job.wait(300) for job in jobs] == [0] * 4
    assert {name[:7] for name in outputs(out).maps()} == {f"sub-{label}" for label in labels}
    assert len(outputs(out).maps()) == 4 * 9
