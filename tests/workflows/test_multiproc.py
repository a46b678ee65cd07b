"""Steps in several processes: a worker that dies fails its step, and nothing waits for ever."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nipype import config
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from bidsfit.workflows.multiproc import MultiProc


def write(path):
    from pathlib import Path

    Path(path).write_text("done")
    return path


def die(path):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def workflow(tmp_path):
    """``workflow(functions)``: nodes that need not wait for each other; each is given a path named after it."""

    def build(*functions):
        config.update_config(
            {"execution": {"crashfile_format": "txt", "crashdump_dir": str(tmp_path), "poll_sleep_duration": "0.1"}}
        )
        graph = pe.Workflow(name="wf", base_dir=str(tmp_path))
        for function in functions:
            name = function.__name__
            node = pe.Node(Function(["path"], ["path"], function), name=name)
            node.inputs.path = str(tmp_path / f"{name}.txt")
            graph.add_nodes([node])
        return graph

    return build


def plugin():
    return MultiProc(plugin_args={"n_procs": 2, "raise_insufficient": False})


def test_steps_run(workflow, tmp_path):
    workflow(write).run(plugin=plugin())
    assert (tmp_path / "write.txt").read_text() == "done"


def test_a_killed_worker_fails_its_step(workflow, tmp_path):
    with pytest.raises(Exception, match="was killed"):
        workflow(die).run(plugin=plugin())
    (crash,) = tmp_path.glob("crash-*.txt")
    assert "bidsfit.exceptions.StepKilledError: The process of this step was killed" in crash.read_text()


def test_the_rest_goes_on_with_new_workers(workflow, tmp_path):
    """One step at a time: the first kills its worker, the others still run."""
    one_at_a_time = MultiProc(plugin_args={"n_procs": 1, "raise_insufficient": False})
    with pytest.raises(Exception, match="was killed"):
        workflow(die, write).run(plugin=one_at_a_time)
    assert (tmp_path / "write.txt").read_text() == "done"


RUN_A_NAP = """
import sys

from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from bidsfit.workflows.multiproc import MultiProc


def nap(started):
    import os
    import time

    with open(started, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)


node = pe.Node(Function(function=nap, input_names=["started"], output_names=[]), name="nap")
node.inputs.started = sys.argv[1]
workflow = pe.Workflow("nap_wf", base_dir=sys.argv[2])
workflow.add_nodes([node])
workflow.run(plugin=MultiProc(plugin_args={"n_procs": 2, "raise_insufficient": False}))
"""


def test_no_worker_outlives_an_interrupted_run(tmp_path):
    """In a process of its own: an interrupt that falls into a callback of the garbage collector is lost."""
    started, script = tmp_path / "started.txt", tmp_path / "run.py"
    script.write_text(RUN_A_NAP)
    run = subprocess.Popen([sys.executable, script, started, tmp_path], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: started.exists() and started.read_text())
        worker = int(started.read_text())
        run.send_signal(signal.SIGINT)
        assert wait_until(lambda: run.poll() is not None)
        assert wait_until(lambda: not Path(f"/proc/{worker}").exists())
    finally:
        run.kill()


def wait_until(true, seconds=60):
    """Whether a condition comes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(true())
