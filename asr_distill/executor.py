"""Lists of independent jobs: one after another, or over processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from asr_distill.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cpus() -> int:
    """Cores this process may use (respects affinity and containers' cpusets)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int = 1,
             initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = (),
             ) -> Iterator[tuple[Job, Result]]:
    """Yield (job, result) as results come, in no set order. `workers` 0 means one a core.

    At most a few jobs a worker are pending at once, so `jobs` may be a long lazy stream. An exception of a
    job is raised here; workers are spawned (safe with threads and CUDA), so `function` must be importable.
    Raises UserError where a worker is killed (out of memory, most often).
    """
    workers = workers or available_cpus()
    if workers == 1:
        if initializer:
            initializer(*initargs)
        for job in jobs:
            yield job, function(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker,
                               initargs=(initializer, initargs))
    pending: dict[Future[Result], Job] = {}
    stream = iter(jobs)
    try:
        exhausted = False
        while pending or not exhausted:
            while not exhausted and len(pending) < 4 * workers:
                try:
                    job = next(stream)
                except StopIteration:
                    exhausted = True
                    break
                pending[pool.submit(function, job)] = job
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                job = pending.pop(future)
                yield job, future.result()
    except BrokenProcessPool:
        raise UserError("a worker process was killed (out of memory?): use fewer workers and run the same "
                        "command again; finished work is kept") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
