"""One job after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asr_distill.executor.base import Context, Executor, Job
from asr_distill.executor.task import Task


class Serial(Executor):
    """The reference: what the other kinds must give too."""

    workers = 1

    def __init__(self, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()):
        self._initializer, self._initargs = initializer, initargs

    def run(self, function: Callable[..., Any], jobs: Iterable[Job], *, context: Context | None = None,
            name: Callable[[Job], str] | None = None, threads: int = 1) -> Iterator[tuple[Job, Any]]:
        if self._initializer:
            self._initializer(*self._initargs)
            self._initializer = None
        task = Task(function, context, threads)
        for number, job in enumerate(jobs, 1):
            yield job, task(job).unwrap(name(job) if name else f"job {number}")

    def close(self) -> None:
        pass
