"""FSL's topup and eddy, stood in for by programs that check their arguments and write what FSL would."""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from scipy.spatial.transform import Rotation

from bidsfit.bids.fieldmaps import ReversedPhase
from bidsfit.exceptions import BidsfitError, ToolError, UnusableInputError
from bidsfit.interfaces import fsl
from bidsfit.interfaces.fsl import acquisition_row, eddy_transforms, installed
from bidsfit.preprocessing.susceptibility import PhaseEncoding
from bidsfit.steps.motion import Eddy
from bidsfit.steps.susceptibility import Topup

SHAPE = (4, 6, 4)
SIDECAR = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}

#: What both programs start with: their arguments as a dictionary.
START = """
import os, sys
import nibabel as nib
import numpy as np
given = {}
for word in sys.argv[1:]:
    key, _, value = word.removeprefix("--").partition("=")
    given[key] = value.strip("'")
image = nib.load(given["imain"])
data = image.get_fdata()
def save(data, name):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), image.affine), name)
"""

TOPUP = """
rows = np.loadtxt(given["datain"])
assert len(rows) == data.shape[3], rows
assert os.environ["OMP_NUM_THREADS"] == "2"
open(os.path.join(os.path.dirname(given["out"]), "arguments.txt"), "w").write(str(given))
save(np.full(data.shape[:3], 30.0), given["fout"])
save(data + 1, given["iout"])
save(data[..., 0], given["out"] + "_fieldcoef.nii.gz")
np.savetxt(given["out"] + "_movpar.txt", np.zeros((data.shape[3], 6)))
for i in range(1, data.shape[3] + 1):
    save(data[..., 0], f"warpfield_{i:02d}.nii.gz")
    save(data[..., 0], f"jac_{i:02d}.nii.gz")
    np.savetxt(f"xfm_{i:02d}.mat", np.eye(4))
"""

EDDY = """
n = data.shape[3]
assert nib.load(given["mask"]).shape == data.shape[:3]
assert np.loadtxt(given["index"]).tolist() == [1.0] * n
assert np.loadtxt(given["acqp"]).tolist() == [0, -1, 0, 0.05]
assert np.loadtxt(given["bvals"]).size == n and np.loadtxt(given["bvecs"]).shape == (3, n)
assert "repol" in given and "data_is_shelled" in given
program = os.path.basename(sys.argv[0])
assert ("nthr" in given) == (program == "eddy_cpu"), given
assert given.get("nthr", os.environ["OMP_NUM_THREADS"]) == "2"
if "topup" in given:
    assert os.path.exists(given["topup"] + "_fieldcoef.nii.gz")
out = given["out"]
save(2 * data, out + ".nii.gz")
parameters = np.zeros((n, 16))
parameters[:, 0], parameters[:, 5] = np.arange(n), 0.1
np.savetxt(out + ".eddy_parameters", parameters)
np.savetxt(out + ".eddy_rotated_bvecs", np.loadtxt(given["bvecs"])[[1, 0, 2]])
outliers = np.zeros((n, data.shape[2]))
outliers[1, :2] = 1
np.savetxt(out + ".eddy_outlier_map", outliers, fmt="%d", header="One row per scan, one column per slice.", comments="")
"""

FAILING = """
print("a line of output")
print("Exception thrown: the field is upside down", file=sys.stderr)
save(data, os.path.join(os.path.dirname(given["out"]), "half.nii.gz"))
sys.exit(3)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """``program(name, text)`` puts a program on the PATH, which holds nothing else of FSL."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("FSLDIR", raising=False)
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI_GZ")

    def add(name, text=""):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{START if text else ''}{text}")
        path.chmod(0o755)
        return path

    return add


@pytest.fixture
def scan(tiny):
    """A diffusion image, an image of the reversed direction, and what belongs to them."""
    own = tiny.nifti("dwi.nii", tiny.signals((0, 1000, 0), SHAPE))
    other = tiny.nifti("epi.nii", 3 * tiny.signals((0, 0), SHAPE))
    pair = ReversedPhase(other, "bids::epi.nii", (1,), (0, 2), "j", "j-", 0.05, 0.05, "IntendedFor")
    bval = tiny.write("dwi.bval", "\ufeff0,1000,0")  # as spreadsheets write it
    bvec = tiny.write("dwi.bvec", "0 1 0\n0 0 0\n0 0 0")
    region = tiny.nifti("region.nii", np.ones(SHAPE, dtype=np.float32))
    given = {"in_file": str(own), "threads": 2, "label": "sub-01 step"}
    return {
        "topup": given | {"reversed_phase": pair.to_dict()},
        "eddy": given | {"bval": str(bval), "bvec": str(bvec), "region": str(region), "sidecar": SIDECAR},
    }


def left(tmp_path):
    return list((tmp_path / "node").rglob("*.nii*"))


# --- what is installed ----------------------------------------------------------------------------------------------


def test_nothing_is_installed(program):
    assert installed() == {}


def test_what_is_installed(program, tmp_path, monkeypatch):
    topup, eddy = program("topup"), program("eddy_openmp")
    program("eddy")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fslversion").write_text("6.0.7.4:ab12\n")
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    assert installed() == {"topup": str(topup), "eddy": str(eddy), "version": "6.0.7.4"}


# --- conventions ----------------------------------------------------------------------------------------------------


def test_rows_of_acquisition_parameters():
    las, ras = np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
    assert acquisition_row(PhaseEncoding(1, -1), 0.05, las) == "0 -1 0 0.050000"
    assert acquisition_row(PhaseEncoding(1, -1), 0.05, ras) == "0 -1 0 0.050000"
    assert acquisition_row(PhaseEncoding(0, 1), 0.05, las) == "1 0 0 0.050000"
    assert acquisition_row(PhaseEncoding(0, 1), 0.05, ras) == "-1 0 0 0.050000"  # turned around when FSL reads it


@pytest.mark.parametrize("flip", [-1, 1])
def test_motion_of_eddy(flip):
    """Translations run along the axes of the image; rotations leave its centre where it is."""
    affine = np.diag([flip * 2.0, 2, 2, 1])
    affine[:3, 3] = (9, -8, 4)
    centre = affine @ [1.5, 2.5, 1.5, 1]
    moved, turned = eddy_transforms([[1, 2, 3, 0, 0, 0], [0, 0, 0, 0.1, -0.2, 0.3]], affine, SHAPE)
    assert moved[:3, 3] == pytest.approx([-1, 2, 3])  # FSL's x runs to the left
    assert moved[:3, :3] == pytest.approx(np.eye(3))
    assert turned @ centre == pytest.approx(centre)
    angle = Rotation.from_matrix(turned[:3, :3]).magnitude()
    assert angle == pytest.approx(Rotation.from_euler("xyz", (0.1, -0.2, 0.3)).magnitude())


# --- topup ----------------------------------------------------------------------------------------------------------


def test_topup(program, scan, run_in):
    program("topup", TOPUP)
    found = run_in(Topup(**scan["topup"]))
    shift = nib.load(found.field)
    assert shift.get_fdata() == pytest.approx(np.full(SHAPE, -1.5))  # 30 Hz * 0.05 s, against the axis
    own, other, corrected = np.moveaxis(nib.load(found.pictures).get_fdata(), -1, 0)
    assert other == pytest.approx(3 * own)
    assert corrected == pytest.approx(own + 1)
    folder = Path(found.topup).parent
    rows = np.loadtxt(folder / "acquisition.txt")
    assert rows.tolist() == [[0, -1, 0, 0.05], [0, -1, 0, 0.05], [0, 1, 0, 0.05]]
    assert "subsamp" not in (folder / "arguments.txt").read_text()


def test_a_reversed_image_that_cannot_be_read_leaves_no_field_and_a_reason(program, scan, run_in, tiny):
    program("topup", TOPUP)
    (tiny / "epi.nii").write_bytes((tiny / "epi.nii").read_bytes()[:400])
    found = run_in(Topup(**scan["topup"]))
    assert "epi.nii cannot be read to its end" in json.loads(Path(found.facts).read_text())["refused"]
    assert not isdefined(found.topup)
    assert not isdefined(found.field)


def test_topup_does_not_halve_an_odd_image(program, scan, run_in, tiny):
    program("topup", TOPUP)
    odd = (5, 6, 3)
    tiny.nifti("dwi.nii", tiny.signals((0, 1000, 0), odd))
    tiny.nifti("epi.nii", tiny.signals((0, 0), odd))
    found = run_in(Topup(**scan["topup"]))
    said = (Path(found.topup).parent / "arguments.txt").read_text()
    assert "'subsamp': '1,1,1,1,1,1,1,1,1'" in said


# --- eddy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fsl.EDDY)
def test_eddy_by_any_name(program, scan, run_in, name):
    program(name, EDDY)
    found = run_in(Eddy(**scan["eddy"]))
    assert nib.load(found.out_file).get_fdata() == pytest.approx(2 * nib.load(scan["eddy"]["in_file"]).get_fdata())
    assert np.loadtxt(found.bvec)[1].tolist() == [0, 1, 0]
    transforms = np.load(found.transforms)
    assert transforms.shape == (3, 4, 4)
    assert transforms[2, :3, 3] - transforms[0, :3, 3] == pytest.approx([-2, 0, 0])
    facts = json.loads(Path(found.facts).read_text())
    assert facts["outlier_fraction"] == [0, 0.5, 0]
    assert facts["program"] == name


def test_eddy_after_topup(program, scan, run_in):
    program("topup", TOPUP)
    program("eddy_cpu", EDDY + "assert 'topup' in given\n")
    prefix = run_in(Topup(**scan["topup"])).topup
    run_in(Eddy(**scan["eddy"], topup=prefix))


def test_eddy_without_directions_or_readout_time(program, scan, run_in):
    given = scan["eddy"]
    with pytest.raises(UnusableInputError, match="needs the gradient directions"):
        run_in(Eddy(**{key: value for key, value in given.items() if key != "bvec"}))
    with pytest.raises(UnusableInputError, match="sub-01: FSL's eddy needs TotalReadoutTime"):
        run_in(Eddy(**given | {"sidecar": {"PhaseEncodingDirection": "j"}}))
    with pytest.raises(UnusableInputError, match="sub-01: FSL's eddy needs PhaseEncodingDirection"):
        run_in(Eddy(**given | {"sidecar": {"TotalReadoutTime": 0.05}}))


# --- what goes wrong ------------------------------------------------------------------------------------------------

NODES = {"topup": Topup, "eddy_cpu": Eddy}


@pytest.mark.parametrize("name", NODES)
def test_a_program_that_fails(program, scan, run_in, tmp_path, name):
    program(name, FAILING)
    with pytest.raises(ToolError, match=rf"^{name} failed \(exit code 3\). Choose --preprocess dipy") as caught:
        run_in(NODES[name](**scan[name.split("_")[0]]))
    assert f"Command: {name} " in str(caught.value)
    assert "a line of output" in str(caught.value)
    assert str(caught.value).endswith("the field is upside down")
    assert isinstance(caught.value, BidsfitError)
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", NODES)
def test_a_program_that_leaves_nothing(program, scan, run_in, tmp_path, name):
    program(name, "print('done')\n")
    with pytest.raises(ToolError, match=f"^{name} ended, but did not leave") as caught:
        run_in(NODES[name](**scan[name.split("_")[0]]))
    assert str(caught.value).endswith("done")
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", NODES)
def test_a_program_that_is_not_there(program, scan, run_in, tmp_path, name):
    with pytest.raises(ToolError, match=f"^{name} was not found on the PATH"):
        run_in(NODES[name](**scan[name.split("_")[0]]))
    assert left(tmp_path) == []


@pytest.mark.parametrize(("name", "text"), [("topup", TOPUP), ("eddy_cpu", EDDY)])
def test_a_program_that_fails_after_it_has_written_all(program, scan, run_in, tmp_path, name, text):
    program(name, f"{text}\nsys.exit('out of memory')\n")
    with pytest.raises(ToolError, match=r"failed \(exit code 1\)[\s\S]*out of memory$"):
        run_in(NODES[name](**scan[name.split("_")[0]]))
    assert left(tmp_path) == []


def test_a_result_of_another_shape(program, scan, run_in):
    program("eddy_cpu", EDDY + "save(data[:-1], out + '.nii.gz')\n")
    with pytest.raises(ToolError, match=r"eddy.nii.gz of shape \(3, 6, 4, 3\); expected \(4, 6, 4, 3\)"):
        run_in(Eddy(**scan["eddy"]))


def test_an_old_eddy_without_rotated_directions(program, scan, run_in):
    program("eddy_cpu", EDDY + "os.remove(out + '.eddy_rotated_bvecs')\n")
    with pytest.raises(ToolError, match="left no rotated directions"):
        run_in(Eddy(**scan["eddy"]))
