"""The interface: a list of independent jobs in, (job, result) out as results come."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

Job = TypeVar("Job")
Self = TypeVar("Self", bound="Executor")  # typing.Self is new in Python 3.11
ATTEMPTS = 3  # a job that has killed so many workers is given up


@dataclass(frozen=True)
class Context:
    """What every job of a list needs (a graph, a model): `build(*arguments)`, made once in each worker process.

    Large files go by path: workers read them themselves, from a file system that all machines share.
    """

    build: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Executor(ABC):
    """`with open_executor(...) as executor: executor.run(function, jobs)`; workers stay from list to list.

    Functions, contexts' builders and arguments, jobs and results go between processes by pickle: functions must be
    importable. The folder that this process works in is that of the workers, so paths may be relative.
    """

    workers: int  # how many jobs run at once; for a cluster, how many are expected
    elsewhere = False  # whether workers are none of this process's children: what they cost is not seen here

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def run(self, function: Callable[..., Any], jobs: Iterable[Job], *, context: Context | None = None,
            name: Callable[[Job], str] | None = None, threads: int = 1) -> Iterator[tuple[Job, Any]]:
        """Yield (job, function(job)) as results come, in no set order; with a context, function(context, job).

        A few jobs a worker are under way at once, so `jobs` may be a long lazy stream. Each runs on `threads` of
        torch's threads, wherever it runs, so that sums come out the same (0: on as many as the process has).
        `name`: what messages call a job. A job whose worker is lost is done again by another. Raises UserError where
        a job has lost three workers, or fails by a fault of the program (named; the log has the traceback); a job's
        own UserError or OSError is raised as it is. When this has raised or is closed no job is begun any more. One
        list at a time.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers. The executor is of no use afterwards."""


def available_cpus() -> int:
    """Cores this process may use (respects affinity and containers' cpusets)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
