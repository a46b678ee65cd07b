"""From an anatomy to tissues on the grid of a diffusion image, in files."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.anatomy import Anatomy
from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import Folder
from bidsfit.bids.tissues import tissue_mask
from bidsfit.phantom.head import draw_tissue
from bidsfit.phantom.tissue import TISSUES as PHANTOM
from bidsfit.preprocessing.tissue import OTHER, TISSUES
from bidsfit.steps.tissue import SegmentTissue

#: Grid of the head and its voxels (mm); those of the diffusion image are twice as long, of a few slices.
SHAPE, VOXEL, SLICES = (48, 48, 28), 5.0, slice(4, 8)

SHIFT = (3.0, -4.0, 2.0)

#: Numbers of the tissues in FreeSurfer's segmentation, for this test.
FREESURFER = {"GM": 3, "WM": 41, "CSF": 24}


class Head:
    """Files of a simulated head whose diffusion image has moved by `SHIFT`."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        rng = np.random.default_rng(0)
        phantom = draw_tissue(SHAPE, VOXEL, rng)
        self.tissue = np.zeros(SHAPE, dtype=np.uint8)
        t1w, b0 = np.zeros(SHAPE), np.zeros(SHAPE)
        for name, bright, at_b0 in (("GM", 0.7, 0.5), ("WM", 1.0, 0.35), ("CSF", 0.3, 1.0)):
            where = phantom == PHANTOM[name]
            self.tissue[where], t1w[where], b0[where] = TISSUES[name], bright, at_b0
        x, y, z = (n // 2 for n in SHAPE)

        def coarse(volume):
            return volume.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))[:, :, SLICES]

        self.fractions = np.stack([coarse(self.tissue == number) for number in TISSUES.values()], axis=-1)
        self.affine = np.diag([VOXEL] * 3 + [1.0])
        self.affine[:3, 3] = -VOXEL * (np.array(SHAPE) - 1) / 2
        there = np.diag([2.0, 2, 2, 1])
        there[:3, 3] = (0.5, 0.5, 0.5 + 2 * SLICES.start)
        self.reference_affine = self.affine @ there
        self.head_affine = self.affine.copy()
        self.head_affine[:3, 3] += SHIFT
        self.t1w = self.save("T1w.nii.gz", t1w + rng.normal(0, 0.05, SHAPE), self.head_affine)
        reference = np.abs(coarse(b0) + rng.normal(0, 0.02, self.fractions.shape[:3]))
        self.reference = self.save("reference.nii.gz", reference, self.reference_affine)
        self.mask = self.save("mask.nii.gz", self.fractions.sum(axis=-1) > 0.5, self.reference_affine)

    def save(self, name, data, affine):
        path = self.folder / name
        kind = nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image
        dtype = np.uint8 if data.dtype == bool else np.float32
        nib.save(kind(data.astype(dtype), affine), path)
        return path


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return Head(tmp_path_factory.mktemp("heads") / "head")


@pytest.fixture
def segment(head, run_in):
    """``segment(kind, segmentation)``: outputs and facts."""

    def run(kind="none", segmentation=(), t1w="the head", reference=None, **options):
        head_path = head.t1w if t1w == "the head" else t1w
        anatomy = Anatomy(head_path, tuple(segmentation), kind, ("bids:raw:T1w",), "the image T1w.nii.gz", **options)
        node = SegmentTissue(reference=str(reference or head.reference), mask=str(head.mask), anatomy=anatomy.to_dict())
        outputs = run_in(node)
        with open(outputs.facts) as file:
            return outputs, json.load(file)

    return run


def dice(head, outputs):
    found = nib.load(outputs.dseg).get_fdata()
    return [
        2 * np.sum((found == number) & (part > 0.7)) / (np.sum(found == number) + np.sum(part > 0.7))
        for number, part in zip(TISSUES.values(), np.moveaxis(head.fractions, -1, 0), strict=True)
    ]


def freesurfer(head, name="aseg.mgz"):
    numbers = np.zeros(OTHER + 1)
    for tissue, number in TISSUES.items():
        numbers[number] = FREESURFER[tissue]
    return head.save(name, numbers[head.tissue], head.head_affine)


def probabilities(head):
    return [
        head.save(f"label-{name}_probseg.nii.gz", np.float32(head.tissue == number), head.head_affine)
        for name, number in TISSUES.items()
    ]


def labels(head):
    return head.save("dseg.nii.gz", head.tissue, head.head_affine)


@pytest.mark.parametrize("kind", ["none", "freesurfer", "probseg", "dseg"])
def test_tissues_of_a_slab_that_moved(segment, head, kind):
    files = {"none": list, "freesurfer": lambda: [freesurfer(head)], "dseg": lambda: [labels(head)]}
    files["probseg"] = lambda: probabilities(head)
    named = {name: [number] for name, number in TISSUES.items()} if kind == "dseg" else {}
    outputs, facts = segment(kind, files[kind](), labels=named)
    assert facts["refused"] is None
    assert min(dice(head, outputs)[:2]) > 0.93
    np.testing.assert_allclose(np.array(facts["transform"])[:3, 3], SHIFT, atol=1)
    assert facts["alignment"]["gain"] > 1.4
    tissue = nib.load(outputs.dseg)
    assert facts["voxels"] == {
        name: int(np.sum(tissue.get_fdata() == number)) for name, number in [*TISSUES.items(), ("OTHER", OTHER)]
    }
    assert facts["millilitres"]["WM"] == pytest.approx(head.fractions[..., 1].sum(), rel=0.1)  # voxels of 1 ml
    np.testing.assert_allclose(tissue.affine, head.reference_affine)
    assert not tissue.get_fdata()[nib.load(head.mask).get_fdata() == 0].any()
    words = "hidden Markov random field" if kind == "none" else "Tissues were taken from"
    assert words in facts["method"]
    assert "rigid registration with mutual information" in facts["method"]
    t1w = nib.load(outputs.pictures).get_fdata()
    white = tissue.get_fdata() == TISSUES["WM"]
    assert np.median(t1w[white]) == pytest.approx(1, abs=0.05)


def test_what_lies_on_the_image_is_not_moved(segment, head):
    outputs, facts = segment(
        "freesurfer",
        [head.save("aligned.mgz", nib.load(freesurfer(head)).get_fdata(), head.affine)],
        t1w=None,
        aligned=True,
    )
    assert min(dice(head, outputs)) > 0.99
    assert "transform" not in facts
    assert "which lies on the diffusion image" in facts["method"]


def test_the_group_level_finds_them(segment, head, tmp_path):
    outputs, _ = segment("dseg", [labels(head)], labels={name: [number] for name, number in TISSUES.items()})
    folder = tmp_path / "outputs"
    path = folder / "sub-01" / "ses-1" / "dwi" / "sub-01_ses-1_acq-a_desc-tissue_dseg.nii.gz"
    path.parent.mkdir(parents=True)
    shutil.copyfile(outputs.dseg, path)
    shutil.copyfile(outputs.table, folder / "desc-tissue_dseg.tsv")
    like = open_image(head.reference)
    for name, tissue in (("WM", "wm"), ("GM", "gm")):
        mask, uri = tissue_mask([Folder("", folder)], "sub-01_ses-1_acq-a", like, head.reference, tissue)
        np.testing.assert_array_equal(mask, nib.load(outputs.dseg).get_fdata() == TISSUES[name])
        assert uri == f"bids::sub-01/ses-1/dwi/{path.name}"
    with open(outputs.table, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "12"]
    assert [row["mapping"] for row in rows] == ["0", "1", "2", "3", "n/a"]


# --- what cannot be trusted is refused, with a reason ----------------------------------------------------------------


def refused(outputs, facts):
    assert not outputs.dseg
    assert not outputs.table
    assert facts["refused"].startswith("The image T1w.nii.gz was not used: ")
    return facts["refused"]


def test_an_image_of_something_else(segment, head):
    noise = head.save("noise.nii.gz", np.random.default_rng(2).normal(1, 0.1, SHAPE), head.head_affine)
    outputs, facts = segment(t1w=noise)
    assert "it does not lie on the diffusion image" in refused(outputs, facts)
    assert facts["alignment"]["failed"]


def test_a_slab_elsewhere(segment, head):
    far = head.head_affine.copy()
    far[2, 3] += 300
    elsewhere = head.save("far.nii.gz", nib.load(head.t1w).get_fdata(), far)
    assert "a slab of 40 mm that lies outside" in refused(*segment(t1w=elsewhere))


def test_a_damaged_image(segment, tmp_path):
    path = tmp_path / "T1w.nii.gz"
    path.write_bytes(b"nothing")
    assert f"{path} cannot be read as NIfTI" in refused(*segment(t1w=path))


@pytest.mark.parametrize("content", ["zeros", "nan", "cut short"])
def test_an_image_without_a_head(segment, head, content):
    values = {"zeros": 0.0, "nan": np.nan}.get(content, 1.0)
    path = head.save(f"{content.replace(' ', '-')}.nii.gz", np.full(SHAPE, values), head.head_affine)
    if content == "cut short":
        path.write_bytes(path.read_bytes()[:-200])
    refused(*segment(t1w=path))


def test_several_volumes(segment, head):
    path = head.save("series.nii.gz", np.ones((4, 4, 4, 2)), np.eye(4))
    assert "expected one volume" in refused(*segment(t1w=path))


def test_probabilities_of_different_shapes(segment, head):
    files = [*probabilities(head)[:2], head.save("other.nii.gz", np.ones((4, 4, 4)), head.head_affine)]
    assert "has shape (4, 4, 4), but" in refused(*segment("probseg", files, aligned=True, t1w=None))


def test_a_segmentation_without_tissue(segment, head):
    path = head.save("empty.nii.gz", np.zeros(SHAPE), head.head_affine)
    named = {name: [number] for name, number in TISSUES.items()}
    assert "no voxel of the mask is filled" in refused(*segment("dseg", [path], labels=named, aligned=True, t1w=None))
