"""What pip installs is what the repository holds."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_the_wheel_made_from_the_sdist_holds_every_file(tmp_path):
    """Data that package_data of setup.cfg does not name is missing wherever bidsfit is not run from its sources."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (PROJECT / name).exists():  # not removed since the last commit
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, tmp_path / name, follow_symlinks=False)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", tmp_path], capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = tmp_path / "bidsfit"
    linked = package / "workflows"
    files = [path for folder in (package, linked) for path in folder.rglob("*") if path.is_file()]
    assert held == {path.relative_to(tmp_path).as_posix() for path in files}
