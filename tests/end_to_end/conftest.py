"""Reading what a run leaves."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.validation import errors_of


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
    """``valid(root)``: the BIDS validator ran and found no error in a dataset."""

    def check(root):
        assert errors_of(root) == []
        return True

    return check
