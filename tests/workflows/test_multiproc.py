"""Steps in several processes: a worker that dies fails its step, and nothing waits for ever."""

import os
import signal
import time
from contextlib import suppress
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


def sleep(path):
    import os
    import time
    from pathlib import Path

    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


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


def test_no_worker_outlives_an_interrupted_run(workflow, tmp_path):
    started = tmp_path / "sleep.txt"

    def interrupt(*_):
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 3, 0.5)  # again and again: an exception in a gc callback is swallowed
    try:
        with pytest.raises(KeyboardInterrupt):
            workflow(sleep).run(plugin=plugin())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    worker = int(started.read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{worker}").exists():
        with suppress(ChildProcessError):
            os.waitpid(worker, os.WNOHANG)
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
