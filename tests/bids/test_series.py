"""Series of images: which files belong together, their metadata, and what is said where something is missing."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from bidsfit import models
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.inputs import InputImage, find_images, open_dataset
from bidsfit.bids.outputs import map_path, sources_of
from bidsfit.bids.series import read_covariate, series_shape
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.volumes import JoinSeries
from bidsfit.preprocessing.phase import signed

SUFFIXES = ("dwi", "IRT1", "MESE", "MEGRE", "MP2RAGE", "MTR", "VFA")


@pytest.fixture
def echoes(tiny):
    """``echoes(times)``: add a series of spin echoes, an echo every file; ``tiny`` is the dataset."""

    def add(times=(0.02, 0.04, 0.08), stem="sub-01/anat/sub-01", suffix="MESE", **sidecar):
        data = tiny.signals([0])[..., 0]
        for k, time in enumerate(times, start=1):
            tiny.nifti(f"{stem}_echo-{k}_{suffix}.nii.gz", (data * np.exp(-time / 0.08)).astype(np.float32))
            content = {"EchoTime": time} | sidecar
            tiny.write(
                f"{stem}_echo-{k}_{suffix}.json", json.dumps({k: v for k, v in content.items() if v is not None})
            )
        return tiny

    return add


def found_in(dataset, *others, **options):
    derivatives = [open_dataset(other.root, "masks", derivative=True) for other in others]
    return find_images(open_dataset(dataset.root, "raw"), derivatives, ["01"], suffixes=SUFFIXES, **options)


def test_files_that_differ_in_the_echo_are_one_image(echoes):
    tiny = echoes(0.01 * np.arange(1, 12), MagneticFieldStrength=3)
    echoes(stem="sub-01/anat/sub-01_acq-fine")
    echoes(suffix="MEGRE")
    fine, plain, gradient = sorted(found_in(tiny).images, key=lambda image: image.name)[:3][::1]
    assert [image.name for image in (fine, plain, gradient)] == [
        "sub-01_acq-fine_mod-MESE", "sub-01_mod-MEGRE", "sub-01_mod-MESE"
    ]  # fmt: skip
    assert [path.name for path in gradient.series][8:] == [f"sub-01_echo-{k}_MESE.nii.gz" for k in (9, 10, 11)]
    assert (gradient.title, gradient.suffix, gradient.datatype) == ("sub-01_MESE", "MESE", "anat")
    acquisition = read_acquisition(None, None, gradient.sidecar)
    np.testing.assert_allclose(acquisition.columns["TE"], 10.0 * np.arange(1, 12))
    assert "b" not in acquisition.columns
    assert gradient.sidecar["MagneticFieldStrength"] == 3
    assert sources_of(gradient)[10] == "bids:raw:sub-01/anat/sub-01_echo-11_MESE.nii.gz"
    assert series_shape(gradient.series) == (*tiny.SHAPE, 11)
    assert InputImage.from_dict(json.loads(json.dumps(gradient.to_dict()))) == gradient


def test_metadata_are_inherited_and_phases_are_left_out(echoes):
    tiny = echoes(stem="sub-01/anat/sub-01", EchoTime=None)
    for k in (1, 2, 3):
        tiny.nifti(f"sub-01/anat/sub-01_echo-{k}_part-phase_MESE.nii.gz", np.zeros(tiny.SHAPE, np.float32))
        tiny.write(f"echo-{k}_MESE.json", json.dumps({"EchoTime": 0.03 * k}))
    (image,) = found_in(tiny).images
    assert image.sidecar["EchoTime"] == [0.03, 0.06, 0.09]


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"EchoTime": None}, "sub-01_echo-1_MESE.nii.gz has no EchoTime in its metadata, which BIDS requires of MESE. "
                             "Write it, in seconds, to sub-01_echo-1_MESE.json."),
        ({"EchoTime": 20}, "EchoTime is 20; expected seconds, positive and at most 10."),
        ({"EchoTime": "soon"}, "EchoTime is 'soon'; expected seconds, positive"),
    ],
)  # fmt: skip
def test_missing_and_wrong_metadata_are_told(echoes, sidecar, words):
    (problem,) = found_in(echoes(**sidecar)).problems
    assert words in problem.message


def test_a_file_without_echo_is_told(echoes):
    tiny = echoes()
    tiny.nifti("sub-01/anat/sub-01_acq-all_MESE.nii.gz", np.zeros((*tiny.SHAPE, 3), np.float32))
    found = found_in(tiny)
    assert len(found.images) == 1
    assert "has no echo- in its name" in found.problems[0].message
    assert "sub-01_acq-all_echo-1_MESE.nii.gz" in found.problems[0].message


def test_other_grids_and_several_volumes_are_told(echoes):
    tiny = echoes()
    paths = found_in(tiny).images[0].series
    tiny.nifti(
        "sub-01/anat/sub-01_echo-2_MESE.nii.gz", tiny.signals([0])[..., 0], affine=tiny.AFFINE + 5 * np.eye(4, k=3)
    )
    with pytest.raises(UnusableInputError, match=r"echo-2_MESE\.nii\.gz lies on another grid than sub-01_echo-1_MESE"):
        series_shape(paths)
    tiny.nifti("sub-01/anat/sub-01_echo-2_MESE.nii.gz", tiny.signals([0, 0]))
    with pytest.raises(UnusableInputError, match="a file of a series holds one volume"):
        series_shape(paths)


def test_masks_of_other_images_of_anat_are_not_taken(echoes, masks):
    """A mask of the T1w image has a name that fits and another grid."""
    tiny = echoes()
    masks.add_mask("sub-01/anat/sub-01_desc-brain_mask", data=np.ones((9, 9, 9), np.uint8))
    (image,) = found_in(tiny, masks).images
    assert image.mask is None
    assert "No mask fits sub-01_echo-1_MESE.nii.gz by its name and grid" in image.no_mask
    masks.add_mask("sub-01/anat/sub-01_mod-MESE_desc-brain_mask")
    (image,) = found_in(tiny, masks).images
    assert image.mask_uri == "bids:masks:sub-01/anat/sub-01_mod-MESE_desc-brain_mask.nii.gz"


def test_filters_choose_among_series(echoes):
    tiny = echoes()
    echoes(stem="sub-01/anat/sub-01_acq-fine")
    (image,) = found_in(tiny, filters={"anat": {"acquisition": "fine"}}).images
    assert image.name == "sub-01_acq-fine_mod-MESE"


def test_folders_that_hold_no_diffusion_images_are_no_problem(tiny, echoes):
    """A session whose label BIDS does not allow; names of series that it does not allow are one."""
    tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    tiny.write("sub-01/ses-of_old/anat/sub-01_ses-of_old_T1w.json", "{}")
    found = found_in(tiny)
    assert [image.title for image in found.images] == ["sub-01_ses-1_dwi"]
    assert not found.problems
    echoes(stem="sub-01/ses-1/anat/sub-01_ses-1_acq-")
    assert all("Rename it" in problem.message for problem in found_in(tiny).problems)
    assert len(found_in(tiny).problems) == 3


def test_who_has_nothing_is_told_what_was_looked_for(tiny):
    tiny.write("sub-01/anat/sub-01_T1w.json", "{}")
    (problem,) = found_in(tiny).problems
    assert (
        "dwi/*_dwi.nii.gz) and no series ([ses-*/]anat/*_IRT1 or _MESE or _MEGRE or _MP2RAGE or _MTR or _VFA.nii.gz)"
        in problem.message
    )


def test_maps_have_the_suffixes_of_bids():
    own = ("anat", "sub-01_mod-MESE", "t2")
    names = {
        ("T2", ""): "sub-01_mod-MESE_model-t2_desc-lsq_T2map.nii.gz",
        ("R2", "sd"): "sub-01_mod-MESE_model-t2_stat-sd_desc-lsq_R2map.nii.gz",
        ("rmse", ""): "sub-01_mod-MESE_model-t2_param-rmse_desc-lsq_anatmap.nii.gz",
    }
    for (label, statistic), name in names.items():
        assert map_path(*own, label, "lsq", "anatmap", statistic).name == name
    assert (
        map_path("dwi", "sub-01", "adc", "S0", "lsq", "dwimap").name
        == "sub-01_model-adc_param-S0_desc-lsq_dwimap.nii.gz"
    )


class TestFlipAngles:
    @pytest.fixture
    def flips(self, tiny):
        def add(**sidecar):
            for k, angle in enumerate((4, 18), start=1):
                stem = f"sub-01/anat/sub-01_flip-{k}_VFA"
                tiny.nifti(f"{stem}.nii.gz", tiny.signals([0])[..., 0])
                content = {"FlipAngle": angle, "RepetitionTimeExcitation": 0.015} | sidecar
                tiny.write(f"{stem}.json", json.dumps({k: v for k, v in content.items() if v is not None}))
            return tiny

        return add

    def test_settings_are_columns(self, flips):
        (image,) = found_in(flips()).images
        acquisition = read_acquisition(None, None, image.sidecar)
        assert acquisition.columns["flip_angle"].tolist() == [4, 18]
        assert acquisition.columns["TR"].tolist() == [15, 15]

    def test_what_is_missing_or_another_sequence_is_told(self, flips):
        (problem,) = found_in(flips(RepetitionTimeExcitation=None, RepetitionTime=0.02)).problems
        assert "has no RepetitionTimeExcitation" in problem.message
        assert "(if excitations are evenly spaced: RepetitionTime, 0.02)" in problem.message
        (problem,) = found_in(flips(RepetitionTimeExcitation=15)).problems
        assert "RepetitionTimeExcitation is 15; expected seconds, at most 2 between the excitations" in problem.message
        (problem,) = found_in(flips(PulseSequenceType="bSSFP")).problems
        assert "PulseSequenceType is 'bSSFP', which no model describes" in problem.message

    def test_the_transmit_field_of_the_session_is_found(self, flips):
        tiny = flips()
        assert found_in(tiny).images[0].covariate is None
        tiny.nifti("sub-01/fmap/sub-01_acq-afi_TB1map.nii.gz", np.full((3, 3, 3), 90.0, np.float32))
        (image,) = found_in(tiny).images
        assert image.covariate_uri == "bids:raw:sub-01/fmap/sub-01_acq-afi_TB1map.nii.gz"
        assert image.covariate_uri in sources_of(image)
        tiny.nifti("sub-01/fmap/sub-01_acq-dam_TB1map.nii.gz", np.full((3, 3, 3), 90.0, np.float32))
        assert "Several images could be the TB1map of sub-01_VFA" in found_in(tiny).problems[0].message
        tiny.nifti("sub-01/fmap/sub-01_TB1map.nii.gz", np.full((3, 3, 3), 90.0, np.float32))
        assert found_in(tiny).images[0].covariate.name == "sub-01_TB1map.nii.gz"

    def test_a_field_of_another_grid_is_interpolated(self, tiny):
        """A ramp along x in per cent, on voxels of another size; zeros are unknown."""
        like = nib.Nifti1Image(np.zeros(tiny.SHAPE), tiny.AFFINE)
        coarse = tiny.AFFINE @ np.diag([2, 2, 2, 1.0])
        ramp = 100 + apply_affine(coarse, np.moveaxis(np.indices((4, 4, 3)), 0, -1))[..., 0]
        path = tiny.nifti("ramp_TB1map.nii.gz", ramp.astype(np.float32), affine=coarse)
        expected = 1 + apply_affine(tiny.AFFINE, np.moveaxis(np.indices(tiny.SHAPE), 0, -1))[..., 0] / 100
        np.testing.assert_allclose(read_covariate(path, like), expected, rtol=1e-6)
        ramp[0] = 0
        path = tiny.nifti("masked_TB1map.nii.gz", (ramp / 100).astype(np.float32), affine=coarse)
        found = read_covariate(path, like)
        assert np.isnan(found[:2]).all()
        np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-6)
        path = tiny.nifti("other_TB1map.nii.gz", np.full(tiny.SHAPE, 4000, np.float32))
        with pytest.raises(UnusableInputError, match="its median is 4000; expected near 100"):
            read_covariate(path, like)


class TestReadoutsAfterAnInversion:
    """MP2RAGE: two magnitudes, and what tells the sign of the first."""

    FIELDS = {  # noqa: RUF012
        "FlipAngle": 4,
        "RepetitionTimeExcitation": 0.007,
        "RepetitionTimePreparation": 5,
        "NumberShots": [44, 88],
    }

    @pytest.fixture
    def readouts(self, tiny):
        """A series whose first signal is negative in half of the voxels; with ``part``, in magnitude and phase."""
        first, second = np.full(tiny.SHAPE, 20.0, np.float32), np.full(tiny.SHAPE, 30.0, np.float32)
        first[::2] *= -1

        def add(part="", **sidecar):
            for k, (time, signal) in enumerate(((0.7, first), (2.5, second)), start=1):
                stem = f"sub-01/anat/sub-01_inv-{k}"
                tiny.nifti(f"{stem}{part}_MP2RAGE.nii.gz", np.abs(signal))
                content = {"InversionTime": time} | self.FIELDS | sidecar
                tiny.write(f"{stem}_MP2RAGE.json", json.dumps({k: v for k, v in content.items() if v is not None}))
                if part:
                    phase = np.angle(signal * np.exp(2j)).astype(np.float32)
                    tiny.nifti(f"{stem}_part-phase_MP2RAGE.nii.gz", phase)
                    tiny.write(f"{stem}_part-phase_MP2RAGE.json", json.dumps({"Units": "rad"}))
            return tiny

        add.first, add.unit = first, first * second / (first**2 + second**2)
        return add

    def joined(self, image, folder):
        join = JoinSeries(
            files=[str(path) for path in image.series],
            polarity=[str(path) for path in image.polarity],
            phase_unit=image.phase_unit,
        )
        return np.asarray(nib.load(join.run(cwd=str(folder)).outputs.out_file).dataobj)

    def test_phases_tell_the_sign(self, readouts, tmp_path):
        (image,) = found_in(readouts(part="_part-mag")).images
        assert image.name == "sub-01_mod-MP2RAGE"
        assert len(image.series) == 2
        assert sources_of(image)[2:] == [
            f"bids:raw:sub-01/anat/sub-01_inv-{k}_part-phase_MP2RAGE.nii.gz" for k in (1, 2)
        ]
        assert InputImage.from_dict(json.loads(json.dumps(image.to_dict()))) == image
        found = self.joined(image, tmp_path)
        np.testing.assert_allclose(found[..., 0], readouts.first, rtol=1e-6)
        np.testing.assert_allclose(found[..., 1], 30)

    @pytest.mark.parametrize("integers", [False, True])
    def test_else_the_unit1_image_does(self, readouts, tmp_path, integers):
        unit = np.round(4095 * (readouts.unit + 0.5)) if integers else readouts.unit
        tiny = readouts()
        tiny.nifti("sub-01/anat/sub-01_UNIT1.nii.gz", unit.astype(np.float32))
        (image,) = found_in(tiny).images
        assert [path.name for path in image.polarity] == ["sub-01_UNIT1.nii.gz"]
        np.testing.assert_array_equal(self.joined(image, tmp_path)[..., 0], readouts.first)

    def test_without_either_it_is_not_fitted(self, readouts):
        (problem,) = found_in(readouts()).problems
        assert "inv-1_MP2RAGE.nii.gz is a magnitude, and its sign is not known" in problem.message
        assert "sub-01_UNIT1.nii.gz is there" in problem.message

    def test_another_image_of_that_name_is_refused(self):
        with pytest.raises(ValueError, match=r"values from 0 to 9000; expected -0.5 to 0.5"):
            signed(np.ones((1, 1, 2, 2)), [np.array([[[0.0, 9000.0]]])], None)

    def test_phases_of_different_units_are_refused(self, readouts):
        tiny = readouts(part="_part-mag")
        tiny.write("sub-01/anat/sub-01_inv-2_part-phase_MP2RAGE.json", json.dumps({"Units": "arbitrary"}))
        (problem,) = found_in(tiny).problems
        assert "differ in their Units, arbitrary and rad" in problem.message

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ({}, (44, 88)),
            ({"NumberShots": 176, "SlicePartialFourier": 0.75}, (44, 88)),
            ({"NumberShots": 100}, (50, 50)),
        ],
    )
    def test_excitations_are_counted_from_the_centre_of_k_space(self, readouts, told, expected):
        tiny = readouts(part="_part-mag", **told)
        acquisition = read_acquisition(None, None, found_in(tiny).images[0].sidecar)
        for name, number in zip(("shots_before", "shots_after"), expected, strict=True):
            np.testing.assert_allclose(acquisition.columns[name], [number] * 2)
        np.testing.assert_allclose(acquisition.columns["TRP"], [5000] * 2)

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            ({"NumberShots": None}, "has no NumberShots in its metadata, which BIDS requires of MP2RAGE. Write it to"),
            ({"NumberShots": [1, 2, 3]}, "NumberShots is [1, 2, 3]; expected two positive numbers"),
            ({"RepetitionTimeExcitation": 0.02}, "the readout lasts from -0.18 to 2.46 s after the inversion"),
            ({"RepetitionTimePreparation": 3}, "expected from 1.32 s or later, up to RepetitionTimePreparation, 3 s"),
        ],
    )
    def test_metadata_that_cannot_be_are_told(self, readouts, told, words):
        (problem,) = found_in(readouts(part="_part-mag", **told)).problems
        assert words in problem.message


class TestSaturation:
    """Images with saturation at several offsets, and ratios of magnetisation transfer, which are none."""

    PULSE = {  # noqa: RUF012
        "MTFlipAngle": 500,
        "MTPulseDuration": 0.01,
        "MTPulseShape": "HARD",
        "RepetitionTimeExcitation": 0.04,
    }

    @pytest.fixture
    def saturated(self, tiny):
        def add(stem="sub-01/anat/sub-01_acq-qmt", offsets=(None, 1000, -3000, 10000), **sidecar):
            for k, offset in enumerate(offsets, start=9):
                name = f"{stem}{k}_mt-{'off' if offset is None else 'on'}_MTR"
                tiny.nifti(f"{name}.nii.gz", tiny.signals([0])[..., 0])
                content = {"MTState": offset is not None}
                if offset is not None:
                    content |= {"MTOffsetFrequency": offset} | self.PULSE | sidecar
                tiny.write(f"{name}.json", json.dumps({k: v for k, v in content.items() if v is not None}))
            return tiny

        return add

    def test_files_that_differ_in_a_number_are_one_image(self, saturated):
        tiny = saturated()
        saturated(stem="sub-01/anat/sub-01_acq-", MTNumberOfPulses=2)
        second, first = sorted(found_in(tiny).images, key=lambda image: image.name)[::-1]
        assert (first.name, second.name) == ("sub-01_acq-qmt_mod-MTR", "sub-01_mod-MTR")
        assert [path.name for path in first.series] == [
            f"sub-01_acq-qmt{k}_mt-{state}_MTR.nii.gz" for k, state in ((9, "off"), (10, "on"), (11, "on"), (12, "on"))
        ]
        for image, pulses in ((first, 1), (second, 2)):
            acquisition = read_acquisition(None, None, image.sidecar)
            np.testing.assert_allclose(acquisition.columns["offset"], [10000, 1000, 3000, 10000])
            amplitude = np.deg2rad(500) / np.sqrt(0.01 * 0.04 / pulses) / 267.5221874
            np.testing.assert_allclose(acquisition.columns["saturation"], [0, *[amplitude] * 3], rtol=1e-6)

    def test_the_amplitude_may_be_given(self, saturated):
        tiny = saturated(MTB1RMS=3.5, MTPulseShape="FERMI")
        (image,) = found_in(tiny).images
        np.testing.assert_allclose(read_acquisition(None, None, image.sidecar).columns["saturation"], [0, *[3.5] * 3])

    def test_ratios_are_left_alone(self, tiny, saturated):
        """A pair with and without saturation."""
        tiny.add("sub-01/dwi/sub-01_dwi")
        found = found_in(saturated(stem="sub-01/anat/sub-01_acq-fine", offsets=(None, 1000)))
        assert [image.title for image in found.images] == ["sub-01_dwi"]
        assert not found.problems

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            ({"MTState": None}, "has no MTState in its metadata, which BIDS requires of MTR"),
            ({"MTState": False}, "MTState is False; expected true for files called mt-on, and false for mt-off"),
            ({"MTOffsetFrequency": None}, "MTOffsetFrequency is None; expected a number of Hz, at most 1e+06. A fit"),
            ({"MTPulseDuration": -1}, "MTPulseDuration is -1; expected a number of seconds"),
            ({"MTPulseShape": "GAUSSIAN"}, "MTPulseBandwidth is None; expected a number of Hz"),
            ({"MTPulseShape": "FERMI"}, "MTPulseShape is 'FERMI', from which the power of the pulse does not follow"),
            ({"MTB1RMS": "strong"}, "MTB1RMS is 'strong'; expected a number of µT, at most 100"),
            ({"RepetitionTimeExcitation": 0.008}, "last 0.01 s (MTPulseDuration), and one begins every 0.008 s"),
            ({"PulseSequenceType": "bSSFP"}, "PulseSequenceType is 'bSSFP', which no model describes"),
        ],
    )
    def test_metadata_that_cannot_be_are_told(self, saturated, told, words):
        (problem,) = found_in(saturated(**told)).problems
        assert words in problem.message

    def test_a_file_without_number_is_told(self, saturated):
        tiny = saturated(stem="sub-01/anat/sub-01_acq-")
        tiny.nifti("sub-01/anat/sub-01_mt-off_MTR.nii.gz", tiny.signals([0])[..., 0])
        tiny.write("sub-01/anat/sub-01_mt-off_MTR.json", json.dumps({"MTState": False}))
        (problem,) = found_in(tiny).problems
        assert "has no acq- in its name, by which the files of MTR are told apart" in problem.message
        assert "rename it: sub-01_acq-1_mt-off_MTR.nii.gz" in problem.message


@pytest.mark.parametrize("magnitudes", [False, True])
def test_negative_values_stay_where_they_are_no_polarity(echoes, tmp_path, magnitudes):
    """So that they are told of, instead of being taken for signal."""
    tiny = echoes()
    path = tiny.nifti("sub-01/anat/sub-01_echo-3_MESE.nii.gz", np.full(tiny.SHAPE, -2, np.float32))
    join = JoinSeries(files=[str(path)], magnitudes=magnitudes)
    found = np.asarray(nib.load(join.run(cwd=str(tmp_path)).outputs.out_file).dataobj)
    assert np.unique(found).tolist() == [2 if magnitudes else -2]


TRAIN = {
    "FlipAngle": [10.0, 0, 50.0, 20.0],
    "RepetitionTime": [0.012, 0.013, 0.012, 0.012],
    "EchoTime": 0.003,
    "InversionTime": 0.02,
}
#: What a cycle of pulses with an inversion between crushers adds.
HYBRID = {"PulseDuration": 0.0005, "CrusherState": [True] + [False] * 11}
BASIS = [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]]


@pytest.fixture
def fingerprints(tiny):
    """``fingerprints(n, **sidecar)``: add coefficients, or repetitions, of a train; None leaves a field out."""

    def add(n=3, what="coef", parts=("real", "imag"), **sidecar):
        data = tiny.signals([0])[..., 0]
        for k in range(1, n + 1):
            for part, values in (("real", data * k), ("imag", -data / k)):
                if part in parts:
                    path = f"sub-01/anat/sub-01_part-{part}_desc-{what}{k:02d}_MRF.nii.gz"
                    tiny.nifti(path, values.astype(np.float32))
        content = TRAIN | {"TemporalBasis": BASIS} | sidecar
        tiny.write("sub-01_MRF.json", json.dumps({k: v for k, v in content.items() if v is not None}))
        return tiny

    return add


def trains_in(dataset):
    return find_images(open_dataset(dataset.root, "raw", derivative=True), [], ["01"], suffixes=("MRF",))


class TestFingerprints:
    def test_coefficients_of_a_basis_are_one_complex_image(self, fingerprints, tmp_path):
        tiny = fingerprints(MagneticFieldStrength=3)
        (image,) = trains_in(tiny).images
        assert (image.name, image.suffix, image.sidecar["MagneticFieldStrength"]) == ("sub-01_mod-MRF", "MRF", 3)
        assert [path.name for path in image.imaginary] == [
            f"sub-01_part-imag_desc-coef0{k}_MRF.nii.gz" for k in (1, 2, 3)
        ]
        assert len(sources_of(image)) == 6
        assert InputImage.from_dict(json.loads(json.dumps(image.to_dict()))) == image
        acquisition = read_acquisition(None, None, image.sidecar)
        assert len(acquisition) == 3
        np.testing.assert_allclose(acquisition.basis, np.transpose(BASIS))
        np.testing.assert_allclose(acquisition.frames.columns["flip_angle"], TRAIN["FlipAngle"])
        np.testing.assert_allclose(acquisition.frames.columns["TR"], [12, 13, 12, 12])
        np.testing.assert_allclose(acquisition.frames.columns["TE"], 3)
        files = {"files": [str(p) for p in image.series], "imaginary": [str(p) for p in image.imaginary]}
        joined = JoinSeries(**files).run(cwd=str(tmp_path)).outputs.out_file
        data, expected = np.asarray(nib.load(joined).dataobj), tiny.signals([0])[..., 0].astype(np.float32)
        np.testing.assert_allclose(data[..., 1], 2 * expected - 0.5j * expected, rtol=1e-6)

    def test_without_a_basis_they_are_the_repetitions(self, fingerprints):
        (image,) = trains_in(fingerprints(4, "frame", TemporalBasis=None)).images
        acquisition = read_acquisition(None, None, image.sidecar)
        assert acquisition.frames is None
        np.testing.assert_allclose(acquisition.columns["flip_angle"], TRAIN["FlipAngle"])

    def test_a_basis_may_be_complex(self, fingerprints):
        imaginary = [[0.0] * 4, [0.5, -0.5, 0.5, -0.5], [0.0] * 4]
        real = [BASIS[0], [0.0] * 4, BASIS[2]]
        (image,) = trains_in(fingerprints(TemporalBasis=real, TemporalBasisImaginary=imaginary)).images
        basis = read_acquisition(None, None, image.sidecar).basis
        np.testing.assert_allclose(basis[:, 1], 0.5j * np.array([1, -1, 1, -1]))

    @pytest.mark.parametrize(
        ("n", "sidecar", "said"),
        [
            (3, {"FlipAngle": None}, r"no FlipAngle in its metadata.*list of degrees.*sub-01_MRF\.json"),
            (3, {"RepetitionTime": None}, "no RepetitionTimeExcitation in its metadata"),
            (
                3,
                {"FlipAngle": 10},
                "FlipAngle must be a list of degrees, not negative and at most 360, one for each repetition",
            ),
            (3, {"EchoTime": [0.003] * 3}, r"EchoTime must be a list of seconds, .*\(4\).*found \[0.003, 0.003"),
            (3, {"InversionTime": -1}, "InversionTime must be a list of seconds"),
            (3, {"EchoTime": 0.02}, "repetition times must be longer than echo times"),
            (3, {"PulseDuration": 0.012}, "repetition times must be longer than pulse durations"),
            (3, {"PulseDuration": 0}, "PulseDuration must be a list of seconds, positive and at most 0.1"),
            (3, {"CrusherState": [1, 0, 0, 0]}, "CrusherState must be a list of true or false, one for each"),
            (3, {"RepetitionTime": [12.0] * 4}, "below 2 s; found"),
            (2, {}, r"a file for each coefficient .* from 1 to 3; found 2, numbered \[1, 2\]"),
            (3, {"TemporalBasis": None}, "a file for each repetition, numbered in desc- from 1 to 4"),
            (3, {"TemporalBasis": [row[:3] for row in BASIS]}, "with a number for each of the 4 repetitions"),
            (3, {"TemporalBasis": [[2.0, 0, 0, 0], *BASIS[1:]]}, "are orthonormal"),
            (3, {"TemporalBasis": "none"}, "TemporalBasis must hold a list for each coefficient"),
        ],
    )
    def test_what_is_missing_or_contradicts_is_told(self, fingerprints, n, sidecar, said):
        found = trains_in(fingerprints(n, **sidecar))
        assert not found.images
        assert re.search(said, found.problems[0].message), found.problems[0].message

    @pytest.mark.parametrize(
        ("changes", "fitted", "lacking"),
        [
            ({}, "mrffisp", "pulse durations (pulse_duration, PulseDuration of the metadata)"),
            ({"InversionTime": None} | HYBRID, "qmtgbloch", "inversion times (TI, InversionTime of the metadata)"),
            (HYBRID, "qmtgbloch", "one crusher state (the model does not describe its influence)"),
        ],
    )
    def test_fields_decide_which_model_fits(self, fingerprints, changes, fitted, lacking):
        n = 12
        angles = np.linspace(10, 60, n).tolist()
        basis = np.eye(3, n).tolist()
        (image,) = trains_in(
            fingerprints(**{"FlipAngle": angles, "RepetitionTime": 0.012, "TemporalBasis": basis} | changes)
        ).images
        acquisition = read_acquisition(None, None, image.sidecar)
        (other,) = {"mrffisp", "qmtgbloch"} - {fitted}
        assert models.get(fitted).support(acquisition)
        assert any(lacking in words for words in models.get(other).support(acquisition).missing)

    def test_both_parts_must_be_there_and_tell_the_same(self, fingerprints):
        tiny = fingerprints(parts=("real",))
        assert "sub-01_part-imag_desc-coef01_MRF.nii.gz is not beside it" in trains_in(tiny).problems[0].message
        tiny = fingerprints()
        tiny.write("sub-01/anat/sub-01_part-real_desc-coef02_MRF.json", json.dumps({"InversionTime": 0.03}))
        (problem,) = trains_in(tiny).problems
        assert "differ in InversionTime, and are of one train of pulses. Write it once, to sub-01_MRF.json" in (
            problem.message
        )

    def test_imaginary_parts_alone_are_no_fingerprint(self, fingerprints):
        (problem,) = trains_in(fingerprints(parts=("imag",))).problems
        assert "without real parts" in problem.message
