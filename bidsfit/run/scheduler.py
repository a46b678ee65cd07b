"""Scheduling of workflow nodes on one machine: image after image, one node at a time or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from traceback import format_exc, format_exception_only
from typing import Any

import networkx as nx
from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.tools import report_crash
from nipype.utils.profiler import get_system_total_memory_gb

from bidsfit.exceptions import DiskFullError, OutOfMemoryError
from bidsfit.parallel import end_with_parent, require_locks
from bidsfit.run.failures import full_disk

#: Fraction of the memory of the machine that steps may use together, where the user says nothing.
MEMORY = 0.9


@dataclass(frozen=True)
class Finished:
    """A part of the graph (an image) with no nodes left to run.

    ``name`` is as in the full names of its nodes (``sub_01_wf.sub_01_dwi_wf``). ``worked``: some node had no result
    from an earlier run. ``failed``: some node failed, so that the nodes that depend on it did not run.
    """

    name: str
    worked: bool
    failed: bool


class Scheduler(PluginBase):
    """Nipype plugin that finishes images before it starts others.

    As many images as there are processes are processed at a time, in the given order, so that results are complete
    early. Nipype's and niworkflows' plugins process all images at once, treat an interrupt as a failure of the running
    node, and wait forever for a worker that was killed. Here the nodes whose worker was killed (usually for lack of
    memory), and those beside them, run once more, each alone; one that is killed again fails like any other. The run
    continues with new workers, and no worker outlives the run. A full disk ends the run, since all further nodes would
    fail.

    Parameters
    ----------
    processes : int
        With 1, all nodes run in this process.
    memory_gb : float, optional
        Memory for all nodes that run at a time; a single node may exceed it. By default a fraction of the system's
        memory.
    order : sequence of str
        Names of images, as in `Finished`; others follow in the order of the graph.
    finished : callable, optional
        Called with `Finished` after the last node of an image.
    """

    def __init__(
        self,
        processes: int,
        memory_gb: float | None = None,
        order: Sequence[str] = (),
        finished: Callable[[Finished], None] = lambda part: None,
    ) -> None:
        super().__init__()
        self.processes = processes
        self.memory_gb = get_system_total_memory_gb() * MEMORY if memory_gb is None else memory_gb
        self.order = order
        self.finished = finished

    def run(self, graph: nx.DiGraph, config: dict[str, Any], updatehash: bool = False) -> None:
        """Run the nodes of a graph.

        Raises
        ------
        RuntimeError
            If a node failed: after all others have run, or at once if Nipype is configured to stop on the first crash.
        DiskFullError
            If a node failed because the disk is full.
        """
        self.graph = graph
        self.stops_early = str(config["execution"]["stop_on_first_crash"]).lower() == "true"
        self.left: dict[str, dict[Any, None]] = {name: {} for name in self.order}  # steps in order, by part
        for node in nx.topological_sort(graph):
            self.left.setdefault(_part(node), {})[node] = None
        self.left = {name: nodes for name, nodes in self.left.items() if nodes}
        self.waits_for = dict(graph.in_degree())
        self.running: dict[Future[str], Any] = {}
        self.alone: set[Any] = set()  # nodes that were killed, or ran beside one
        self.worked: set[str] = set()
        self.failures: list[tuple[str, str]] = []
        self.pool = self._new_pool()
        try:
            while self.left:
                if not self._start_steps():
                    for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                        self._take_result(future)
        finally:
            _end(self.pool)
        if self.failures:
            raise RuntimeError(self.failures[0][1])

    def _new_pool(self) -> Executor:
        if self.processes == 1:
            return _ThisProcess()
        require_locks()
        return ProcessPoolExecutor(self.processes, initializer=_start_worker, initargs=(os.getcwd(), os.getpid()))

    def _start_steps(self) -> bool:
        """Start all nodes that can run; return True if one ended at once, so that others may start."""
        ready = ([node for node in part if self.waits_for[node] == 0] for part in self.left.values())
        # A part may wait for another one; it does not keep that from being started.
        for nodes in list(islice(filter(None, ready), self.processes)):
            for node in nodes:
                if node in self.running.values() or not self._fits(node):
                    continue
                if self._is_done(node):
                    self._end_step(node)
                    return True
                if node.run_without_submitting:
                    self._end_step(node, run_step(node))
                    return True
                self.running[self._submit(node)] = node
        return False

    def _fits(self, node: Any) -> bool:
        """Whether threads and memory suffice to run a node beside the running ones."""
        if self.running and self.alone & {node, *self.running.values()}:
            return False
        threads = sum(self._threads(other) for other in self.running.values())
        memory = sum(other.mem_gb for other in self.running.values())
        return not self.running or (
            threads + self._threads(node) <= self.processes and memory + node.mem_gb <= self.memory_gb
        )

    def _threads(self, node: Any) -> int:
        return min(int(node.n_procs), self.processes)

    def _is_done(self, node: Any) -> bool:
        """Whether a node has a valid result from an earlier run and need not run again."""
        try:
            cached, updated = node.is_cached()
            if cached and updated:
                node.result  # noqa: B018 (refused where a file is gone)
                return not (node.overwrite or (node.overwrite is None and node.interface.always_run))
        except Exception:
            # Whatever makes its state unreadable: it runs, and says what is wrong. Nipype would take it for done, and
            # put an empty result in place of one whose file is gone.
            node.overwrite = True
        self.worked.add(_part(node))
        return False

    def _submit(self, node: Any) -> Future[str]:
        try:
            return self.pool.submit(run_step, node)
        except BrokenProcessPool:
            _end(self.pool)
            self.pool = self._new_pool()
            return self.pool.submit(run_step, node)

    def _take_result(self, future: Future[str]) -> None:
        node = self.running.pop(future)
        try:
            trace = future.result()
        except BrokenProcessPool:
            if node not in self.alone:
                self.alone.add(node)
                return
            error = OutOfMemoryError(
                "The process of this step was killed, as a rule by the system for want of memory, and again when "
                "nothing ran beside it."
            )
            trace = "".join(format_exception_only(error))
        self._end_step(node, trace)

    def _end_step(self, node: Any, trace: str = "") -> None:
        """Let the nodes that depend on a finished node start, or drop them if it failed."""
        if not trace:
            for follower in self.graph.successors(node):
                self.waits_for[follower] -= 1
            self._drop(node)
            return
        full = full_disk(trace, Path(node.output_dir()))
        if full:
            raise DiskFullError(full)
        report_crash(node, traceback=trace.splitlines(keepends=True))
        if self.stops_early:
            raise RuntimeError(trace)
        dropped = nx.descendants(self.graph, node)
        self.failures += [(part, trace) for part in dict.fromkeys(map(_part, [node, *dropped]))]
        self._drop(node, *dropped)

    def _drop(self, *nodes: Any) -> None:
        """Remove nodes from those to run, and report parts that are finished."""
        for node in nodes:
            name = _part(node)
            self.left.get(name, {}).pop(node, None)
            if name in self.left and not self.left[name]:
                del self.left[name]
                self.finished(Finished(name, name in self.worked, name in dict(self.failures)))


def run_step(node: Any) -> str:
    """Run a node; return the traceback if it failed, else an empty string."""
    try:
        node.run()
    except Exception:
        return format_exc()
    return ""


def _part(node: Any) -> str:
    """Name of the part that a node belongs to: workflows of participant and image."""
    return ".".join(node.fullname.split(".")[1:3])


class _ThisProcess(Executor):
    """Executor that runs each call immediately in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future


def _start_worker(folder: str, parent: int) -> None:
    os.chdir(folder)
    os.environ["NIPYPE_NO_ET"] = "1"  # Nipype asks nobody for its newest version
    end_with_parent(parent)


def _end(pool: Executor) -> None:
    """Kill the workers of a pool."""
    for worker in list((getattr(pool, "_processes", None) or {}).values()):  # no public way before Python 3.14
        worker.kill()
    pool.shutdown(wait=False, cancel_futures=True)
