"""Datasets and commands that tests share."""

import base64
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]

# Compiled code is kept from one run of the tests to the next, apart from that of the user.
os.environ["BIDSFIT_CACHE_DIR"] = os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bidsfit-tests"
)

Outcome = namedtuple("Outcome", "code out err")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The packages of docs/adding.md, installed for this test as pip would: their entry points are found.

    ``plugin.folder`` is where they lie; ``plugin.environment`` is that of a process which has them installed:
    ``command(words..., env=plugin.environment)``; ``plugin.blocks(language)`` are the blocks of that page.
    """

    def blocks(language):
        page = (PROJECT / "docs" / "adding.md").read_text()
        return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)

    folder, installed = tmp_path / "site-packages", []
    for content in map(tomllib.loads, blocks("toml")):
        project = content["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".format(**project))
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        installed += content["tool"]["setuptools"]["py-modules"]
    for module in installed:
        shutil.copy(PROJECT / "docs" / "examples" / f"{module}.py", folder)
    monkeypatch.syspath_prepend(folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)])}
    yield SimpleNamespace(folder=folder, environment=environment, blocks=blocks)
    for module in installed:
        sys.modules.pop(module, None)


@pytest.fixture(scope="session", autouse=True)
def few_truths():
    """What judges an estimator is simulated with fewer truths, but where a test asks for more."""
    from bidsfit.trust import domain, monte_carlo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monte_carlo, "LIGHT", monte_carlo.Size(256, 12, 4, 48))
        patch.setattr(domain, "SIGNALS", 1024)
        patch.setattr(domain, "HELD_OUT", 2048)
        for name in ("OF_COSTLY", "OF_FUNCTION", "OF_LARGE_FUNCTION", "OF_PATCHES"):
            patch.setattr(monte_carlo, name, monte_carlo.Size(64, 8, 2, 16))
        yield


def pytest_addoption(parser):
    parser.addoption("--golden", action="store_true", help="pin the outputs of the golden runs as they are now")


@pytest.fixture
def app(capsys):
    """Run ``bidsfit`` in this process: ``app(words...)`` returns its exit code and what it said."""
    from bidsfit.cli.app import main

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse
            code = stop.code
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def command():
    """Start ``bidsfit`` in a process of its own, in a session of its own: ``command(words...)`` is a Popen."""

    def start(*words, module="bidsfit.cli.app", **options):
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, words)],
            **{"text": True, "env": environment, "start_new_session": True, **options},
        )

    return start


class TinyDataset:
    """A BIDS dataset of tiny images whose signal decays with D = 0.001 mm^2/s."""

    B_VALUES = (0, 0, 300, 600, 1000)
    SHAPE = (5, 6, 3)
    AFFINE = np.array([[-2.0, 0, 0, 9], [0, 2, 0, -8], [0, 0, 3, 4], [0, 0, 0, 1]])

    def __init__(self, root, derivative=False):
        self.root = Path(root)
        self.root.mkdir(parents=True)
        description = {"Name": "Tiny", "BIDSVersion": "1.10.0"}
        if derivative:
            description |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": "a test"}]}
        self.write("dataset_description.json", json.dumps(description))
        self.write("README", "Tiny images.\n")

    def __truediv__(self, name):
        return self.root / name

    def __fspath__(self):
        return str(self.root)

    __str__ = __fspath__

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def signals(self, b_values=B_VALUES, shape=SHAPE):
        """Signals that differ from voxel to voxel, noise-free."""
        s0 = 1000 + np.arange(np.prod(shape)).reshape(shape)
        return (s0[..., None] * np.exp(-np.asarray(b_values) * 1e-3)).astype(np.float32)

    def nifti(self, name, data, affine=AFFINE, dtype=None):
        """Write an image; qform and sform are both set."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(data, affine, dtype=dtype)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        nib.save(image, path)
        return path

    def add(self, stem, b_values=B_VALUES, data=None, bval=True, bvec=True, sidecar=None, extension=".nii.gz"):
        """Add ``sub-01/dwi/sub-01_dwi`` with what belongs to it."""
        data = self.signals(b_values) if data is None else data
        if bval:
            self.write(f"{stem}.bval", " ".join(f"{b:g}" for b in b_values) + "\n")
        if bvec:
            directions = np.array([(0, 0, 0) if b == 0 else np.roll((1, 0, 0), i) for i, b in enumerate(b_values)])
            self.write(f"{stem}.bvec", "\n".join(" ".join(map(str, row)) for row in directions.T) + "\n")
        if sidecar is not None:
            self.write(f"{stem}.json", json.dumps(sidecar))
        return self.nifti(f"{stem}{extension}", data)

    def add_mask(self, stem, data=None, **options):
        """Add a mask, one voxel smaller than the image on each side in the first slice."""
        if data is None:
            data = np.ones(self.SHAPE, dtype=np.uint8)
            data[0], data[:, 0] = 0, 0
        return self.nifti(f"{stem}.nii.gz", data, **options)


@pytest.fixture(scope="session")
def scanned():
    """``scanned(...)``: magnitudes of a ball of tissue (D = 0.001 mm^2/s), and where it is.

    K-space of ``matrix`` x ``matrix`` samples is padded with zeros to ``zero_filling`` times as many along each axis;
    its first lines along the second one are missing with partial Fourier; volumes move by ``moves`` voxels (standard
    deviation). The noise of a voxel stays ``sigma``.
    """

    def scan(matrix=48, zero_filling=(1, 1), partial_fourier=1.0, moves=0.0, sigma=30.0, b_values=(0, 0, 0, 0)):
        rng, (x, y, _) = np.random.default_rng(0), np.indices((matrix, matrix, 4))

        def ball(x, y, size):
            return (x - (size - 1) / 2) ** 2 + (y - (size - 1) / 2) ** 2 <= (0.42 * size) ** 2

        tissue = 1000 * (1 + 0.15 * np.sin(x / 2) * np.cos(y / 3)) * ball(x, y, matrix)
        clean = tissue[..., None] * np.exp(-np.asarray(b_values) * 1e-3)
        noise = rng.normal(0, sigma, (2, *clean.shape))
        space = np.fft.fftshift(np.fft.fft2(clean + noise[0] + 1j * noise[1], axes=(0, 1)), axes=(0, 1))
        turns = np.fft.fftshift(np.fft.fftfreq(matrix))[:, None, None, None] * rng.normal(0, moves, len(b_values))
        space *= np.exp(-2j * np.pi * (turns + turns.swapaxes(0, 1)))
        space[:, : round(matrix * (1 - partial_fourier))] = 0
        more = [round(matrix * (factor - 1) / 2) for factor in zero_filling]
        space = np.pad(space, [(n, n) for n in (*more, 0, 0)])
        magnitudes = np.abs(np.fft.ifft2(np.fft.ifftshift(space, axes=(0, 1)), axes=(0, 1)))
        x, y, _ = np.indices(magnitudes.shape[:3])
        inside = ball(x / magnitudes.shape[0] * matrix, y / magnitudes.shape[1] * matrix, matrix)
        return magnitudes * space.shape[0] * space.shape[1] / matrix**2, inside

    return scan


@pytest.fixture(scope="session")
def new_dataset():
    """``new_dataset(folder, derivative=False)``: a dataset without images."""
    return TinyDataset


@pytest.fixture
def tiny(tmp_path):
    """A raw dataset without images: tests add what they need."""
    return TinyDataset(tmp_path / "tiny")


@pytest.fixture
def triexponential(tmp_path, monkeypatch):
    """A model of five parameters beside S0, which another package adds under this name."""
    from bidsfit import models

    folder = tmp_path / "site-packages"
    info = folder / "triexponential-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: triexponential\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bidsfit.models]\ntriexponential = triexponential:MODEL\n")
    (folder / "triexponential.py").write_text(TRIEXPONENTIAL)
    monkeypatch.syspath_prepend(folder)
    yield models.get("triexponential")
    sys.modules.pop("triexponential")


TRIEXPONENTIAL = """
import sympy as sp
from bidsfit.models.parameter import Parameter
from bidsfit.models.symbolic import SymbolicModel

ROWS = {"f1": ("1", 0.0, 1.0), "f2": ("1", 0.0, 1.0), "D1": ("um^2/ms", 0.1, 1.0), "D2": ("um^2/ms", 1.2, 4.0),
        "D3": ("um^2/ms", 8.0, 60.0)}
b, S0, f1, f2, D1, D2, D3 = sp.symbols("b S0 f1 f2 D1 D2 D3", real=True)


def row(name, unit, low, high):
    start = (low + (high - low) / 4, high - (high - low) / 4)
    return Parameter(name=name, label=name, unit=unit, bounds=(low, high), latex=name, description=name, start=start)


MODEL = SymbolicModel(
    name="triexponential",
    title="Three exponentials",
    description="Three exponential decays.",
    parameters=(
        Parameter(name="S0", label="S0", unit="arbitrary", bounds=(0.0, float("inf")), latex="S_0", description="S0"),
        *(row(name, *values) for name, values in ROWS.items()),
    ),
    variables=("b",),
    expression=S0 * (f1 * sp.exp(-b * D1) + f2 * sp.exp(-b * D2) + (1 - f1 - f2) * sp.exp(-b * D3)),
    constraints=(sp.Le(f1 + f2, 1),),
)
"""


@pytest.fixture
def masks(tmp_path):
    """A derivative dataset without files."""
    return TinyDataset(tmp_path / "masks", derivative=True)


@pytest.fixture
def pair(tiny, masks):
    """A raw dataset of one participant, with its mask in a derivative dataset."""
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    return tiny, masks


def simulate(out, *options):
    from bidsfit.cli.lab import main

    assert main(["phantom", str(out), *map(str, options)]) == 0
    return out


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """An IVIM phantom: a healthy participant and a patient, hardly any noise. Read only."""
    out = tmp_path_factory.mktemp("phantom") / "ds"
    size = ("--shape", 24, 24, 2, "--participants", 1, "--patients", 1)
    return simulate(out, "--model", "ivim", *size, "--snr", 1000, "--noise", "gaussian")


@pytest.fixture(scope="session")
def smt_phantom(tmp_path_factory):
    """An SMT phantom of one participant, hardly any noise. Read only."""
    out = tmp_path_factory.mktemp("phantom") / "ds"
    size = ("--shape", 16, 16, 1, "--participants", 1, "--patients", 0)
    return simulate(out, "--model", "smt2", *size, "--snr", 1000, "--noise", "gaussian")


@pytest.fixture(scope="session")
def qsiprep_phantom(smt_phantom, tmp_path_factory):
    """What QSIPrep 26 leaves of the SMT phantom, its one session called ses-1. Read only.

    Images are LPS+, those of ``anat`` have half the voxel size, and there are copies of them in a standard space.
    """
    out = TinyDataset(tmp_path_factory.mktemp("qsiprep") / "qsiprep", derivative=True)
    raw, truth = (folder / "sub-01" / "dwi" for folder in (smt_phantom, smt_phantom / "derivatives" / "truth"))
    dwi = "sub-01/ses-1/dwi/sub-01_ses-1_space-ACPC_res-2mm_{}".format

    def write(name, path, fine=False, numbers=None):
        image = nib.load(path).as_reoriented([[0, -1], [1, -1], [2, 1]])  # RAS to LPS
        data, affine = np.asarray(image.dataobj), image.affine
        if numbers is not None:
            data = np.array(numbers, dtype=np.uint8)[data.astype(int)]
        if fine:
            data = data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
            affine = affine @ np.diag([0.5, 0.5, 0.5, 1]) @ nib.affines.from_matvec(np.eye(3), [-0.5] * 3)
        out.nifti(f"{name}.nii.gz", data, affine)

    write(dwi("desc-preproc_dwi"), raw / "sub-01_dwi.nii.gz")
    write(dwi("desc-brain_mask"), truth / "sub-01_desc-brain_mask.nii.gz")
    write(dwi("desc-preproc_dwiref"), truth / "sub-01_model-smt2_param-S0_desc-truth_dwimap.nii.gz")
    write(dwi("model-tensor_stat-cnr_dwimap"), truth / "sub-01_model-smt2_param-S0_desc-truth_dwimap.nii.gz")
    b_values, directions = np.loadtxt(raw / "sub-01_dwi.bval"), np.loadtxt(raw / "sub-01_dwi.bvec")
    directions *= [[-1], [-1], [1]]  # in the axes of the image
    for extension, rows in {
        "bval": b_values[None],
        "bvec": directions,
        "b": np.c_[directions.T, b_values],
        "b_table.txt": np.c_[b_values, directions.T],
    }.items():
        np.savetxt(out / f"{dwi('desc-preproc_dwi')}.{extension}", rows, fmt="%.6f")
    out.write(f"{dwi('desc-preproc_dwi')}.json", json.dumps({"EchoTime": 0.085, "HeadMotionMethod": "eddy"}))
    out.write(f"{dwi('desc-image_qc')}.tsv", "mean_fd\n0.1\n")
    out.write("sub-01/ses-1/dwi/sub-01_ses-1_desc-confounds_timeseries.tsv", "framewise_displacement\nn/a\n")
    for space in ("ACPC", "MNI152NLin2009cAsym"):
        anat = f"sub-01/anat/sub-01_space-{space}"
        write(f"{anat}_desc-preproc_T1w", truth / "sub-01_model-smt2_param-S0_desc-truth_dwimap.nii.gz", fine=True)
        write(f"{anat}_desc-brain_mask", truth / "sub-01_desc-brain_mask.nii.gz", fine=True)
        write(f"{anat}_dseg", truth / "sub-01_dseg.nii.gz", fine=True, numbers=[0, 2, 1, 3])  # GM, WM, CSF
    labels = nib.load(out / "sub-01/anat/sub-01_space-ACPC_dseg.nii.gz")
    of_freesurfer = np.array([0, 3, 2, 4], dtype=np.int16)[np.asarray(labels.dataobj, dtype=int)]
    right = np.arange(labels.shape[0]) < labels.shape[0] // 2  # the first axis points left
    of_freesurfer[right] = np.array([0, 0, 41, 42, 43], dtype=np.int16)[of_freesurfer[right]]
    out.nifti("sub-01/anat/sub-01_space-ACPC_desc-aseg_dseg.nii.gz", of_freesurfer, labels.affine)
    return out


@pytest.fixture(scope="session")
def finished(phantom, tmp_path_factory):
    """A copy of the phantom with the outputs of a run in its derivatives: (dataset, outputs). Read only."""
    from bidsfit.cli.app import main

    root = tmp_path_factory.mktemp("finished") / "ds"
    shutil.copytree(phantom, root)
    out = root / "derivatives" / "bidsfit"
    words = [
        root,
        out,
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"truth={root / 'derivatives' / 'truth'}",
        "--nprocs",
        "1",
    ]
    assert main([str(word) for word in words]) == 0
    return root, out


#: The smallest pictures.
BLANK = {
    ".png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
    ),
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
}


@pytest.fixture(scope="session")
def _functions_that_draw():
    """Places of functions that write a figure: (module, name)."""
    from bidsfit import interfaces, reports, workflows

    # All are imported now: one that is imported while a function is replaced would keep the replacement.
    for package in (reports, interfaces, workflows):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    return [
        (module, name)
        for place, module in list(sys.modules.items())
        if place.startswith("bidsfit.")
        for name, value in list(vars(module).items())
        if name.startswith("plot_") and hasattr(value, "__wrapped__")
    ]


@pytest.fixture(scope="session")
def without_figures(_functions_that_draw):
    """``with without_figures():`` figures are written and are blank, in runs inside this process."""

    def draw(path, *_, **__):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BLANK[path.suffix])
        return path

    @contextmanager
    def blank():
        with pytest.MonkeyPatch.context() as patch:
            for module, name in _functions_that_draw:
                patch.setattr(module, name, draw)
            yield

    return blank


@pytest.fixture
def blank_figures(without_figures):
    """Blank figures, for tests that do not look at them."""
    with without_figures():
        yield


def files_below(folder):
    """All files below a folder with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def unchanged():
    """``with unchanged(folder):`` fails where a file below it appeared, went or changed."""
    from contextlib import contextmanager

    @contextmanager
    def check(folder):
        before = files_below(folder)
        yield
        assert files_below(folder) == before

    return check


#: What tells one run from another: times, voxels a second, its identifier and command. The time that a training took is
#: in the file of the estimator, and thus shapes its checksum.
TIMES = (
    r"\"Seconds\": [\d.]+|The training took [\d.]+ s|\"Checksum\": \"[0-9a-f]{64}\"|"
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+\d:]*|\d{4}-\d\d-\d\d \d\d:\d\d UTC|\"seconds\": [\d.e-]+"
    r"|[\d.]+ s(?=</)|[\d,]+</td></tr>|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|bidsfit /[^<\"]*"
)


class Outputs:
    """The output folder of a run."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def files(self):
        """Every file but those of the work folder; the name of a run's log folder is ``<run>``."""
        paths = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()]
        return sorted(re.sub("/log/[^/]+/", "/log/<run>/", path) for path in paths if not path.startswith("work/"))

    def maps(self):
        """Content of every map, by name."""
        return {p.name: p.read_bytes() for p in sorted(self.folder.rglob("*_dwimap.nii.gz"))}

    def told(self):
        """Content of every file without what tells one run from another; logs and hidden files are left out."""
        names = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()]
        kept = [name for name in names if "/log/" not in name and "/." not in f"/{name}"]
        found = {}
        for name in kept:
            if name.endswith(".zip"):  # a trained estimator
                with zipfile.ZipFile(self.folder / name) as parts:
                    found |= {f"{name}/{part}": parts.read(part) for part in parts.namelist()}
            else:
                found[name] = (self.folder / name).read_bytes()
        apart = re.compile(TIMES + "|" + re.escape(str(self.folder.parent)) + r"[^ \"<>]*")
        texts = (".json", ".html", ".md", ".bib", ".tsv", "README")
        return {name: apart.sub("", text.decode()) if name.endswith(texts) else text for name, text in found.items()}

    def path(self, name):
        (path,) = self.folder.rglob(f"{name}.nii.gz")
        return path

    def image(self, name):
        return nib.load(self.path(name))

    def data(self, name):
        return np.asarray(self.image(name).dataobj)

    def sidecar(self, name):
        return json.loads(Path(str(self.path(name)).replace(".nii.gz", ".json")).read_text())

    def report(self, label="01"):
        return (self.folder / f"sub-{label}.html").read_text()

    def description(self):
        return json.loads((self.folder / "dataset_description.json").read_text())


@pytest.fixture
def outputs():
    """``outputs(folder)``: what lies in an output folder."""
    return Outputs


@pytest.fixture
def valid():
    """``valid(root)``: the BIDS validator, with the terms of maps of models, ran and found no error in a dataset."""

    from bidsfit.bids.validation import errors_of

    def check(root):
        assert errors_of(root, extended=True) == []
        return True

    return check


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    """``run_in(interface)``: its outputs; files go to ``tmp_path/node``."""

    def run(interface):
        folder = tmp_path / "node"
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        return interface.run(cwd=str(folder)).outputs

    return run
