"""Which executor: by settings or the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from asr_distill.config import NO_RESULT
from asr_distill.executor.base import Executor, Job, available_cpus
from asr_distill.executor.processes import Processes
from asr_distill.executor.serial import Serial

Kind = Literal["none", "serial", "processes", "dask"]


@dataclass(frozen=True)
class ExecutorSettings:
    """Where lists of independent jobs run. Nothing here changes a result."""

    kind: Kind = field(default="none", metadata=NO_RESULT)  # none: Threads of this process
    workers: int = field(default=0, metadata=NO_RESULT)  # processes; 0: one a core, or those that the scheduler has
    scheduler: str = field(default="", metadata=NO_RESULT)  # of Dask: tcp://HOST:PORT or its file; none: a local one

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, not {self.workers}")
        if self.scheduler and self.kind != "dask":
            raise ValueError(f"a scheduler is of use to the executor dask alone, not to {self.kind}")


def open_executor(settings: ExecutorSettings) -> Executor | None:
    """None where none is asked for. Raises UserError where Dask is not installed or its scheduler does not answer."""
    if settings.kind == "none":
        return None
    if settings.kind == "serial":
        return Serial()
    if settings.kind == "processes":
        return Processes(settings.workers or available_cpus())
    from asr_distill.executor.cluster import DaskCluster  # an extra, and slow to import
    return DaskCluster(settings.workers, settings.scheduler)


def local_executor(workers: int = 1, *, initializer: Callable[..., None] | None = None,
                   initargs: tuple[Any, ...] = ()) -> Executor:
    """Processes of this machine (0: one a core); with 1 everything is done in this process.

    initializer(*initargs) is called once in each.
    """
    workers = workers or available_cpus()
    return Serial(initializer, initargs) if workers == 1 else Processes(workers, initializer, initargs)


def run_jobs(function: Callable[[Job], Any], jobs: Iterable[Job], *, workers: int = 1,
             executor: Executor | None = None, initializer: Callable[..., None] | None = None,
             initargs: tuple[Any, ...] = ()) -> Iterator[tuple[Job, Any]]:
    """One list on the executor, where there is one, else on a local one of its own."""
    if executor is not None:
        yield from executor.run(function, jobs, threads=0)
        return
    with local_executor(workers, initializer=initializer, initargs=initargs) as own:
        yield from own.run(function, jobs, threads=0)
