"""The outputs of whole runs, pinned: the tree of files, and the numbers of every map and every table.

A change of the code that means to change neither must leave the files in ``golden/`` as they are. Where a change is
meant, ``make golden`` writes them anew, and the difference is reviewed with the change.
"""

import csv
import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden")
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PLACES = (0, 5, 25, 50, 75, 95, 100)

#: A quantile may differ by so much of the range of its map: what other processors and libraries round otherwise.
TOLERANCE = 1e-5
#: Estimators whose intervals are simulated.
CONFORMAL = ("segmented", "net", "forest")
#: Networks are trained by thousands of roundings, one upon the other; for a single one a tree of a forest can split
#: elsewhere (float32 digits of the pooled fits that it learns from have moved its maps by 4e-3).
#: Smooth functions through simulated errors are solutions of nearly singular equations; of flags only the file counts.
LOOSE_TOLERANCES = {
    **{f"stat-{key}_": 0.02 for key in ("bias", "expectedsd", "response")},
    **{f"stat-{end}_desc-{name}": 0.02 for end in ("q025", "q975") for name in CONFORMAL},
    "param-flags": 1.0,
    "desc-net": 1e-3,
    "desc-forest": 1e-3,
}
#: Where a volume of a small raw image is registered to hangs on roundings: quantiles of maps may differ by this part of
#: the range from 5 to 95 %, and so may the number of voxels. (The 95th percentile of the residuals of one processor was
#: three quarters of that of another: of these it is left out.)
ROUGH_TOLERANCE = 0.15
#: Columns of the time series that such images do not determine.
MOTION = ("trans_", "rot_", "framewise")

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
    run(data, out, "group", "-d", f"truth={data / 'derivatives' / 'truth'}", "--healthy", "group=retest")
    one = (*plain, "--participant-label", "01", "--session-label", "01", "--estimators")
    classical = ("mle", "bayes", "bayesmap")
    for kind, text, others in (("net", NETWORK, classical), ("forest", FOREST, ())):
        (folder / f"{kind}.yml").write_text(text)
        recipe = ("--training-recipe", folder / f"{kind}.yml")
        participants(data, out, *one, f"{kind}-uniform", f"{kind}-healthy", *others, *recipe)
    return out


def smt_raw(folder):
    """Raw images with all imperfections, through the whole preprocessing."""
    data, out = folder / "ds", folder / "out"
    size = ("--participants", 1, "--patients", 0, "--shape", 20, 20, 5, "--directions", 6)
    run("phantom", data, "--model", "smt3", "--raw", *size, "--snr", 60, lab=True)
    participants(data, out, "--preprocess", "dipy", "--model", "smt3")
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


def tree_of(paths):
    """Paths of files, those of all participants and sessions in one line, and all files that differ in their ending.

    A line is the number of files, what they have in common, and their endings. The digest in the name of a trained
    estimator is ``<digest>``: it changes with every fact of the training.
    """
    endings = {}
    for path in paths:
        path = re.sub(r"(?<=[/_])(sub|ses)-[0-9a-z]+", r"\1-<label>", f"/{path}")[1:]
        path = re.sub(r"_[0-9a-f]{16}\.", "_<digest>.", path)
        path = re.sub(r"prov-sub\w+?_", "prov-sub<label>_", path)
        folder, _, name = path.rpartition("/")
        stem, dot, ending = name[:1] + name[1:].partition(".")[0], *name[1:].partition(".")[1:]
        endings.setdefault(f"{folder}/{stem}".lstrip("/"), Counter())[dot + ending] += 1
    return [f"{sum(count.values())} {stem} {' '.join(sorted(count))}" for stem, count in sorted(endings.items())]


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


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("name", RUNS)
def test_golden(name, tmp_path, outputs, request):
    if name in ("brain", "cord") and not DATA.is_dir():
        pytest.skip("the real datasets are not beside the project")
    out = RUNS[name](tmp_path)
    tree, numbers = GOLDEN / f"{name}.txt", GOLDEN / f"{name}.tsv"
    header = ["what", "finite", *(f"q{place}" for place in PLACES), "weighted"]
    found_tree = tree_of(outputs(out).files())
    if request.config.getoption("--golden"):
        GOLDEN.mkdir(exist_ok=True)
        tree.write_text("\n".join(found_tree) + "\n")
        numbers.write_text("\n".join("\t".join(row) for row in [header, *rows_of(out)]) + "\n")
    assert found_tree == tree.read_text().splitlines()
    expected = {row[0]: row[1:] for row in (line.split("\t") for line in numbers.read_text().splitlines()[1:])}
    found = {row[0]: row[1:] for row in rows_of(out)}
    assert set(found) == set(expected)
    assert [what for what in found if not agrees(name, what, found[what], expected[what])] == []


def agrees(name, what, found, expected):
    """Whether two rows agree as well as numbers of a run (its name) can."""
    if "" in (found[1], expected[1]):
        return found == expected
    one, other = np.array(found, dtype=float), np.array(expected, dtype=float)
    (n, *quantiles, weighted), (known_n, *known, known_weighted) = one, other
    quantiles, known = np.array(quantiles), np.array(known)
    if name == "smt_raw":
        middle = slice(PLACES.index(5), PLACES.index(95) + 1)
        scale = max(np.ptp(known[middle]), abs(known[middle][-1]) * 1e-3)
        apart = np.abs(quantiles - known)[middle]
        looked_at = apart[:-1] if "param-rmse" in what else apart
        close = np.all(looked_at <= ROUGH_TOLERANCE * scale)
        return any(word in what for word in MOTION) or bool(close and abs(n / known_n - 1) <= ROUGH_TOLERANCE)
    tolerance = max([TOLERANCE, *(loose for part, loose in LOOSE_TOLERANCES.items() if part in what)])
    scale = max(np.ptp(known), abs(known[-1]) * 1e-3)
    apart = np.abs([*(quantiles - known), weighted - known_weighted])
    return bool(n == known_n and np.all(apart <= tolerance * scale + 1e-30))
