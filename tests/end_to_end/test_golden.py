"""The outputs of whole runs, pinned: the tree of files, and the numbers of every map and every table.

A change of the code that means to change neither must leave the files in ``golden/`` as they are. Where a change is
meant, ``make golden`` writes them anew, and the difference is reviewed with the change.
"""

import csv
import hashlib
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden")
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PLACES = (0, 5, 25, 50, 75, 95, 100)

#: A quantile may differ by so much of the range of its map: what other processors and libraries round otherwise.
TOLERANCE = 1e-5
#: Networks are trained, and raw images prepared, by thousands of roundings, one upon the other.
LOOSE_TOLERANCE = 1e-3

NETWORK = "kind: network\nsteps: 40\nbatch: 256\nunits: 16\nvalidation: 1024\nchecks: 4\n"
FOREST = "kind: forest\ntrees: 4\nsamples_per_leaf: 20\nsamples: 4096\nvalidation: 1024\n"


def run(*words, lab=False):
    from bidsfit.cli import app
    from bidsfit.cli import lab as laboratory

    assert (laboratory if lab else app).main([str(word) for word in words]) == 0


def participants(data, out, *words, labels="truth"):
    where = ("-d", f"{labels}={data / 'derivatives' / labels}", "--nprocs", 1, "--skip-bids-validation")
    run(data, out, "participant", *where, *words)


def ivim_study(folder):
    """Repeated scans and treatment, every classical estimator, and trained ones on the pool that the group makes."""
    data, out = folder / "ds", folder / "out"
    cohort = ("--study", "repeatability", "--retest", 2, "--treated", 2, "--effect", "D=30")
    run("phantom", data, "--model", "ivim", *cohort, "--shape", 16, 16, 1, "--snr", 60, lab=True)
    plain = ("--preprocess", "none", "--model", "ivim")
    participants(data, out, *plain, "--estimators", "lsq", "segmented")
    one = ("--participant-label", "01", "--session-label", "01")
    participants(data, out, *plain, *one, "--estimators", "mle", "bayes", "bayesmap")
    run(data, out, "group", "-d", f"truth={data / 'derivatives' / 'truth'}", "--healthy", "group=retest")
    for kind, text in (("net", NETWORK), ("forest", FOREST)):
        (folder / f"{kind}.yml").write_text(text)
        recipe = ("--training-recipe", folder / f"{kind}.yml")
        participants(data, out, *plain, *one, *recipe, "--estimators", f"{kind}-uniform", f"{kind}-healthy")
    return out


def smt_raw(folder):
    """Raw images with all imperfections, through the whole preprocessing."""
    data, out = folder / "ds", folder / "out"
    size = ("--participants", 1, "--patients", 0, "--shape", 24, 24, 6, "--directions", 12)
    run("phantom", data, "--model", "smt2", "--raw", *size, lab=True)
    participants(data, out, "--preprocess", "dipy")
    return out


def crop(folder, name, centre, size, *words):
    """A box of a real dataset with its mask, fitted as it is."""
    data, out = folder / "ds", folder / "out"
    shutil.copytree(DATA / name, data)
    box = tuple(slice(c - s // 2, c - s // 2 + s) for c, s in zip(centre, size, strict=True))
    for path in data.rglob("*.nii.gz"):
        image = nib.load(path)
        nib.save(image.slicer[box], path)
    participants(data, out, "--preprocess", "none", *words, labels="masks")
    return out


def brain(folder):
    return crop(folder, "ds-brain-2shell", (40, 50, 1), (10, 10, 2), "--estimators", "lsq", "mle")


def cord(folder):
    return crop(folder, "ds-cord-ivim", (64, 68, 3), (12, 12, 2), "--model", "ivim", "--estimators", "lsq", "segmented")


RUNS = {run.__name__: run for run in (ivim_study, smt_raw, brain, cord)}


def described(name, values):
    """A row of the pinned numbers: how many are finite, quantiles, and a sum weighted by position.

    The last is a checksum that forgives rounding: it changes where values change places.
    """
    values = np.asarray(values, dtype=float).ravel()
    finite = values[np.isfinite(values)]
    if not finite.size:
        return [name, "0", *[""] * (len(PLACES) + 1)]
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    weights = np.random.default_rng(seed).uniform(-1, 1, values.size)[np.isfinite(values)]
    numbers = [*np.percentile(finite, PLACES), np.average(finite * weights)]
    return [name, str(finite.size), *(f"{number:.7g}" for number in numbers)]


def rows_of(out):
    """Rows of every map, and of every column of numbers of every table of the group."""
    rows = [
        described(p.relative_to(out).as_posix(), np.asarray(nib.load(p).dataobj))
        for p in sorted(out.rglob("*.nii.gz"))
        if "work" not in p.relative_to(out).parts
    ]
    for path in sorted([*out.glob("group_*.tsv"), *out.glob("sub-*/**/*_timeseries.tsv")]):
        with path.open() as file:
            table = list(csv.DictReader(file, delimiter="\t"))
        for column in table[0] if table else ():
            try:
                values = [float("nan" if row[column] in ("n/a", "") else row[column]) for row in table]
            except ValueError:  # a column of words
                continue
            rows.append(described(f"{path.relative_to(out).as_posix()} {column}", values))
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("name", RUNS)
def test_golden(name, tmp_path, outputs, request):
    if name in ("brain", "cord") and not DATA.is_dir():
        pytest.skip("the real datasets are not beside the project")
    out = RUNS[name](tmp_path)
    tree, numbers = GOLDEN / f"{name}.txt", GOLDEN / f"{name}.tsv"
    header = ["what", "finite", *(f"q{place}" for place in PLACES), "weighted"]
    if request.config.getoption("--golden"):
        GOLDEN.mkdir(exist_ok=True)
        tree.write_text("\n".join(outputs(out).files()) + "\n")
        numbers.write_text("\n".join("\t".join(row) for row in [header, *rows_of(out)]) + "\n")
    assert outputs(out).files() == tree.read_text().splitlines()
    expected = {row[0]: row[1:] for row in (line.split("\t") for line in numbers.read_text().splitlines()[1:])}
    found = {row[0]: row[1:] for row in rows_of(out)}
    assert set(found) == set(expected)
    assert [what for what in found if not same(found[what], expected[what], tolerance_of(name, what))] == []


def tolerance_of(name, what):
    loose = name == "smt_raw" or "desc-net" in what or "desc-forest" in what
    return LOOSE_TOLERANCE if loose else TOLERANCE


def same(found, expected, tolerance):
    """Whether two rows agree within the tolerance, a part of the range."""
    if found[0] != expected[0] or "" in (found[1], expected[1]):
        return found == expected
    one, other = np.array(found[1:], dtype=float), np.array(expected[1:], dtype=float)
    scale = max(other[-2] - other[0], abs(other[-2]) * 1e-3)
    return bool(np.all(np.abs(one - other) <= tolerance * scale + 1e-30))
