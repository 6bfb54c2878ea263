"""Threads of this process, for functions that hold no interpreter lock for long (torch, numba, reading audio)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from asr_distill.executor.base import Context, Executor, Job, available_cpus
from asr_distill.executor.task import Outcome, Task, begin_thread, torch_threads


class Threads(Executor):
    """What runs where no executor is asked for: one context for all threads, nothing is pickled, nothing started."""

    def __init__(self, workers: int = 0):
        self.workers = workers or available_cpus()

    def run(self, function: Callable[..., Any], jobs: Iterable[Job], *, context: Context | None = None,
            name: Callable[[Job], str] | None = None, threads: int = 1) -> Iterator[tuple[Job, Any]]:
        task = Task(function, context, 0)
        stream = enumerate(jobs, 1)
        pending: dict[Future[Outcome], tuple[int, Job]] = {}
        with torch_threads(threads), ThreadPoolExecutor(self.workers, initializer=begin_thread,
                                                        initargs=(threads,)) as pool:
            try:
                while True:
                    for number, job in islice(stream, max(0, 2 * self.workers - len(pending))):
                        pending[pool.submit(task, job)] = number, job
                    if not pending:
                        return
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        number, job = pending.pop(future)
                        yield job, future.result().unwrap(name(job) if name else f"job {number}")
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        pass
