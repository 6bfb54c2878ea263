"""Plots of a recipe's results, as PNG: training curves, reliability of posteriors, word error rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.files import atomic_path
from asr_distill.report.results import Results, Role, SplitScores

matplotlib.use("Agg")  # no screen needed; has to come before pyplot
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOURS: dict[str, str] = {  # Okabe and Ito: told apart by colour-blind readers too
    "gmm": "#7f7f7f", "baseline": "#d55e00", "teacher": "#8fbfe0", "ensemble": "#00557f",
    "student": "#009e73", "export": "#b0609a"}
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555",
    "axes.grid": True, "grid.color": "#e3e3e3", "axes.axisbelow": True, "legend.frameon": False,
    "figure.dpi": 150, "savefig.dpi": 150, "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1, "figure.constrained_layout.h_pad": 0.08}


@dataclass(frozen=True)
class TrainingCurve:
    """One model's held-out figures after each epoch: accuracy in percent, cross-entropy in nats a frame."""

    role: Role
    frame_accuracy: Sequence[float]
    cross_entropy: Sequence[float]
    epochs: Sequence[float] = ()  # default 1, 2, 3 ...

    def __post_init__(self) -> None:
        if not len(self.frame_accuracy) == len(self.cross_entropy) == len(self.x):
            raise ValueError("a training curve needs one accuracy and one cross-entropy per epoch")

    @property
    def x(self) -> Sequence[float]:
        return self.epochs or range(1, len(self.frame_accuracy) + 1)


def plot_training(curves: Mapping[str, TrainingCurve], path: Path) -> None:
    """Held-out frame accuracy and cross-entropy per epoch of every model, side by side."""
    with figure(path, 1, 2, (11, 4.4)) as axes:
        for panel, name, title in ((axes[0], "frame_accuracy", "Held-out frame accuracy (%)"),
                                   (axes[1], "cross_entropy", "Held-out cross-entropy (nats a frame)")):
            for label, curve in curves.items():
                front = curve.role in ("student", "baseline")
                panel.plot(curve.x, getattr(curve, name), label=label, color=COLOURS[curve.role], marker="o",
                           markersize=4 if front else 3, linewidth=2.2 if front else 1.4, zorder=3 if front else 2)
            panel.set_title(title)
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)
        labels = _one_per_group(curves)
        handles = dict(zip(curves, axes[0].get_lines(), strict=True))
        axes[0].legend([handles[name] for name in labels], labels.values(), loc="lower right")


def plot_reliability(bins: Mapping[str, tuple[Role, ReliabilityBins]], path: Path) -> None:
    """Accuracy against confidence, and how many frames each confidence has. `bins`: name -> (role, bins)."""
    with figure(path, 1, 2, (11, 4.8)) as axes:
        curves, histogram = axes
        curves.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="perfectly calibrated")
        for name, (role, item) in bins.items():
            width = 1.4 if role == "teacher" else 2.2
            least = max(1, int(item.count.sum()) // 2000)  # a bin of a handful of frames is noise
            curves.plot(*item.curve(least), color=COLOURS[role], linewidth=width, marker="o", markersize=4,
                        label=f"{name} (ECE {100 * item.expected_calibration_error:.1f} %)")
            edges = np.linspace(0, 1, len(item.count) + 1)
            histogram.stairs(100 * item.count / max(item.count.sum(), 1), edges, color=COLOURS[role], linewidth=width)
        curves.set(title="How often the best pdf is right", xlabel="confidence (largest posterior)",
                   ylabel="frame accuracy", xlim=(0, 1), ylim=(0, 1))
        curves.set_aspect("equal")
        curves.legend(loc="upper left", fontsize=9)
        histogram.set(title="How sure the models are", xlabel="confidence (largest posterior)",
                      ylabel="frames (%)", xlim=(0, 1))


def plot_wer(results: Results, path: Path) -> bool:
    """WER of every system with its 95 % interval, a panel a split. False, and no file, where none was scored."""
    splits = [split for split in results.scored_splits()
              if any(_wer(system.splits.get(split)) for system in results.systems)]
    if not splits:
        return False
    with figure(path, 1, len(splits), (1.5 + 5.2 * len(splits), 1.5 + 0.42 * len(results.systems)),
                 sharey=True) as axes:
        for panel, split in zip(axes, splits, strict=True):
            _wer_panel(panel, results, split)
        axes[0].set_yticks(range(len(results.systems)), [system.name for system in results.systems])
        axes[0].invert_yaxis()
    return True


def _wer_panel(panel: Axes, results: Results, split: str) -> None:
    for row, system in enumerate(results.systems):
        if not (figures := _wer(system.splits.get(split))):
            continue
        wer, low, high = figures
        panel.hlines(row, min(low, wer), max(high, wer), color=COLOURS[system.role], linewidth=3, alpha=0.55)
        panel.plot(wer, row, "o", color=COLOURS[system.role], markersize=8)
        panel.annotate(f"{wer:.2f}", (wer, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    panel.set_title(f"WER on {split} (%), 95 % interval")
    panel.grid(axis="y", visible=False)
    panel.margins(x=0.12)
    panel.set_ylim(-0.8, len(results.systems) - 0.4)
    panel.tick_params(axis="y", length=0)


def _wer(scores: Any) -> tuple[float, float, float] | None:
    if not isinstance(scores, SplitScores) or scores.wer is None:
        return None
    assert scores.wer_low is not None and scores.wer_high is not None
    return scores.wer, scores.wer_low, scores.wer_high


def _one_per_group(curves: Mapping[str, TrainingCurve]) -> dict[str, str]:
    """Name -> legend entry; teachers look alike and share one entry."""
    teachers = [name for name, curve in curves.items() if curve.role == "teacher"]
    entries = {name: name for name, curve in curves.items() if curve.role != "teacher"}
    if teachers:
        entries = {teachers[0]: f"teachers ({len(teachers)})" if len(teachers) > 1 else teachers[0]} | entries
    return entries


@contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float], **options: Any) -> Iterator[np.ndarray]:
    """Axes in the house style; the PNG appears whole or not at all."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, **options)
        try:
            yield axes[0]
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format="png")
        finally:
            pyplot.close(figure)
