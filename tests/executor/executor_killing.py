"""An executor that loses a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asr_distill.executor import Context, Executor
from asr_distill.executor.processes import Processes


class Killing(Executor):
    """As the one within, but one worker is killed (-9) after the first result of a list."""

    def __init__(self, inner: Executor):
        self.inner, self.workers, self.killed = inner, inner.workers, list[int]()

    def run(self, function: Callable[..., Any], jobs: Iterable[Any], *, context: Context | None = None,
            name: Callable[[Any], str] | None = None, threads: int = 1) -> Iterator[tuple[Any, Any]]:
        given = 0
        for item in self.inner.run(function, jobs, context=context, name=name, threads=threads):
            given += 1
            if given == 1:
                self.killed.append(worker_pids(self.inner)[0])
                os.kill(self.killed[-1], signal.SIGKILL)
            yield item
        assert given > 2, "too few jobs to lose a worker among them"

    def close(self) -> None:
        self.inner.close()


def worker_pids(executor: Executor) -> list[int]:
    """Those at work first."""
    if isinstance(executor, Processes):
        return [worker.process.pid or 0 for worker in executor._busy.values()]
    from asr_distill.executor.cluster import DaskCluster  # an extra
    assert isinstance(executor, DaskCluster)
    return list(executor._client.run(os.getpid).values())
