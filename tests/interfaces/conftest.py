"""Run a node's interface in a folder of its own."""

import pytest


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    """``run_in(interface)``: its outputs; files go to ``tmp_path/node``."""

    def run(interface):
        folder = tmp_path / "node"
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        return interface.run(cwd=str(folder)).outputs

    return run
