"""Plots of a study: a measure against an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from asr_distill.report.plots import COLOURS, figure
from asr_distill.study.config import PlotConfig
from asr_distill.study.grid import short_names, value_text
from asr_distill.study.summary import SHARES, Row

TITLES = {"frame_accuracy": "Frame accuracy (%)", "cross_entropy": "Cross-entropy (nats a frame)",
          "wer": "WER (%), 95 % interval", "errors": "Errors", "train_accuracy": "Frame accuracy in training (%)",
          "heldout_accuracy": "Held-out frame accuracy (%)",
          "gain_frame_accuracy": "Gain in frame accuracy kept (%)", "gain_wer": "Gain in WER kept (%)",
          "recovered": "Loss recovered (%)"}
ROLES = ("baseline", "ensemble", "student")
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^Dv"


def draw(plot: PlotConfig, rows: Sequence[Row], folder: Path) -> list[str]:
    """A PNG for each split that has the measure, `Y_X.png` in `folder`; their names."""
    names = []
    chosen = [row for row in rows if plot.y in row.figures and _wanted(plot, row, rows)]
    splits = list(dict.fromkeys(row.split for row in chosen))
    short = short_names([*dict.fromkeys(axis for row in rows for axis in row.axes), "parameters"])
    for split in splits:
        name = f"{plot.y}_{short[plot.x]}" + (f"_{split}" if len(splits) > 1 else "") + ".png"
        with figure(folder / name, 1, 1, (7.5, 4.6)) as axes:
            _panel(axes[0], plot, [row for row in chosen if row.split == split], short)
            axes[0].set_title(TITLES[plot.y] + (f" on {split}" if len(splits) > 1 else ""))
        names.append(name)
    return names


def _wanted(plot: PlotConfig, row: Row, rows: Sequence[Row]) -> bool:
    if plot.x != "parameters" and plot.x not in row.axes:
        return False
    if plot.systems:
        return row.system in plot.systems
    if plot.y in SHARES or plot.y == "recovered":
        return row.role == "student" and row.system == "student"
    return row.role in ROLES and row.system == next(other.system for other in rows if other.role == row.role)


def _panel(panel: Axes, plot: PlotConfig, rows: Sequence[Row], short: dict[str, str]) -> None:
    if plot.x == "parameters":  # the ensemble's size is another story: a level to compare with
        for row in _distinct(row for row in rows if row.role == "ensemble"):
            panel.axhline(row.figures[plot.y].mean, color=COLOURS["ensemble"], label=row.system, linewidth=1.5)
        rows = [row for row in rows if row.role != "ensemble"]
    values = list(dict.fromkeys(_x(plot, row) for row in rows))
    numeric = all(isinstance(value, (int, float)) for value in values)
    places = {value: value if numeric else place for place, value in enumerate(values)}
    lines = _lines(plot, rows, short)
    kinds = list(dict.fromkeys(others for _, others in lines))
    for (system, others), members in lines.items():
        kind = kinds.index(others)
        label = ", ".join(filter(None, (system, others)))
        _line(panel, plot, sorted(members, key=lambda row: places[_x(plot, row)]), places, label, kind)
    if plot.log and numeric:
        panel.set_xscale("log")
    if not numeric or (plot.x != "parameters" and len(values) <= 12):
        panel.xaxis.set_major_locator(FixedLocator(list(places.values())))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticklabels([value_text(value) for value in places])
    panel.set_xlabel(short[plot.x])
    panel.margins(x=0.06, y=0.12)
    if len(panel.get_legend_handles_labels()[0]) > 1:
        panel.legend(loc="best", fontsize=9)


def _line(panel: Axes, plot: PlotConfig, rows: Sequence[Row], places: dict[Any, float], label: str, kind: int) -> None:
    x, y, below, above = [], [], [], []
    for row in rows:
        spread = row.figures[plot.y]
        low, high = row.interval if plot.y == "wer" and row.interval else (spread.low, spread.high)
        x.append(places[_x(plot, row)])
        y.append(spread.mean)
        below.append(max(0.0, spread.mean - low))
        above.append(max(0.0, high - spread.mean))
    front = rows[0].role == "student"
    panel.errorbar(x, y, yerr=[below, above], label=label, capsize=3, color=COLOURS[rows[0].role],
                   linestyle=DASHES[kind % len(DASHES)], marker=MARKERS[kind % len(MARKERS)],
                   markersize=6 if front else 5, linewidth=2.2 if front else 1.5, elinewidth=1.2,
                   zorder=3 if front else 2)


def _lines(plot: PlotConfig, rows: Sequence[Row], short: dict[str, str]) -> dict[tuple[str, str], list[Row]]:
    """(system, values of the other axes) -> rows; lines of the same measurements are one, named by the system alone."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.system, _others(plot, row, rows, short)), []).append(row)
    same: dict[Any, list[tuple[str, str]]] = {}
    for key, members in lines.items():
        same.setdefault((key[0], frozenset((_x(plot, row), row.sources) for row in members)), []).append(key)
    return {keys[0] if len(keys) == 1 else (keys[0][0], ""): lines[keys[0]] for keys in same.values()}


def _distinct(rows: Iterable[Row]) -> list[Row]:
    return list({row.sources: row for row in rows}.values())


def _x(plot: PlotConfig, row: Row) -> Any:
    value = row.parameters if plot.x == "parameters" else row.axes[plot.x]
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else value_text(value)


def _others(plot: PlotConfig, row: Row, rows: Sequence[Row], short: dict[str, str]) -> str:
    """`weight 0.5`: the values of axes that are neither x (with x `parameters`, the size) nor the same in all rows."""
    texts = []
    for axis, value in row.axes.items():
        different = {value_text(other.axes[axis]) for other in rows if axis in other.axes}
        if axis == plot.x or len(different) < 2 or (plot.x == "parameters" and _decides_size(axis, rows)):
            continue
        texts.append(f"{short[axis]} {value_text(value)}")
    return ", ".join(texts)


def _decides_size(axis: str, rows: Sequence[Row]) -> bool:
    sizes: dict[str, set[int]] = {}
    for row in rows:
        if axis in row.axes:
            sizes.setdefault(value_text(row.axes[axis]), set()).add(row.parameters)
    return len({frozenset(value) for value in sizes.values()}) > 1
