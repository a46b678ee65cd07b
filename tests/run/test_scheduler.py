"""The order of steps, alone and in several processes: a worker that dies fails its step, nothing waits for ever."""

import signal
import subprocess
import sys
import time

import psutil
import pytest
from nipype import config
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from bidsfit.run.scheduler import Finished, Scheduler


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

    def build(*functions, n_procs=1):
        config.update_config({"execution": {"crashfile_format": "txt", "crashdump_dir": str(tmp_path)}})
        graph = pe.Workflow(name="wf", base_dir=str(tmp_path))
        for function in functions:
            name = function.__name__
            node = pe.Node(Function(["path"], ["path"], function), name=name, n_procs=n_procs)
            node.inputs.path = str(tmp_path / f"{name}.txt")
            graph.add_nodes([node])
        return graph

    return build


def test_steps_run(workflow, tmp_path):
    workflow(write).run(plugin=Scheduler(2))
    assert (tmp_path / "write.txt").read_text() == "done"


def test_a_killed_worker_fails_its_step(workflow, tmp_path):
    with pytest.raises(Exception, match="was killed"):
        workflow(die).run(plugin=Scheduler(2))
    (crash,) = tmp_path.glob("crash-*.txt")
    assert "bidsfit.exceptions.OutOfMemoryError: The process of this step was killed" in crash.read_text()


def nap(path):
    import time
    from pathlib import Path

    with open(f"{path}.started", "a") as file:
        file.write("started ")
    time.sleep(0.5)
    Path(path).write_text("done")


def die_beside(path):
    import os
    import signal
    import time
    from pathlib import Path

    while not Path(path.replace("die_beside", "nap") + ".started").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_ran_beside_a_killed_worker_runs_again(workflow, tmp_path):
    with pytest.raises(Exception, match="again when nothing ran beside it"):
        workflow(die_beside, nap).run(plugin=Scheduler(2))
    assert (tmp_path / "nap.txt").read_text() == "done"
    assert (tmp_path / "nap.txt.started").read_text() == "started started "
    assert ["die_beside" in path.read_text() for path in tmp_path.glob("crash-*.txt")] == [True]


def test_the_rest_goes_on_with_new_workers(workflow, tmp_path):
    """No room for both at a time: the first kills its worker, the other still runs."""
    with pytest.raises(Exception, match="was killed"):
        workflow(die, write, n_procs=2).run(plugin=Scheduler(2))
    assert (tmp_path / "write.txt").read_text() == "done"


# --- order ----------------------------------------------------------------------------------------------------------


def note(log, name, after=""):
    with open(log.removeprefix("to "), "a") as file:
        file.write(name + "\n")
    return name


def refuse(log, name, after=""):
    raise ValueError(name)


@pytest.fixture
def participants(tmp_path):
    """``participants(n)``: n images of two steps, each in the workflow of its participant, and their log.

    The log is no plain path: a file among the inputs that changed would be a reason to run again.
    """
    config.update_config({"execution": {"crashfile_format": "txt", "crashdump_dir": str(tmp_path)}})
    log = tmp_path / "log.txt"
    log.touch()

    def build(n, first=note):
        graph = pe.Workflow(name="wf", base_dir=str(tmp_path))
        for i in range(n):
            own, image = pe.Workflow(name=f"sub_{i}_wf"), pe.Workflow(name="image_wf")
            steps = [
                pe.Node(Function(["log", "name", "after"], ["name"], function, imports=[]), name=name)
                for name, function in (("fit", first if i == 0 else note), ("draw", note))
            ]
            for step in steps:
                step.inputs.log, step.inputs.name = f"to {log}", f"{step.name} {i}"
            image.connect(steps[0], "name", steps[1], "after")
            own.add_nodes([image])
            graph.add_nodes([own])
        return graph

    return build, lambda: log.read_text().split("\n")[:-1]


ORDER = ["sub_2_wf.image_wf", "sub_0_wf.image_wf", "sub_1_wf.image_wf"]


def test_an_image_is_finished_before_the_next_is_begun(participants):
    build, done = participants
    finished = []
    build(3).run(plugin=Scheduler(1, order=ORDER, finished=lambda part: finished.append((part, len(done())))))
    assert done() == ["fit 2", "draw 2", "fit 0", "draw 0", "fit 1", "draw 1"]
    assert finished == [(Finished(name, worked=True, failed=False), 2 * i) for i, name in enumerate(ORDER, start=1)]


def test_no_more_images_are_in_work_than_processes(participants):
    build, done = participants
    build(6).run(plugin=Scheduler(2))
    begun = ended = 0
    for step, _ in map(str.split, done()):
        begun += step == "fit"
        ended += step == "draw"
        assert begun - ended <= 2
    assert ended == 6


def test_what_needed_a_failed_step_is_dropped_and_the_image_is_finished(participants, tmp_path):
    build, done = participants
    finished = []
    with pytest.raises(RuntimeError, match="ValueError: fit 0"):
        build(2, first=refuse).run(plugin=Scheduler(1, finished=finished.append))
    assert done() == ["fit 1", "draw 1"]
    assert [(part.name[:5], part.failed) for part in finished] == [("sub_0", True), ("sub_1", False)]
    assert len(list(tmp_path.glob("crash-*.txt"))) == 1


def wait_for(graph, first, second):
    """Let the fit of the first image wait for that of the second."""
    one, other = (graph.get_node(f"sub_{i}_wf") for i in (first, second))
    graph.connect(other, "image_wf.fit.name", one, "image_wf.fit.after")
    return graph


@pytest.mark.parametrize("processes", [1, 2])
def test_an_image_that_waits_for_another_one_goes_on_as_soon_as_it_can(participants, processes):
    build, done = participants
    wait_for(build(2), 0, 1).run(plugin=Scheduler(processes))
    assert done()[0] == "fit 1"
    assert sorted(done()) == ["draw 0", "draw 1", "fit 0", "fit 1"]


def test_an_image_that_waits_for_a_step_that_fails_has_failed(participants):
    build, done = participants
    finished = []
    with pytest.raises(RuntimeError, match="ValueError: fit 0"):
        wait_for(build(2, first=refuse), 1, 0).run(plugin=Scheduler(1, finished=finished.append))
    assert done() == []
    assert [part.failed for part in finished] == [True, True]


def test_what_is_done_is_not_done_again(participants, tmp_path):
    build, done = participants
    build(2).run(plugin=Scheduler(1))
    finished = []
    build(2).run(plugin=Scheduler(1, finished=finished.append))
    assert len(done()) == 4
    assert [part.worked for part in finished] == [False, False]
    (tmp_path / "wf/sub_1_wf/image_wf/fit/result_fit.pklz").unlink()
    build(2).run(plugin=Scheduler(2))
    assert done()[4:] == ["fit 1"]


# --- the end --------------------------------------------------------------------------------------------------------


RUN_A_NAP = """
import signal
import sys

from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from bidsfit.run.scheduler import Scheduler


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
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
workflow.run(plugin=Scheduler(2))
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_run(tmp_path, end):
    """In a process of its own: an interrupt that falls into a callback of the garbage collector is lost."""
    started, script = tmp_path / "started.txt", tmp_path / "run.py"
    script.write_text(RUN_A_NAP)
    run = subprocess.Popen([sys.executable, script, started, tmp_path], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: started.exists() and started.read_text())
        worker = int(started.read_text())
        run.send_signal(end)
        assert wait_until(lambda: run.poll() is not None)
        assert wait_until(lambda: not is_alive(worker), seconds=10)
    finally:
        run.kill()


def is_alive(process):
    """Whether a process still runs: one that nobody asked for its end is none."""
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def wait_until(true, seconds=60):
    """Whether a condition comes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(true())
