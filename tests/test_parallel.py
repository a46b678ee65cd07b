"""Pieces of work, shared among processes or not."""

import os
import subprocess
import sys
from operator import truediv

import pytest

from bidsfit.exceptions import OutOfMemoryError
from bidsfit.parallel import in_processes


@pytest.mark.parametrize("threads", [1, 2])
def test_results_come_in_the_order_of_the_jobs(threads):
    done = []
    found = in_processes(truediv, ((k, 2) for k in range(5)), 5, threads, done.append)
    assert list(found) == [0, 0.5, 1, 1.5, 2]
    assert done == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_no_job_is_made_before_its_turn():
    made = []

    def jobs():
        for k in range(3):
            made.append(k)
            yield k, 1

    next(in_processes(truediv, jobs(), 3))
    assert made == [0]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_a_job_is_raised(threads):
    with pytest.raises(ZeroDivisionError):
        list(in_processes(truediv, iter([(1, 1), (1, 0)]), 2, threads))


def test_a_worker_that_is_killed_is_told_as_want_of_memory():
    with pytest.raises(OutOfMemoryError, match=r"was killed.*--nprocs.*it resumes"):
        list(in_processes(os.abort, iter([(), ()]), 2, 2))


def test_where_processes_cannot_share_locks_it_is_said_what_is_needed():
    words = "mount -t tmpfs -o ro tmpfs /dev/shm && exec $0 -c 'from bidsfit.parallel import *; require_locks()'"
    command = ["unshare", "--mount", "sh", "-c", words, sys.executable]
    if os.getuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("file systems can be mounted by root only")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "CannotCreateError: Processes that work side by side share locks in /dev/shm" in found.stderr
    assert found.stderr.endswith("or let one process do everything: --nprocs 1 --omp-nthreads 1.\n")


def test_libraries_are_limited_that_are_loaded_later():
    """In a fresh interpreter SciPy's linear algebra was loaded by the work, after its threads had been limited."""
    words = (
        "from bidsfit.parallel import in_processes\n"
        "def job(x):\n"
        "    import scipy.linalg, threadpoolctl\n"
        "    return [library['num_threads'] for library in threadpoolctl.threadpool_info()]\n"
        "print(*in_processes(job, [(0,)], 1))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", words]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert set(found.stdout.strip("[]\n").split(", ")) == {"1"}
