"""How much work a stage is, whatever the machine: what a recipe says of its own stages (recipes/work.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Training:
    """One network to be trained, or asked for its posteriors: `frames` are seen in all (epochs counted)."""

    kind: str  # NetworkConfig.kind
    parameters: int
    frames: float

    @property
    def amount(self) -> float:
        return self.parameters * self.frames


@dataclass(frozen=True)
class Work:
    """`amount` is proportional to the part of the stage's time that grows with the data, in any unit of its own.

    `spread`: what makes it faster: nothing (one core), cores, or GPUs where `trainings` tells what they would do.
    """

    amount: float
    spread: Literal["one", "cores", "gpus"] = "one"
    trainings: tuple[Training, ...] = ()
    asked: bool = False  # the networks are asked for posteriors, not trained


@dataclass(frozen=True)
class Data:
    """Speech of an experiment: hours and utterances of every split, and how many pdfs its senone tree has."""

    hours: Mapping[str, float]
    utterances: Mapping[str, int]
    pdfs: int


WorkOf = Callable[[Any, Data], dict[str, Work]]  # settings of the recipe, data -> stage -> work


def training_work(trainings: list[Training], *, asked: bool = False) -> Work:
    return Work(sum(training.amount for training in trainings), "gpus", tuple(trainings), asked)
