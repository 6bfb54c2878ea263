"""What one GPU does a second, as measured: trainings by kind and size of network, and posteriors."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.config import build
from asr_distill.errors import UserError
from asr_distill.files import read_json
from asr_distill.plan.work import Training, Work


@dataclass(frozen=True)
class Rate:
    """Frames a second that one GPU trains a network of this kind and size on (or is asked for posteriors of)."""

    parameters: int
    frames_per_second: float
    kind: str = ""

    @property
    def throughput(self) -> float:
        """Parameters times frames a second."""
        return self.parameters * self.frames_per_second


@dataclass(frozen=True)
class Gpu:
    """Rates of one card, one training at a time on it."""

    name: str
    source: str
    training: tuple[Rate, ...]
    posteriors: tuple[Rate, ...]

    def seconds(self, work: Work, gpus: int) -> float:
        """Wall-clock seconds of a stage's networks on so many cards, one training a card, the longest first.

        Posteriors are shared out among the cards by frames. A network is asked no slower than it is trained, which is
        three times the arithmetic.
        """
        if work.asked:
            return sum(job.amount / max(throughput(self.posteriors, job), throughput(self.training, job))
                       for job in work.trainings) / gpus
        ends = [0.0] * gpus
        for seconds in sorted((job.amount / throughput(self.training, job) for job in work.trainings), reverse=True):
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends)


def throughput(rates: Sequence[Rate], job: Training) -> float:
    """Parameters times frames a second at the job's size, between the two nearest measured sizes of its kind (all kinds
    where its own was not measured); beyond them as at the nearest."""
    known = sorted([rate for rate in rates if rate.kind == job.kind] or rates, key=lambda rate: rate.parameters)
    place = math.log(job.parameters)
    for low, high in itertools.pairwise(known):
        if low.parameters <= job.parameters <= high.parameters:
            width = math.log(high.parameters) - math.log(low.parameters)
            share = (place - math.log(low.parameters)) / width if width else 0.0
            return math.exp((1 - share) * math.log(low.throughput) + share * math.log(high.throughput))
    nearest = min(known, key=lambda rate: abs(math.log(rate.parameters) - place))
    return nearest.throughput


def load_gpu(path: Path) -> Gpu:
    """Raises UserError where the file does not hold a card's rates."""
    tree: Any = read_json(path)
    try:
        return Gpu(tree["name"], tree["source"],
                   tuple(build(Rate, rate) for rate in tree["training"]),
                   tuple(build(Rate, rate) for rate in tree["posteriors"]))
    except (KeyError, TypeError):
        raise UserError(f"{path}: not a GPU's measured rates; conf/measured/h100.json is an example") from None
