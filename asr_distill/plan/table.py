"""The plan and its check as text."""

from __future__ import annotations

from collections.abc import Sequence

from asr_distill.plan.measured import Run
from asr_distill.plan.model import Predicted
from asr_distill.progress import clock
from asr_distill.report.figures import size

HEAD = ("stage", "time", "memory", "disk", "GPUs")


def plan_table(stages: Sequence[Predicted]) -> str:
    """A line a stage, then the sum of the times, the greatest memory, the sum of the disk."""
    rows = [_row(item.stage, item.seconds, item.peak_bytes, item.bytes, item.gpus) for item in stages]
    total = _row("all, one after the other", sum(item.seconds for item in stages),
                 max(item.peak_bytes for item in stages), sum(item.bytes for item in stages),
                 max(item.gpus for item in stages))
    return _lines([HEAD, *rows, total])


def check_table(stages: Sequence[Predicted], measured: Run) -> str:
    """What was predicted beside what was measured: time, and the errors of time, CPU time, memory and disk.

    The clock also counts what else the machine did; CPU seconds do so much less.
    """
    rows = [("stage", "predicted", "measured", "error %", "CPU %", "memory %", "disk %")]
    for item in stages:
        cost = measured.stages[item.stage]
        rows.append((item.stage, clock(item.seconds), clock(cost.seconds), _error(item.seconds, cost.seconds),
                     _error(item.cpu_seconds, cost.cpu_seconds), _error(item.peak_bytes, cost.peak_bytes),
                     _error(item.bytes, cost.bytes)))
    costs = [measured.stages[item.stage] for item in stages]
    predicted, took = sum(item.seconds for item in stages), sum(cost.seconds for cost in costs)
    rows.append(("all", clock(predicted), clock(took), _error(predicted, took),
                 _error(sum(item.cpu_seconds for item in stages), sum(cost.cpu_seconds for cost in costs)),
                 _error(max(item.peak_bytes for item in stages), max(cost.peak_bytes for cost in costs)),
                 _error(sum(item.bytes for item in stages), sum(cost.bytes for cost in costs))))
    return _lines(rows)


def _error(predicted: float, measured: float) -> str:
    return f"{round(100 * (predicted / measured - 1)):+d}" if measured else "–"


def _row(name: str, seconds: float, peak: float, disk: float, gpus: int) -> tuple[str, ...]:
    return name, clock(seconds), size(round(peak)), size(round(disk)), str(gpus) if gpus else "–"


def _lines(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) if column else cell.ljust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]])
