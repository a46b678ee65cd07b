"""Several steps at a time on one machine."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from traceback import format_exception_only
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin as NipypeMultiProc
from nipype.pipeline.plugins.multiproc import process_initializer

from bidsfit.exceptions import StepKilledError


class MultiProc(NipypeMultiProc):
    """Nipype's plugin, which waits for ever for a worker that was killed, and leaves workers behind when it is stopped.

    Here a step whose worker died (as a rule for want of memory) fails like any other, the rest goes on with new
    workers, and none outlives the run.
    """

    def run(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().run(*arguments, **options)
        finally:
            for worker in list((self.pool._processes or {}).values()):  # no public way before Python 3.14
                worker.kill()
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        try:
            return int(super()._submit_job(node, updatehash))
        except BrokenProcessPool:
            self.pool = ProcessPoolExecutor(
                max_workers=self.processors,
                initializer=process_initializer,
                initargs=(self._cwd,),
                mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context")),
            )
            return int(super()._submit_job(node, updatehash))

    def _async_callback(self, args: Future[Any]) -> None:
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid: int) -> Any:
        future = self._task_obj[taskid]
        if future.done() and isinstance(future.exception(), BrokenProcessPool):
            error = StepKilledError(
                "The process of this step was killed, as a rule by the system for want of memory. Steps that ran "
                "beside it ended with it. Run the same command again with fewer --nprocs or with --low-mem; it resumes."
            )
            return {"taskid": taskid, "result": None, "traceback": format_exception_only(error)}
        return super()._get_result(taskid)
