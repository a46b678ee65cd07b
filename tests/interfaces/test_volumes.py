"""The node at the front: an image whose volumes all belong passes untouched, others lose what does not."""

import nibabel as nib
import numpy as np
import pytest

from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.volumes import LeaveOutVolumes


@pytest.fixture
def leave_out(tiny, run_in):
    """``leave_out(data, **options)``: the image's path, and what the node leaves."""

    def run(data=None, **options):
        path = tiny.add("sub-01/dwi/sub-01_dwi", data=data)
        stem = str(path).removesuffix(".nii.gz")
        given = {"in_file": str(path), "bval": f"{stem}.bval", "bvec": f"{stem}.bvec"}
        return given, run_in(LeaveOutVolumes(**given, **options))

    return run


def test_nothing_is_copied_where_all_belong(leave_out, tmp_path):
    given, outputs = leave_out(sidecar={"EchoTime": 0.08})
    assert {name: getattr(outputs, name) for name in given} == given
    assert outputs.left_out == []
    assert outputs.sidecar == {"EchoTime": 0.08}
    assert list((tmp_path / "node").iterdir()) == []


@pytest.mark.parametrize("scratch", ["scratch", ""])
def test_an_empty_volume_goes_with_what_belongs_to_it(leave_out, tiny, tmp_path, scratch):
    data = tiny.signals()
    data[..., 3] = 0
    given, outputs = leave_out(
        data,
        scratch=scratch and str(tmp_path / scratch),
        sidecar={"EchoTime": [0.1, 0.1, 0.1, 0.2, 0.1], "FlipAngle": 90},
    )
    kept = nib.load(outputs.in_file)
    np.testing.assert_allclose(kept.get_fdata(), data[..., [0, 1, 2, 4]])
    np.testing.assert_allclose(kept.affine, tiny.AFFINE)
    np.testing.assert_array_equal(np.loadtxt(outputs.bval), [0, 0, 300, 1000])
    np.testing.assert_allclose(np.loadtxt(outputs.bvec), np.loadtxt(given["bvec"])[:, [0, 1, 2, 4]])
    assert outputs.sidecar == {"EchoTime": [0.1, 0.1, 0.1, 0.1], "FlipAngle": 90}
    assert outputs.left_out == [{"Volume": 3, "BValue": 600, "Reason": "it holds only zeros"}]
    assert nib.load(given["in_file"]).shape[3] == 5


def test_one_volume_alone_is_no_series(leave_out, tiny):
    data = tiny.signals()
    data[..., 1:] = np.nan
    with pytest.raises(UnusableInputError, match=r"sub-01_dwi\.nii\.gz holds 1 of 5 volumes that are diffusion images"):
        leave_out(data)


def test_without_directions(tiny, run_in):
    data = tiny.signals()
    data[..., 3] = 0
    path = tiny.add("sub-01/dwi/sub-01_dwi", data=data, bvec=False)
    outputs = run_in(LeaveOutVolumes(in_file=str(path), bval=str(path).replace(".nii.gz", ".bval")))
    assert [row["Volume"] for row in outputs.left_out] == [3]
