"""Whatever the files of an image hold: they are read as others read them, or refused; there is no wrong map.

Of every example the image, its mask, b-values, directions and sidecar are made anew, sound or broken, by fields of
headers, by words of texts, or by bytes. Beside them lies a sound participant. What must hold:

- planning never ends in an error, and the other participant is always planned;
- what comes after ends in an error of bidsfit's own, or in maps, and soon;
- what is read is what nibabel and NumPy read of the same files, every number of them finite where it must be, and a
  packed image is one that gzip unpacks without complaint to no more and no less than its header tells;
- an image whose bytes were changed after it was packed is refused, or has the values that it had;
- maps of the values that were packed at the b-values that were meant are the true ones;
- what is sound is fitted.
"""

import gzip
import io
import json
import signal
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bidsfit.acquisition import LARGEST_B, LONGEST_DIRECTION, Acquisition
from bidsfit.bids.helping_images import find_helping_images
from bidsfit.bids.images import open_image, opened, read_data
from bidsfit.bids.inputs import choose_participants, find_images, open_dataset
from bidsfit.bids.participants import read_participants
from bidsfit.cohort.sessions import read_sessions
from bidsfit.estimators.estimator import Status
from bidsfit.exceptions import BidsfitError
from bidsfit.fitting import FitResult
from bidsfit.interfaces.fit import FitImage
from bidsfit.interfaces.image import PrepareImage
from bidsfit.noise import repeats
from bidsfit.planning.fits import make_fits
from bidsfit.planning.plan import make_plan
from bidsfit.run.description import describe_plan, summarise_plan
from bidsfit.steps.step import PreprocessingChoice

#: Each example has a limit of its own, which takes the same signal.
pytestmark = pytest.mark.timeout(0)

#: Seconds an example may take; an endless loop, or waiting, is found so.
LIMIT = 60

B_VALUES = np.array([0, 0, 300, 600, 1000.0])
DIRECTIONS = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]).T
SHAPE = (3, 4, 2)
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 2, 0, -8], [0, 0, 3, 4], [0, 0, 0, 1]])
S0 = 1000.0 + np.arange(24).reshape(SHAPE)
SIGNALS = S0[..., None] * np.exp(-B_VALUES * 1e-3)

FIELDS = ("EchoTime", "BodyPart", "BodyPartExamined", "PhaseEncodingDirection", "TotalReadoutTime", "ReconMatrixPE")
FIELDS += ("EffectiveEchoSpacing", "SliceEncodingDirection", "PartialFourier", "B0FieldSource", "IntendedFor", "Other")
FIELDS += ("Preprocessing",)

WORDS = (
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e400",
    "-1",
    "-0",
    "5e-324",
    "0,5",
    "b0",
    "",
    "1_0",
    "9" * 400,
    "\x00",
    "1.29",
)


class Made(NamedTuple):
    """Bytes of a file; whether it is sound; whether packed bytes were changed behind the back of gzip."""

    content: bytes
    sound: bool = True
    damaged: bool = False


# --- strategies -----------------------------------------------------------------------------------------------------

odd_floats = st.sampled_from([0, -1, 2, np.nan, np.inf, -np.inf, 1e-30, 1e30, 3e38, 1e-45, 352]) | st.floats(width=32)
dimensions = st.sampled_from([-32768, -1, 0, 1, 2, 3, 4, 5, 7, 8, 32767])
HEADER = {
    "dim": st.lists(dimensions, min_size=8, max_size=8) | st.permutations([4, 3, 4, 2, 5, 1, 1, 1]),
    "datatype": st.sampled_from(
        [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 77]
    ),
    "bitpix": st.sampled_from([0, 8, 16, 32, 64, -1]),
    "pixdim": st.lists(odd_floats, min_size=8, max_size=8),
    "magic": st.sampled_from([b"n+1", b"ni1", b"n+2", b"", b"abc"]),
    "sizeof_hdr": st.sampled_from([348, 540, 0, -1]),
    "xyzt_units": st.integers(0, 255),
    **dict.fromkeys(("srow_x", "srow_y", "srow_z"), st.lists(odd_floats, min_size=4, max_size=4)),
    **dict.fromkeys(("vox_offset", "scl_slope", "scl_inter"), odd_floats),
    **dict.fromkeys(
        ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_z", "cal_max", "toffset"), odd_floats
    ),
    **dict.fromkeys(("qform_code", "sform_code", "intent_code", "slice_code"), st.integers(-2, 120)),
}


@st.composite
def bytes_changed(draw, content):
    """Bits flipped, an end cut off or added, a part overwritten, or other bytes altogether."""
    how = draw(st.sampled_from(["flip", "flip", "cut", "add", "overwrite", "other"]))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "flip" and content:
        changed = bytearray(content)
        for bit in draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=4)):
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)
    if how == "cut":
        return content[:place]
    some = draw(st.binary(min_size=1, max_size=60))
    if how == "other":
        return some
    return content + some if how == "add" else content[:place] + some + content[place + len(some) :]


@st.composite
def images(draw, data, packed):
    """A NIfTI file of the data, as one of many programs would write it, or broken."""
    dtype = draw(st.sampled_from(["<f4", ">f4", "<f8", "<i2", ">i2"]))
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    header.set_data_shape((*data.shape, *[1] * draw(st.integers(0, 2))) if data.ndim == 4 else data.shape)
    header.set_sform(AFFINE, code=draw(st.integers(1, 4)))
    header.set_qform(AFFINE, code=draw(st.integers(0, 4)))
    offset = draw(st.sampled_from([352, 368, 416]))
    slope = 0.05 if dtype.endswith("i2") else 1.0
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, 0, offset, b"n+1"
    fields = draw(st.dictionaries(st.sampled_from(sorted(HEADER)), st.none(), max_size=2))
    for name in fields:
        header[name] = draw(HEADER[name])
    stored = np.asarray(data) / slope
    stored = (np.round(stored) if dtype.endswith("i2") else stored).astype(dtype)
    content = header.binaryblock + bytes(offset - 348) + stored.tobytes(order="F")
    where = draw(st.sampled_from(["nowhere", "nowhere", "inside", "outside"]))
    if where == "inside":
        content = draw(bytes_changed(content))
    if packed:
        parts = draw(st.sampled_from([[content], [content[:300], content[300:]]]))
        content = b"".join(gzip.compress(part, 1, mtime=0) for part in parts) + bytes(
            draw(st.sampled_from([0, 0, 512]))
        )
    if where == "outside":
        content = draw(bytes_changed(content))
    sound = not fields and where == "nowhere"
    return Made(content, sound, damaged=packed and not fields and where == "outside")


@st.composite
def tables(draw, rows):
    """A .bval or .bvec file, as programs write it, or broken."""
    blank, end = draw(st.sampled_from([(" ", "\n"), ("\t", "\r\n"), ("  ", " \n\n"), (",", "\n"), (", ", "\n")]))
    words = [[f"{value:g}" for value in row] for row in (rows.T if draw(st.booleans()) else rows)]
    sound = True
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        sound = False
        line = words[draw(st.integers(0, len(words) - 1))]
        place = draw(st.integers(0, max(len(line) - 1, 0)))
        line[place : place + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(WORDS), max_size=2))
    text = draw(st.sampled_from(["", "\ufeff"])) + end.join(blank.join(line) for line in words) + end
    content = text.encode()
    if draw(st.sampled_from([False, False, False, True])):
        sound = False
        content = draw(bytes_changed(content) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
    return Made(content, sound)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["j", "j-", "HEAD"]),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=6,
)


@st.composite
def sidecars(draw):
    """Metadata whose fields hold anything, or no JSON at all."""
    text = json.dumps(draw(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5)))
    how = draw(st.sampled_from(["plain", "plain", "plain", "deep", "long", "surrogate", "bytes"]))
    deep = draw(st.sampled_from([30, 60, 900, 100_000]))
    odd = {
        "deep": f'{{"Other": {"[" * deep}{"]" * deep}}}',
        "long": f'{{"EchoTime": {"9" * deep}}}',
        "surrogate": '{"BodyPart": "\\ud800", "\\udfff": 1}',
    }
    content = odd.get(how, text).encode()
    return Made(draw(bytes_changed(content)), sound=False) if how == "bytes" else Made(content, sound=how == "plain")


@st.composite
def participants(draw):
    """The files of a participant, of which one or two are drawn anew."""
    packed = draw(st.booleans())
    image = f"dwi.nii{'.gz' if packed else ''}"
    kinds = {
        image: images(SIGNALS, packed),
        "dwi.bval": tables(B_VALUES[None]),
        "dwi.bvec": tables(DIRECTIONS),
        "dwi.json": sidecars(),
        "desc-brain_mask.nii.gz": images(np.ones(SHAPE), packed=True),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=2, unique=True))
    sound = {image: Made(plain(SIGNALS, packed)), **{name: SOUND[name] for name in kinds if name in SOUND}}
    return sound | {name: draw(kinds[name]) for name in chosen}


def plain(data, packed):
    image = nib.Nifti1Image(data.astype(np.float32), AFFINE)
    content = io.BytesIO(image.to_bytes()).getvalue()
    return gzip.compress(content, 1) if packed else content


def text_of(rows):
    file = io.BytesIO()
    np.savetxt(file, rows, fmt="%g")
    return file.getvalue()


SOUND = {
    "dwi.nii.gz": Made(plain(SIGNALS, packed=True)),
    "dwi.bval": Made(text_of(B_VALUES[None])),
    "dwi.bvec": Made(text_of(DIRECTIONS)),
    "desc-brain_mask.nii.gz": Made(plain(np.ones(SHAPE), packed=True)),
}


# --- what must hold -------------------------------------------------------------------------------------------------


@contextmanager
def time_limit(seconds=LIMIT):
    def stop(*_):
        raise TimeoutError(f"It took longer than {seconds} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_participant(root, masks, label, files):
    for name, made in files.items():
        folder = (masks if "mask" in name else root) / f"sub-{label}" / "dwi"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"sub-{label}_{name}").write_bytes(made.content)


FITS = make_fits(["adc"])


def plans_of(root, masks):
    """The plans of both participants, without and with preprocessing."""
    raw, derivatives = open_dataset(root, "raw"), [open_dataset(masks, "masks")]
    labels = choose_participants(root, ())
    inputs = find_images(raw, derivatives, labels)
    for choice in (PreprocessingChoice(), None):
        helping = find_helping_images(raw, derivatives, inputs)
        out = root.parent / "out"
        plans = make_plan(inputs, labels, FITS, output_dir=out, preprocessing=choice, helping_images=helping)
        assert describe_plan(plans, out)
        assert isinstance(summarise_plan(plans), str)
    return plans


def fit(image, folder):
    """Maps of an image that is fitted as it is, by the nodes that do so."""
    given = {"in_file": str(image.path), "bval": str(image.bval), "bvec": str(image.bvec), "sidecar": image.sidecar}
    prepared = PrepareImage(**given, in_mask=str(image.mask), models=["adc"]).run(cwd=str(folder)).outputs
    found = {"mask": prepared.mask, "facts": prepared.facts}
    own = {"image": image.to_dict(), "mask_name": image.mask_uri, "output_dir": str(folder), "methods": ["", ""]}
    fitted = FitImage(**given, **found, **own, model="adc", estimator="lsq", options={}).run(cwd=str(folder)).outputs
    result = FitResult.load(Path(fitted.result))
    mask = np.asanyarray(nib.load(found["mask"]).dataobj) > 0
    return {key: result.volume(key, mask) for key in result.values}


def reference(path):
    """What nibabel reads of an image; a packed one must be whole to the last byte, and no file may be too long."""
    image = nib.load(path)
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    assert len(content) == image.dataobj.offset + np.prod(image.shape) * image.get_data_dtype().itemsize
    assert min(image.shape) > 0
    assert np.isfinite([image.dataobj.slope, image.dataobj.inter]).all()
    assert np.isfinite(image.affine).all()
    assert np.linalg.matrix_rank(image.affine[:3, :3]) == 3
    return np.asanyarray(image.dataobj)


def numbers(content):
    """Rows of the numbers of a text."""
    lines = content.decode("utf-8-sig").replace(",", " ").splitlines()
    return np.array([line.split() for line in lines if line.split()], dtype=float)


def check(files):
    with TemporaryDirectory() as name:
        root, masks, node = Path(name, "ds"), Path(name, "masks"), Path(name, "node")
        for folder, about in ((root, {}), (masks, {"DatasetType": "derivative"})):
            folder.mkdir()
            (folder / "dataset_description.json").write_text(json.dumps({"Name": "a", "BIDSVersion": "1.10.0"} | about))
        node.mkdir()
        write_participant(root, masks, "01", files)
        write_participant(root, masks, "02", SOUND)
        plan, other = plans_of(root, masks)
        assert len(other.images) == 1
        assert other.problems == []
        assert len(plan.images) + len(plan.problems) >= 1
        sound = all(made.sound for made in files.values())
        assert plan.images or not sound, plan.problems
        for image_plan in plan.images:
            image = image_plan.image
            json.dumps(image.sidecar, allow_nan=False, ensure_ascii=False).encode()
            try:
                data = read_data(open_image(image.path), image.path)
                maps = fit(image, node)
            except BidsfitError:
                assert not sound
                continue
            judge(files, image_plan, data, maps, sound)


def judge(files, plan, data, maps, sound):
    """What was read is in the files, and the maps are those of what was read."""
    image = plan.image
    np.testing.assert_array_equal(data, reference(image.path))
    with TemporaryDirectory() as scratch:
        np.testing.assert_array_equal(data, read_data(opened(image.path, scratch), image.path))
    acquisition = plan.acquisition
    np.testing.assert_array_equal(acquisition.b_values, numbers(files["dwi.bval"].content).ravel())
    directions = numbers(files["dwi.bvec"].content)
    directions = directions if directions.shape == (5, 3) else directions.T
    known = ~np.isnan(directions).any(axis=1)
    np.testing.assert_array_equal(acquisition.directions, np.where(known[:, None], directions, 0))
    assert np.all((acquisition.b_values >= 0) & (acquisition.b_values <= LARGEST_B))
    assert np.all(np.abs(acquisition.directions) <= LONGEST_DIRECTION)
    for values in acquisition.columns.values():
        assert np.all((values >= 0) & np.isfinite(values))
    reference(image.mask)
    as_packed = data.size == SIGNALS.size and np.allclose(data.reshape(SIGNALS.shape, order="F"), SIGNALS, atol=0.03)
    as_meant = np.array_equal(acquisition.b_values, B_VALUES)
    assert as_packed or not (sound or files[image.path.name[7:]].damaged)
    assert as_meant or not sound
    good = maps["status"] == Status.CONVERGED
    assert all(np.isfinite(maps[name][good]).all() for name in ("D", "S0"))
    if as_packed and as_meant:
        np.testing.assert_allclose(maps["D"].reshape(SHAPE)[good.reshape(SHAPE)], 1, rtol=2e-3)
        np.testing.assert_allclose(maps["S0"].reshape(SHAPE)[good.reshape(SHAPE)], S0[good.reshape(SHAPE)], rtol=1e-3)
    if sound:
        assert good.all()


PHASES = (Phase.generate, Phase.shrink)
CHECKS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": PHASES,
    "suppress_health_check": list(HealthCheck),
}
MANY = pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.slow)])


@MANY
@pytest.mark.usefixtures("blank_figures")
@pytest.mark.filterwarnings("ignore")  # of numbers out of range, where the files hold such
def test_files_of_an_image(examples):
    check(SOUND)  # compiles what fits, which takes longer than the limit where all processors are busy

    def example(files):
        with time_limit():
            check(files)

    settings(max_examples=examples, **CHECKS)(given(participants())(example))()


@MANY
def test_tables_of_participants_and_sessions(examples, tmp_path):
    """They are read as text of rows, or refused."""
    (tmp_path / "sub-01").mkdir()
    valid = b"participant_id\tgroup\nsub-01\tcontrol\nsub-02\tpatient\n"

    def read(content):
        (tmp_path / "participants.tsv").write_bytes(content)
        (tmp_path / "sub-01/sub-01_sessions.tsv").write_bytes(content.replace(b"participant", b"session"))
        for call in (lambda: read_participants(tmp_path), lambda: read_sessions(tmp_path, "01").values()):
            try:
                rows = call()
            except BidsfitError:
                continue
            assert all(isinstance(cell, str) for row in rows for pair in row.items() for cell in pair)

    contents = bytes_changed(valid) | st.text("\t\n\r\"'\x00 sub-01ä", max_size=60).map(str.encode)
    settings(max_examples=examples, **CHECKS)(given(contents)(read))()


@MANY
@pytest.mark.filterwarnings("ignore")
def test_acquisitions_made_in_python(examples):
    """Numbers that cannot be are refused; all else has shells and repeats, each measurement in one of them."""
    number = st.floats() | st.sampled_from([0.0, 1.29, 500.0, 1000.0])

    def make(values):
        table = np.array(values)
        try:
            acquisition = Acquisition(table[:, 0], directions=table[:, 1:4], TE=table[:, 4])
        except ValueError:
            return
        with time_limit():
            for groups in ([shell.indices for shell in acquisition.shells], repeats(acquisition)):
                assert sorted(np.concatenate(groups).tolist()) == list(range(len(table)))

    rows = st.lists(st.tuples(*[number] * 5), min_size=1, max_size=6)
    settings(max_examples=examples, **CHECKS)(given(rows)(make))()
