"""Every benchmark still runs."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_quick_run_prints_a_table(script):
    outcome = subprocess.run([sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "|" in outcome.stdout or "not installed" in outcome.stdout
