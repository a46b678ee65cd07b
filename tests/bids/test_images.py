"""Reading images and masks as they come."""

import gzip
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids import images
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_data, read_mask, same_grid
from bidsfit.exceptions import UnusableInputError


def read_signals(path, mask=None, n_volumes=5):
    image = open_image(path)
    shape = image_shape(image, n_volumes, path)
    mask = np.ones(shape[:3], dtype=bool) if mask is None else mask
    return MaskedSignals(image, shape, mask, path)


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_stored_numbers(tiny, extension, dtype):
    data = (np.arange(450).reshape(5, 6, 3, 5) % 200).astype(dtype)
    path = tiny.nifti(f"image{extension}", data)
    np.testing.assert_array_equal(read_signals(path)[:], data.reshape(-1, 5, order="F"))


def test_big_endian(tiny):
    data = tiny.signals().astype(">f4")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    nib.save(nib.Nifti1Image(data, tiny.AFFINE, header), tiny / "big.nii")
    assert open_image(tiny / "big.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_signals(tiny / "big.nii")[:], data.reshape(-1, 5, order="F"))


def test_slope_and_intercept(tiny):
    image = nib.Nifti1Image(np.arange(450, dtype=np.int16).reshape(5, 6, 3, 5), tiny.AFFINE)
    image.header.set_slope_inter(0.25, -7)
    nib.save(image, tiny / "scaled.nii.gz")
    signals = read_signals(tiny / "scaled.nii.gz")
    expected = np.asarray(nib.load(tiny / "scaled.nii.gz").get_fdata()).reshape(-1, 5, order="F")
    assert expected.min() < 0  # the scaling was applied
    np.testing.assert_allclose(signals[:], expected)
    np.testing.assert_allclose(signals.volume(2), expected[:, 2])


def test_signals_are_the_masked_voxels_and_go_back_to_their_place(tiny):
    path = tiny.nifti("image.nii.gz", tiny.signals())
    mask = np.random.default_rng(3).random(tiny.SHAPE) > 0.5
    signals = read_signals(path, mask)
    assert signals.shape == (mask.sum(), 5)
    volume = signals.place(signals[:][:, 0], mask, outside=-1)
    np.testing.assert_array_equal(volume[mask], tiny.signals()[mask][:, 0])
    assert np.all(volume[~mask] == -1)
    np.testing.assert_array_equal(signals[slice(3, 9)], signals[:][3:9])


def test_uncompressed_images_are_mapped_from_disk(tiny):
    path = tiny.nifti("image.nii", np.ones((20, 20, 20, 60), np.float32))
    tracemalloc.start()
    signals = read_signals(path, n_volumes=60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4
    assert signals[:].shape == (8000, 60)


@pytest.mark.parametrize(
    ("stored", "n_volumes", "shape"),
    [
        ((5, 6, 3, 4), 4, (5, 6, 3, 4)),
        ((5, 6, 1, 4), 4, (5, 6, 1, 4)),
        ((5, 6, 4), 4, (5, 6, 1, 4)),  # one slice, its volumes in the third dimension
        ((5, 6, 3), 1, (5, 6, 3, 1)),
        ((5, 6, 3, 4, 1, 1), 4, (5, 6, 3, 4)),
    ],
)
def test_shapes(tmp_path, stored, n_volumes, shape):
    nib.save(nib.Nifti1Image(np.zeros(stored, dtype=np.int16), np.eye(4)), tmp_path / "a.nii")
    assert image_shape(open_image(tmp_path / "a.nii"), n_volumes, tmp_path / "a.nii") == shape


@pytest.mark.parametrize(
    ("stored", "n_volumes"), [((5, 6, 3, 4), 5), ((5, 6, 3), 4), ((5, 6, 3, 4, 2), 4), ((5, 6), 6)]
)
def test_shapes_that_cannot_be(tmp_path, stored, n_volumes):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros(stored, dtype=np.int16), np.eye(4)), path)
    with pytest.raises(UnusableInputError, match=str(path)):
        image_shape(open_image(path), n_volumes, path)


@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_truncated(tiny, extension, kept):
    """Cut in the header, or in the data."""
    path = tiny.nifti(f"image{extension}", np.random.default_rng(0).random((20, 20, 5, 5)))
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept != 0.5 else len(content) // 2])
    with pytest.raises(UnusableInputError, match=rf"{path} cannot be read.*truncated"):
        read_signals(path)


def read_low_memory(path):
    image = opened(path, str(path.parent / "scratch"))
    assert isinstance(image.dataobj.get_unscaled(), np.memmap)
    data = np.array(read_data(image, path))
    (path.parent / "scratch" / path.stem).unlink()  # or one made within the same tick of the clock counts as this one
    return data


def read_in_memory(path):
    return read_data(open_image(path), path)


def read_as_signals(path):
    return read_signals(path)[:].reshape(5, 6, 3, 5, order="F")


WAYS = [read_in_memory, read_low_memory, read_as_signals]


def test_a_copy_is_made_once_and_again_when_the_image_changes(tiny, monkeypatch):
    path, scratch = tiny.nifti("image.nii.gz", np.ones((4, 3, 2, 5))), str(tiny / "scratch")
    opened(path, scratch)
    with monkeypatch.context() as patch:
        patch.setattr(images, "open_packed", None)
        np.testing.assert_array_equal(read_data(opened(path, scratch), path), 1)
    tiny.nifti("image.nii.gz", 2 * np.ones((4, 3, 2, 5)))
    os.utime(path, (10, 10))
    np.testing.assert_array_equal(read_data(opened(path, scratch), path), 2)


def test_scaled_data_of_another_type(tiny):
    image = nib.Nifti1Image(np.random.default_rng(0).random((4, 3, 2, 5)), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tiny / "image.nii")
    found = open_image(tiny / "image.nii")
    assert found.dataobj.slope != 1
    values = read_data(found, tiny / "image.nii", np.float32)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, read_data(found, tiny / "image.nii").astype(np.float32))


@pytest.mark.parametrize("read", WAYS)
def test_flipped_bits(tiny, read):
    """What gzip's checksum tells is refused; what it does not cover (name and time of the file) changes nothing."""
    data = np.random.default_rng(5).integers(0, 2000, (5, 6, 3, 5)).astype(np.int16)
    path = tiny.nifti("image.nii.gz", data)
    whole = path.read_bytes()
    rng = np.random.default_rng(6)
    said = []
    for bit in rng.choice(8 * len(whole), 300, replace=False):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found = read(path)
        except UnusableInputError as error:
            said.append(str(error))
        else:
            np.testing.assert_array_equal(found, data)
    assert len(said) > 280
    assert all(str(path) in words for words in said)
    assert list((tiny / "scratch").glob("*")) == []


@pytest.mark.parametrize("read", WAYS)
def test_a_checksum_that_does_not_match(tiny, read):
    path = tiny.nifti("image.nii.gz", tiny.signals())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnusableInputError, match=rf"{path} is damaged: its checksum does not match"):
        read(path)


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content + b"garbage", "cannot be read to its end"),
        (lambda content: content[:-4], "truncated"),
        (lambda content: gzip.compress(gzip.decompress(content) + bytes(4)), "holds more than the 2152 bytes"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-4]), "4 bytes of its data are missing"),
    ],
)
def test_too_much_or_too_little(tiny, read, spoil, said):
    path = tiny.nifti("image.nii.gz", tiny.signals())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UnusableInputError, match=f"{path}.*{said}"):
        read(path)


@pytest.mark.parametrize("read", WAYS)
def test_parts_that_were_packed_apart(tiny, read):
    """As bgzip does, and with zeros at the end, as tapes have them."""
    path = tiny.nifti("image.nii.gz", tiny.signals())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(b"".join(gzip.compress(content[i : i + 500]) for i in range(0, len(content), 500)) + bytes(512))
    np.testing.assert_array_equal(read(path), tiny.signals())


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_values_are_those_of_nibabel(tiny, dtype):
    image = nib.Nifti1Image(tiny.signals().astype(dtype), tiny.AFFINE)
    image.header.set_slope_inter(*((0.25, -7) if dtype == np.int16 else (1, 0)))
    nib.save(image, tiny / "image.nii.gz")
    expected = np.asanyarray(nib.load(tiny / "image.nii.gz").dataobj)
    found = read_in_memory(tiny / "image.nii.gz")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_images_of_freesurfer_may_have_a_footer(tmp_path):
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    nib.save(nib.MGHImage(data, np.eye(4)), tmp_path / "a.mgz")
    np.testing.assert_array_equal(read_in_memory(tmp_path / "a.mgz"), data)
    content = bytearray((tmp_path / "a.mgz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "a.mgz").write_bytes(content)
    with pytest.raises(UnusableInputError, match="checksum"):
        read_in_memory(tmp_path / "a.mgz")


# --- headers --------------------------------------------------------------------------------------------------------


def spoiled(path, **fields):
    """An image of 5 x 6 x 3 x 5 whose header was changed as it is stored."""
    stored = nib.Nifti1Image(np.ones((5, 6, 3, 5), dtype=np.float32), np.diag([2.0, 2, 3, 1]))
    stored.set_qform(stored.affine, code=1)
    header = stored.header
    header.set_slope_inter(1, 0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + np.ones(450, dtype=np.float32).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [4, -5, 6, 3, 5, 1, 1, 1]}, "the dimensions .* each must be at least 1"),
        ({"dim": [4, 5, 0, 3, 5, 1, 1, 1]}, "the dimensions .* each must be at least 1"),
        ({"dim": [4, 32000, 32000, 32000, 32000, 1, 1, 1]}, "cannot be read to its end: by its header it has"),
        ({"dim": [4, 4, 6, 3, 5, 1, 1, 1]}, "holds more than the 1792 bytes"),
        ({"dim": [3, 5, 6, 3, 5, 1, 1, 1]}, "holds more than the 712 bytes"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 128, "bitpix": 24}, "does not hold an image of numbers"),
        ({"datatype": 1, "bitpix": 1}, "cannot be read as NIfTI"),
        ({"scl_slope": np.inf}, "scl_slope inf"),
        ({"scl_slope": np.nan}, "scl_slope nan"),
        ({"scl_inter": np.inf}, "scl_inter inf"),
        ({"pixdim": [1, 2, 0, 3, 1, 1, 1, 1]}, "voxels of 2 x 0 x 3 mm"),
        ({"pixdim": [1, 2, np.nan, 3, 1, 1, 1, 1]}, "voxels of 2 x nan x 3 mm"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "affine is singular or not finite"),
        ({"srow_x": [0, 0, 0, 0]}, "affine is singular or not finite"),
        ({"srow_x": [0, 2, 0, 0]}, "affine is singular or not finite"),
        ({"qoffset_x": np.inf}, "qform is singular or not finite"),
        ({"quatern_b": 5}, "impossible qform"),
        ({"sform_code": 0, "quatern_b": np.nan}, "singular or not finite|cannot be read as NIfTI"),
        ({"vox_offset": 2.0**30}, "vox_offset"),
    ],
)
def test_headers_that_cannot_be(tmp_path, extension, fields, said):
    path = spoiled(tmp_path / f"image{extension}", **fields)
    with pytest.raises(UnusableInputError, match=rf"{path}.*({said})"):
        read_in_memory(path)


def test_headers_that_nibabel_mends_too(tmp_path):
    """A negative voxel size is its absolute value."""
    path = spoiled(tmp_path / "image.nii", pixdim=[1, -2, 2, 3, 1, 1, 1, 1])
    assert open_image(path).header.get_zooms()[:3] == (2, 2, 3)


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path):
    """It is left as soon as it goes on after its data."""
    path = spoiled(tmp_path / "image.nii.gz")
    packed = path.read_bytes() + gzip.compress(bytes(1 << 24)) * 300
    path.write_bytes(packed)
    assert len(packed) < 1 << 23
    with pytest.raises(UnusableInputError, match="holds more than the 2152 bytes"):
        read_in_memory(path)


def test_gigabytes_of_one_value(tmp_path):
    """What deflate could just hold, but no image: refused before anything is unpacked."""
    path = spoiled(tmp_path / "image.nii.gz", dim=[4, 1000, 1000, 500, 2, 1, 1, 1])
    with path.open("ab") as file:
        file.truncate(4_200_000)
    with pytest.raises(UnusableInputError, match="by its header it has 4000000352 bytes"):
        open_image(path)


def test_a_pipe_in_place_of_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(UnusableInputError, match=rf"{tmp_path / 'a.nii.gz'} is not an ordinary file"):
        open_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("pointer", "command"),
    [
        ("/annex/objects/MD5E-s1234--0123456789abcdef.nii.gz\n", "datalad get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_a_pointer_to_content_that_is_not_here(tmp_path, pointer, command):
    (tmp_path / "a.nii.gz").write_text(pointer)
    with pytest.raises(UnusableInputError, match=command):
        open_image(tmp_path / "a.nii.gz")


def test_complex_numbers_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), dtype=np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UnusableInputError, match="magnitude"):
        open_image(tmp_path / "a.nii")


def test_not_an_image(tmp_path):
    (tmp_path / "a.nii.gz").write_text("hello")
    with pytest.raises(UnusableInputError, match="cannot be read as NIfTI"):
        open_image(tmp_path / "a.nii.gz")


def test_a_link_to_nowhere_is_content_to_be_fetched(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "annex" / "gone.nii.gz")
    with pytest.raises(UnusableInputError, match="datalad get"):
        open_image(tmp_path / "a.nii.gz")


# --- masks ----------------------------------------------------------------------------------------------------------


def mask_of(tiny, data, **options):
    image = tiny.nifti("image.nii.gz", tiny.signals())
    return read_mask(tiny.nifti("mask.nii.gz", data, **options), open_image(image), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_masks_of_any_type(tiny, dtype):
    expected = np.random.default_rng(1).random(tiny.SHAPE) > 0.5
    np.testing.assert_array_equal(mask_of(tiny, expected.astype(dtype)), expected)


def test_probabilities_and_nan_in_masks(tiny):
    data = np.full(tiny.SHAPE, np.nan, dtype=np.float32)
    data[0, 0, 0], data[1, 0, 0] = 0.7, 0.3
    assert np.argwhere(mask_of(tiny, data)).tolist() == [[0, 0, 0]]


def test_mask_with_a_fourth_dimension_of_one(tiny):
    assert mask_of(tiny, np.ones((*tiny.SHAPE, 1), dtype=np.uint8)).shape == tiny.SHAPE


@pytest.mark.parametrize("stored", [(5, 6), (5, 6, 1)])
def test_mask_of_a_single_slice(tiny, stored):
    image = tiny.nifti("image.nii.gz", np.ones((5, 6, 5), dtype=np.float32))
    mask = tiny.nifti("mask.nii.gz", np.ones(stored, dtype=np.uint8))
    assert read_mask(mask, open_image(image), image).shape == (5, 6, 1)


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [((5, 6, 3), 0, "is empty"), ((6, 5, 3), 1, "has shape"), ((5, 6, 4), 1, "has shape")],
)
def test_masks_that_cannot_be(tiny, shape, value, message):
    with pytest.raises(UnusableInputError, match=rf"{tiny / 'mask.nii.gz'} {message}"):
        mask_of(tiny, np.full(shape, value, dtype=np.uint8))


def test_a_flipped_mask_is_refused(tiny):
    """The classic: the mask was made in another orientation, and its voxels do not correspond."""
    flipped = tiny.AFFINE @ np.diag([-1, 1, 1, 1])
    with pytest.raises(UnusableInputError, match="elsewhere in space"):
        mask_of(tiny, np.ones(tiny.SHAPE, dtype=np.uint8), affine=flipped)


# --- geometry -------------------------------------------------------------------------------------------------------


def image_with(qform=None, sform=None):
    image = nib.Nifti1Image(np.zeros((5, 6, 3)), np.eye(4))
    image.set_qform(qform, code=0 if qform is None else 1)
    image.set_sform(sform, code=0 if sform is None else 1)
    return image


def shifted(x):
    return nib.affines.from_matvec(np.diag([2.0, 2, 3]), [x, 0, 0])


A, B, FAR = shifted(0), shifted(0.1), shifted(20)  # voxels of 2 mm
TURNED = np.array([[1.999, -0.01, 0, 0], [0.01, 1.999, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"qform": A, "sform": A}, {"qform": A, "sform": A}),
        ({"qform": A}, {"sform": A}),
        ({"qform": A, "sform": FAR}, {"qform": A}),  # the sform went to a standard space
        ({"sform": A}, {"sform": B}),
        ({"sform": A}, {"sform": TURNED}),
        ({}, {"sform": A}),  # says nothing about space
    ],
)
def test_harmless_differences(first, second):
    assert same_grid(image_with(**first), image_with(**second), (5, 6, 3))
    assert same_grid(image_with(**second), image_with(**first), (5, 6, 3))


@pytest.mark.parametrize("other", [FAR, A @ np.diag([-1, 1, 1, 1]), A @ np.diag([1.5, 1, 1, 1])])
def test_other_grids(other):
    assert not same_grid(image_with(qform=A, sform=A), image_with(qform=other, sform=other), (5, 6, 3))
