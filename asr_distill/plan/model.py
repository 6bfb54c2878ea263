"""The cost model: every stage is a fixed part and a rate, from measured runs; GPUs by their measured rates.

A stage's seconds are fixed + rate * amount, neither below 0, by least squares of the relative errors. Where the runs
hold about the same amount of this stage's work, the run with the most training speech gives the rate; where one of the
two would be negative, the other alone is fitted on that run. Memory goes likewise with the hours of training, disk
with the work (networks and their targets: with the hours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_distill.plan.gpu import Gpu
from asr_distill.plan.measured import Run
from asr_distill.plan.work import Work

SAME = 1.2  # amounts within this ratio tell no slope
EFFICIENCY = 0.8  # of each core beyond those measured: an assumption, not a measurement


@dataclass(frozen=True)
class Line:
    """fixed + rate * x."""

    fixed: float
    rate: float

    def __call__(self, x: float) -> float:
        return self.fixed + self.rate * x


@dataclass(frozen=True)
class Machine:
    """What is planned for. gpus 0: everything on the cores, as measured."""

    cores: int
    gpus: int = 0
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Predicted:
    """One stage: wall-clock seconds, CPU seconds on cores like those measured (0 where a GPU does the work), bytes of
    memory and of disk, and how many GPUs are busy."""

    stage: str
    seconds: float
    cpu_seconds: float
    peak_bytes: float
    bytes: float
    gpus: int


def fit_line(x: Sequence[float], y: Sequence[float], size: Sequence[float]) -> Line:
    """`size`: training hours of each run; the largest decides where the runs do not tell both parts."""
    largest = int(np.argmax(size))
    along, values = np.asarray(x, float), np.asarray(y, float)
    if not values[largest] > 0:
        return Line(0.0, 0.0)
    proportional = Line(0.0, values[largest] / along[largest]) if along[largest] > 0 else Line(values[largest], 0.0)
    if along.min() <= 0 or along.max() < SAME * along.min():
        return proportional
    weights = 1 / np.maximum(values, 1e-9)
    design = np.stack([weights, weights * along], 1)
    fixed, rate = np.linalg.lstsq(design, np.ones(len(values)), rcond=None)[0]
    if rate <= 0:
        return Line(float(values[largest]), 0.0)
    return Line(float(fixed), float(rate)) if fixed >= 0 else proportional


def predict(runs: Sequence[Run], work: dict[str, Work], train_hours: float, machine: Machine) -> list[Predicted]:
    """Every stage of `work` that all runs hold, in its order."""
    stages = [name for name in work if all(name in run.stages for run in runs)]
    return [_stage(name, runs, work[name], train_hours, machine) for name in stages]


def _stage(name: str, runs: Sequence[Run], work: Work, train_hours: float, machine: Machine) -> Predicted:
    costs, size = [run.stages[name] for run in runs], [run.train_hours for run in runs]
    amounts = [cost.amount for cost in costs]
    seconds = fit_line(amounts, [cost.seconds for cost in costs], size)(work.amount)
    cpu_seconds = fit_line(amounts, [cost.cpu_seconds for cost in costs], size)(work.amount)
    peak = memory_line(size, [cost.peak_bytes for cost in costs])(train_hours)
    along, at = (size, train_hours) if work.spread == "gpus" else (amounts, work.amount)  # targets are a frame's
    disk = fit_line(along, [cost.bytes for cost in costs], size)(at)
    if work.spread == "gpus" and machine.gpus and machine.gpu:
        return Predicted(name, machine.gpu.seconds(work, machine.gpus), 0.0, peak, disk,
                         machine.gpus if work.asked else min(machine.gpus, max(1, len(work.trainings))))
    if work.spread != "one":
        seconds /= speedup(machine.cores, max(cost.cpus for cost in costs))
    return Predicted(name, seconds, cpu_seconds, peak, disk, 0)


def memory_line(hours: Sequence[float], peaks: Sequence[float]) -> Line:
    """Most of a process's memory does not grow with the data (graphs, libraries): one run alone tells no growth."""
    return fit_line(hours, peaks, hours) if len(peaks) > 1 else Line(peaks[0], 0.0)


def speedup(cores: int, measured: int) -> float:
    """How much faster the work goes on `cores` than on the `measured` ones; each further core counts EFFICIENCY."""
    if cores <= measured:
        return cores / measured
    return 1 + EFFICIENCY * (cores - measured) / measured


def power_law(x: Sequence[float], y: Sequence[float], at: float, most: float = math.inf) -> float:
    """y as a power of x, by least squares of the logarithms, at a further x; at most `most`. One point: y itself."""
    if len(x) < 2 or max(x) < SAME * min(x):
        return min(most, y[int(np.argmax(x))])
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return min(most, float(np.exp(intercept + slope * math.log(at))))
