"""Trainings of separate networks as jobs of the executor, several at once: teachers, and specialists."""

from __future__ import annotations

from collections.abc import Sequence
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


TrainingT = TypeVar("TrainingT", bound=Training, contravariant=True)


class Trainings(Protocol[TrainingT]):
    """What the trainings of one list need, built once in each worker."""

    out: Path

    def train(self, training: TrainingT) -> dict[str, Any]:
        """The figures of a network in `out`/name; one that is there already is not trained again."""


def one_by_one(executor: Executor | None, count: int) -> bool:
    """Whether so many trainings are this process's own work."""
    # where several processes train one network (parallel.crew) they are needed for every one of them
    return executor is None or isinstance(executor, Threads) or min(executor.workers, count) < 2 or current().size > 1


def train_at_once(executor: Executor, trainings: Context, jobs: Sequence[Training], out: Path,
                  noun: str) -> dict[str, dict[str, Any]]:
    """The figures of all by name, begun in the order of `jobs`. `trainings`: builds a `Trainings` of the folder `out`.

    Each worker has its share of this process's threads. A lost worker's training goes on from its checkpoint.
    """
    threads = max(1, torch.get_num_threads() // min(executor.workers, len(jobs)))
    figures = {}
    with Progress(noun, len(jobs), noun) as progress, followed([out / job.name / LOG for job in jobs]):
        for job, found in executor.run(_train_logged, jobs, context=trainings, threads=threads,
                                       name=lambda job: job.name):
            figures[job.name] = found
            progress.update(1, f"{job.name} is trained")
    return figures


def _train_logged(trainings: Trainings[Training], job: Training) -> dict[str, Any]:
    folder = trainings.out / job.name
    folder.mkdir(parents=True, exist_ok=True)
    with to_file(folder / LOG):
        return trainings.train(job)
