"""Points that differ in their seed alone, as one row: means and deviations, intervals, and what a student kept.

Gain kept (the paper's yardstick, section 3): (student - baseline) / (ensemble - baseline), in frame accuracy and in
word error rate; of several seeds the ratio of the means. Recovered (section 6): (student - baseline) / (reference -
baseline), in frame accuracy, where `reference` is the baseline of another row: that trained on all data.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_distill.study.collect import Measured, Pooled
from asr_distill.study.config import StudyConfig

SHARES = {"gain_frame_accuracy": "frame_accuracy", "gain_wer": "wer"}  # share -> what it is a share of


@dataclass(frozen=True)
class Spread:
    """Of the same figure over seeds."""

    mean: float
    deviation: float | None  # of the sample; None for one seed
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Sequence[float], mean: float | None = None) -> Spread:
        return Spread(statistics.fmean(values) if mean is None else mean,
                      statistics.stdev(values) if len(values) > 1 else None, min(values), max(values), len(values))


@dataclass(frozen=True)
class PointResults:
    """What a point measured."""

    label: str
    axes: Mapping[str, Any]
    systems: tuple[Measured, ...]

    def find(self, role: str, like: Measured) -> Measured | None:
        """The system of a role on the same split and of the same pass (`baseline_large` for `student_large`)."""
        suffix = like.system.removeprefix(like.role)
        return next((item for item in self.systems if item.role == role and item.split == like.split
                     and item.system == role + suffix), None)

    def share(self, name: str, of: Measured) -> tuple[float, float] | None:
        """What a student gained over the baseline, and what the ensemble did."""
        baseline, ensemble = self.find("baseline", of), self.find("ensemble", of)
        measure = SHARES[name]
        if of.role != "student" or baseline is None or ensemble is None or \
                not all(measure in item.figures for item in (of, baseline, ensemble)):
            return None
        base = baseline.figures[measure]
        return of.figures[measure] - base, ensemble.figures[measure] - base


@dataclass(frozen=True)
class Row:
    """One system on one split at one combination of the axes, over seeds."""

    axes: dict[str, Any]  # without the seeds
    system: str
    role: str
    split: str
    parameters: int
    points: tuple[str, ...]  # labels
    sources: frozenset[Path]
    figures: dict[str, Spread] = field(default_factory=dict)
    interval: tuple[float, float] | None = None  # 95 %, of the WER over all seeds
    difference: tuple[float, float, float] | None = None  # WER - baseline's WER, and its 95 % interval
    p: float | None = None  # that there is none: paired bootstrap


def summarise(config: StudyConfig, points: Sequence[PointResults]) -> list[Row]:
    """Rows in the order of the points; a system's seeds together."""
    groups: dict[str, list[PointResults]] = {}
    for point in points:
        groups.setdefault(repr(_without_seeds(config, point)), []).append(point)
    rows = [_row(config, group, key) for group in groups.values()
            for key in dict.fromkeys((item.system, item.split) for point in group for item in point.systems)]
    return _recovered(config, rows)


def _row(config: StudyConfig, group: Sequence[PointResults], key: tuple[str, str]) -> Row:
    members = [(point, item) for point in group for item in point.systems if (item.system, item.split) == key]
    first = members[0][1]
    # seeds may share a system (the ensemble): it is one measurement then
    systems = list({item.source: item for _, item in members}.values())
    figures = {name: Spread.of([item.figures[name] for item in systems])
               for name in first.figures if all(name in item.figures for item in systems)}
    for share in SHARES:
        pairs = [pair for point, item in members if (pair := point.share(share, item))]
        if pairs and all(whole and (whole > 0) == (share == "gain_frame_accuracy") for _, whole in pairs):
            ratio = sum(part for part, _ in pairs) / sum(whole for _, whole in pairs)
            figures[share] = Spread.of([100 * part / whole for part, whole in pairs], 100 * ratio)
    interval, difference, p = None, None, None
    if all(item.decoded for item in systems):
        if len(systems) > 1:
            pooled = Pooled(tuple(systems)).score()
            interval = pooled.wer_low, pooled.wer_high
        else:
            interval = first.figures["wer_low"], first.figures["wer_high"]
        baselines = [point.find("baseline", item) for point, item in members]
        if first.role != "baseline" and all(item is not None and item.decoded for item in baselines):
            test = Pooled(tuple(item for item in baselines if item)).against(Pooled(tuple(item for _, item in members)))
            difference, p = (test.wer_difference, test.difference_low, test.difference_high), test.p_bootstrap
    return Row(_without_seeds(config, members[0][0]), first.system, first.role, first.split, first.parameters,
               tuple(point.label for point, _ in members), frozenset(item.source for item in systems), figures,
               interval, difference, p)


def _recovered(config: StudyConfig, rows: Sequence[Row]) -> list[Row]:
    """Rows of students with the share of the loss that they recover against the reference's baseline."""
    def accuracy(row: Row | None) -> float | None:
        return row.figures["frame_accuracy"].mean if row and "frame_accuracy" in row.figures else None

    if not config.reference:
        return list(rows)
    for row in rows:
        if row.role != "student":
            continue
        top = accuracy(_baseline(rows, row, row.axes | config.reference))
        bottom, own = accuracy(_baseline(rows, row, row.axes)), accuracy(row)
        if top is not None and bottom is not None and own is not None and top > bottom:
            row.figures["recovered"] = Spread.of([100 * (own - bottom) / (top - bottom)])
    return list(rows)


def _baseline(rows: Sequence[Row], like: Row, axes: Mapping[str, Any]) -> Row | None:
    return next((row for row in rows if row.role == "baseline" and row.axes == axes and row.split == like.split
                 and row.system == "baseline" + like.system.removeprefix("student")), None)


def _without_seeds(config: StudyConfig, point: PointResults) -> dict[str, Any]:
    return {axis: value for axis, value in point.axes.items() if axis != config.seeds}


def merged(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows for people: a system that several rows share stands once, without the axes that say nothing about it."""
    same: dict[tuple[str, str, frozenset[Path]], list[Row]] = {}
    for row in rows:
        same.setdefault((row.system, row.split, row.sources), []).append(row)
    for group in same.values():
        first = group[0]
        axes = {axis: value for axis, value in first.axes.items()
                if all(axis in row.axes and row.axes[axis] == value for row in group)}
        yield Row(axes, first.system, first.role, first.split, first.parameters, first.points, first.sources,
                  first.figures, first.interval, first.difference, first.p)
