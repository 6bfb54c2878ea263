"""Trainings of separate networks as jobs of the executor, several at once: teachers, and specialists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from asr_distill.executor import Context, Executor, Threads
from asr_distill.executor.follow import followed
from asr_distill.logs import to_file
from asr_distill.parallel.crew import current
from asr_distill.progress import Progress

LOG = "log.txt"  # of a network that a worker trains, in its folder


class Training(Protocol):
    """A job; its network is kept in the folder of this name."""

    @property
    def name(self) -> str: ...


TrainingT = TypeVar("TrainingT", bound=Training)


class Trainings(Protocol):
    """What the trainings of one list need, built once in each worker."""

    out: Path

    def train(self, training: Any) -> dict[str, Any]:
        """The figures of a network in `out`/name; one that is there already is not trained again."""


def train_all(executor: Executor | None, trainings: Context, jobs: Sequence[TrainingT], out: Path, noun: str,
              amount: Callable[[TrainingT], float]) -> dict[str, dict[str, Any]]:
    """The figures of all by name, in the order of `jobs`. `trainings`: builds a `Trainings` of the folder `out`.

    One after the other in this process, or where the executor has several workers as its jobs, those of the greatest
    `amount` first: each worker has its share of this process's threads, and a lost worker's training goes on from its
    checkpoint.
    """
    # where several processes train one network (parallel.crew) they are needed for every one of them
    if executor is None or isinstance(executor, Threads) or min(executor.workers, len(jobs)) < 2 or current().size > 1:
        built = trainings.build(*trainings.arguments)
        return {job.name: built.train(job) for job in jobs}
    threads = max(1, torch.get_num_threads() // min(executor.workers, len(jobs)))
    figures = {}
    with Progress(noun, len(jobs), noun) as progress, followed([out / job.name / LOG for job in jobs]):
        for job, found in executor.run(_train_logged, sorted(jobs, key=lambda job: -amount(job)), context=trainings,
                                       threads=threads, name=lambda job: job.name):
            figures[job.name] = found
            progress.update(1, f"{job.name} is trained")
    return {job.name: figures[job.name] for job in jobs}


def _train_logged(trainings: Trainings, job: Training) -> dict[str, Any]:
    folder = trainings.out / job.name
    folder.mkdir(parents=True, exist_ok=True)
    with to_file(folder / LOG):
        return trainings.train(job)
