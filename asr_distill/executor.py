"""Lists of independent jobs: one after another, or over processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from asr_distill.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
Self = TypeVar("Self", bound="Workers")  # typing.Self is new in Python 3.11


def available_cpus() -> int:
    """Cores this process may use (respects affinity and containers' cpusets)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that stay for several lists of jobs (`with Workers(2) as pool: pool.run(...)`).

    `workers` 0 means one a core; with 1 everything is done in this process. Workers are spawned (safe with threads
    and CUDA), so functions must be importable; the running script itself is not imported again.
    """

    def __init__(self, workers: int = 1, *, initializer: Callable[..., None] | None = None,
                 initargs: tuple[Any, ...] = ()):
        self.workers = workers or available_cpus()
        self._initializer, self._initargs = initializer, initargs
        self._pool: ProcessPoolExecutor | None = None
        self._ready = False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Yield (job, result) as results come, in no set order.

        At most a few jobs a worker are pending at once, so `jobs` may be a long lazy stream. An exception of a job is
        raised here. Raises UserError where a worker is killed (out of memory, most often).
        """
        if self.workers == 1:
            if self._initializer and not self._ready:
                self._initializer(*self._initargs)
            self._ready = True
            for job in jobs:
                yield job, function(job)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker,
                initargs=(self._initializer, self._initargs))
        pending: dict[Future[Result], Job] = {}
        stream = iter(jobs)
        try:
            exhausted = False
            while pending or not exhausted:
                while not exhausted and len(pending) < 4 * self.workers:
                    try:
                        job = next(stream)
                    except StopIteration:
                        exhausted = True
                        break
                    with _script_unseen(function):
                        pending[self._pool.submit(function, job)] = job
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    job = pending.pop(future)
                    yield job, future.result()
        except BrokenProcessPool:
            raise UserError("a worker process was killed (out of memory?): use fewer workers and run the same "
                            "command again; finished work is kept") from None
        finally:
            for future in pending:
                future.cancel()


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int = 1,
             initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = (),
             ) -> Iterator[tuple[Job, Result]]:
    """One list of jobs on workers of its own; see Workers."""
    with Workers(workers, initializer=initializer, initargs=initargs) as pool:
        yield from pool.run(function, jobs)


@contextmanager
def _script_unseen(function: Callable[..., Any]) -> Iterator[None]:
    """Spawned processes import the parent's script again: seconds for a recipe, and of no use to its workers."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or function.__module__ == "__main__" or main.__spec__ is not None:
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path


def _begin_worker(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """Set a worker up; it ends with its parent, also when that is killed and can tell it nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if initializer:
        initializer(*initargs)
