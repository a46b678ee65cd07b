"""Pieces of work, shared among processes or not."""

from operator import truediv

import pytest

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
