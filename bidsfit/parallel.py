"""Parallel execution of independent jobs in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from bidsfit.exceptions import CannotCreateError, OutOfMemoryError

Result = TypeVar("Result")

#: Told how far a piece of work is: the fraction that is done.
Progress = Callable[[float], object]


#: Of tqdm, for a bar that goes to 100.
BAR_FORMAT = "{l_bar}{bar}| {elapsed}<{remaining}"


def part_of(progress: Progress | None, start: float, stop: float) -> Progress | None:
    """Progress function for a part of some work that extends from fraction ``start`` to ``stop``; None without one."""
    if progress is None:
        return None
    return lambda done: progress(start + done * (stop - start))


#: Seconds between two looks at whether the parent of a process is still there.
LOOK = 0.5

#: Libraries of linear algebra that would each start as many threads as there are cores, in every process.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def library_threads(n: int, user_api: str | None = None) -> AbstractContextManager[Any]:
    """Limit the threads of linear algebra ("blas") or of all libraries within a ``with`` block.

    Only loaded libraries can be limited, so that NumPy and SciPy, which contain one each, are imported here.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    return threadpool_limits(max(n, 1), user_api)


def in_processes(
    function: Callable[..., Result],
    jobs: Iterable[tuple[Any, ...]],
    n_jobs: int,
    threads: int = 1,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Results of ``function(*job)`` in the order of the jobs, each as soon as it is available.

    Jobs are generated as processes become free, so that few are in memory. Each process uses one thread. It can be
    called in any process that is not a daemon, such as that of a workflow node.

    Parameters
    ----------
    function : callable
        Must be defined at the top level of a module.
    jobs : iterable of tuple
        Arguments of the calls.
    n_jobs : int
        Number of jobs.
    threads : int
        Number of processes; 1 computes in this process.
    """
    results = _here(function, jobs) if min(threads, n_jobs) <= 1 else _shared(function, jobs, min(threads, n_jobs))
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(done / n_jobs)


def _here(function: Callable[..., Result], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    for job in jobs:
        with library_threads(1):
            result = function(*job)
        yield result


def _shared(function: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], n_processes: int) -> Iterator[Result]:
    from joblib.externals.loky import ProcessPoolExecutor  # processes that share no locks with this one

    require_locks()
    left = iter(jobs)
    with ProcessPoolExecutor(n_processes, initializer=end_with_parent, initargs=(os.getpid(),), env=ONE_THREAD) as pool:
        ahead = deque(pool.submit(function, *job) for job in islice(left, n_processes + 1))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(function, *job) for job in islice(left, 1))
                yield result
        except BrokenProcessPool as error:
            raise OutOfMemoryError(
                "A process that shared the work was killed, as a rule by the system for want of memory."
            ) from error
        finally:
            for future in ahead:
                future.cancel()


def require_locks() -> None:
    """Raise `CannotCreateError` unless processes can share locks, which Linux keeps in ``/dev/shm``."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise CannotCreateError(
            "Processes that work side by side share locks in /dev/shm, which cannot be written: "
            f"{error.strerror}. Mount a file system in memory there that every user can write (docker run "
            "--tmpfs /dev/shm:mode=1777), or let one process do everything: --nprocs 1 --omp-nthreads 1."
        ) from error


def end_with_parent(parent: int) -> None:
    """Make this process and its children end soon after the parent process ends, for whatever reason.

    Keyboard interrupts, which all processes receive, are ignored here and handled by the parent. Where memory runs out,
    Linux kills this process rather than the parent, which can tell of it.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        end_children()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def end_children() -> None:
    """Kill all child processes and their children."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
