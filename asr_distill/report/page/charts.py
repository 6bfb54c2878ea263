"""The page's charts: word error rates, size and speed against them, training, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.report.figures import count, number, size
from asr_distill.report.page.experiment import Curve
from asr_distill.report.page.labels import place
from asr_distill.report.page.markup import Html
from asr_distill.report.page.scale import Axis
from asr_distill.report.page.svg import LETTER, WIDTH, Panel
from asr_distill.report.results import RESCORED, ErrorScores, Results, System

ROW = 21.0
LONGEST = 22  # letters of a name in a chart; the table has the rest
ORDER = ("student", "baseline", "ensemble", "export", "teacher")  # of names that find room beside their points
HARD = ("teacher", "baseline")  # trained on the senones alone: their training loss is a cross-entropy
NATS = "cross-entropy (nats a frame)"


def errors_of(system: System, split: str) -> tuple[float, float, float] | None:
    """WER and its interval; of a task without words its errors, thrice. None where nothing was scored."""
    scores = system.splits.get(split)
    if isinstance(scores, ErrorScores):
        return scores.errors, scores.errors, scores.errors
    if scores is None or scores.wer is None or scores.wer_low is None or scores.wer_high is None:
        return None
    return scores.wer, scores.wer_low, scores.wer_high


def measure(results: Results, split: str) -> str:
    """What is counted on a split: `WER (%)` or `errors`."""
    scores = (system.splits.get(split) for system in results.systems)
    return "errors" if any(isinstance(item, ErrorScores) for item in scores) else "WER (%)"


def error_panel(results: Results, split: str, identity: str, *, ladder: bool = False) -> Html | None:
    """A row a system: its word error rate with the 95 % interval. The GMMs have a chart of their own (`ladder`): beside
    their differences those of networks would not be seen.
    """
    found = [(system, errors) for system in results.systems
             if (system.role == "gmm") == ladder and (errors := errors_of(system, split))]
    if not found:
        return None
    axis = _error_axis(results, split, [errors for _, errors in found])
    unit, digits = ("Errors", 0) if measure(results, split) == "errors" else ("WER", 2)
    names = [short(system.name) for system, _ in found]
    panel = Panel(
        identity, f"{unit} on {split}{', GMMs' * ladder}{', 95 % interval' * (digits > 0)}",
        "; ".join(f"{system.name} {errors[0]:.{digits}f}" for system, errors in found), axis, rows=names,
        height=ROW * len(found) + 54, left=12 + LETTER * max(map(len, names)), right=48)
    for row, (system, (value, low, high)) in enumerate(found):
        if low < high:
            panel.line([(low, row), (high, row)], system.role, f"{system.name}: {low:.2f} to {high:.2f}", "whisker")
        panel.mark(value, row, system.role, system.name, f"{system.name}: {value:.{digits}f}")
        panel.words(WIDTH - 2, panel.at_y(row) + 4, f"{value:.{digits}f}", anchor="end", class_="value")
    return panel.render()


def cost_panel(results: Results, split: str, identity: str, cost: str) -> Html | None:
    """Errors against what a system costs: its `size` in bytes or its `rtf`. Networks alone, as they decode."""
    of: Callable[[System], float | None] = {
        "size": lambda system: system.bytes,
        "rtf": lambda system: system.splits[split].rtf if split in system.splits else None}[cost]
    found = [(system, used, errors) for system in results.systems
             if system.role in ORDER and not system.name.endswith(RESCORED)
             and (used := of(system)) and (errors := errors_of(system, split))]
    if len({used for _, used, _ in found}) < 2:
        return None
    found.sort(key=lambda item: ORDER.index(item[0].role))
    used_all = [used for _, used, _ in found]
    if cost == "size":
        x = Axis.around(used_all, "size (logarithmic)", log=True, margin=0.12, show=lambda value: size(round(value)))
    else:
        x = Axis.around(used_all, "RTF (seconds of work a second of audio)", log=False, margin=0.12, least=0.0)
    y = _error_axis(results, split, [errors for _, _, errors in found])
    title = f"{'Size' if cost == 'size' else 'Speed'} against {measure(results, split).removesuffix(' (%)')} on {split}"
    panel = Panel(identity, title, "; ".join(_spoken(system, errors[0], used, cost) for system, used, errors in found),
                  x, y, height=300)
    for system, used, (_, low, high) in found:
        if low < high:
            panel.line([(used, low), (used, high)], system.role, system.name, "whisker thin")
    for system, used, errors in found:
        panel.mark(used, errors[0], system.role, system.name, _spoken(system, errors[0], used, cost))
    points = [(panel.at_x(used), panel.at_y(errors[0])) for _, used, errors in found]
    bounds = (panel.left, panel.top, WIDTH - 2, panel.height - panel.bottom)
    names = [short(system.name) for system, _, _ in found]
    for name, corner in zip(names, place(points, names, bounds), strict=True):
        if corner:
            panel.words(*corner, name)
    return panel.render()


def training_panels(curves: Sequence[Curve], identity: str) -> list[Html]:
    """Held-out frame accuracy, and cross-entropy beside the training loss of what learns from senones alone."""
    curves = [curve for curve in curves if len(curve.epochs)]
    if not curves:
        return []
    epochs = Axis.around((epoch for curve in curves for epoch in (0.0, *curve.epochs)), "epoch", log=False, margin=0.03,
                         least=0.0)
    accuracies = [value for curve in curves for value in (*curve.accuracy, curve.train_accuracy) if value is not None]
    losses = {curve.name: curve.train_loss if curve.role in HARD else () for curve in curves}
    accuracy = Panel(f"{identity}-accuracy", "Frame accuracy, held out",
                     "; ".join(f"{curve.name}: {curve.accuracy[-1]:.2f} %" for curve in curves), epochs,
                     Axis.around(accuracies, "frame accuracy (%)", log=False))
    entropy = Panel(f"{identity}-entropy", "Cross-entropy, held out and in training",
                    "; ".join(f"{curve.name}: {curve.cross_entropy[-1]:.3f}" for curve in curves), epochs,
                    Axis.around([value for curve in curves for value in (*curve.cross_entropy, *losses[curve.name])],
                                NATS, log=False))
    for curve in sorted(curves, key=lambda item: item.role in ("student", "baseline")):  # those in front
        accuracy.line(list(zip(curve.epochs, curve.accuracy, strict=True)), curve.role, curve.name)
        accuracy.mark(curve.epochs[-1], curve.accuracy[-1], curve.role, curve.name,
                      f"{curve.name}: {curve.accuracy[-1]:.2f} % held out at the end")
        if curve.train_accuracy is not None:
            accuracy.mark(curve.epochs[-1], curve.train_accuracy, curve.role, f"{curve.name} in training",
                          f"{curve.name}: {curve.train_accuracy:.2f} % of the frames it was trained on", hollow=True)
        entropy.line(list(zip(curve.epochs, curve.cross_entropy, strict=True)), curve.role, curve.name)
        entropy.mark(curve.epochs[-1], curve.cross_entropy[-1], curve.role, curve.name,
                     f"{curve.name}: {curve.cross_entropy[-1]:.3f} held out at the end")
        if losses[curve.name]:
            entropy.line(list(zip(curve.epochs, losses[curve.name], strict=True)), curve.role,
                         f"{curve.name}, training loss", "dashed")
    return [accuracy.render(), entropy.render()]


def calibration_panels(bins: Mapping[str, tuple[str, ReliabilityBins]], identity: str) -> list[Html]:
    """How often the best pdf is right given the model's confidence, and how sure it is how often."""
    if not bins:
        return []
    whole = Axis("confidence (largest posterior)", 0.0, 1.0)
    described = "; ".join(f"{name}: expected calibration error {100 * item.expected_calibration_error:.1f} %"
                          for name, (_, item) in bins.items())
    right = Panel(f"{identity}-right", "How often the best senone is right", described, whole,
                  Axis("frame accuracy", 0.0, 1.0), height=320)
    right.line([(0, 0), (1, 1)], "gmm", "perfectly calibrated", "even")
    shares = {name: 100 * item.count / max(item.count.sum(), 1) for name, (_, item) in bins.items()}
    most = max(float(share.max()) for share in shares.values()) or 1.0
    sure = Panel(f"{identity}-sure", "How sure the models are", described, whole,
                 Axis("frames (%)", 0.0, 1.06 * most), height=320)
    for name, (role, item) in sorted(bins.items(), key=lambda entry: entry[1][0] in ("student", "baseline")):
        confidence, accuracy = item.curve(max(1, int(item.count.sum()) // 2000))  # a bin of few frames is noise
        tip = f"{name}, expected calibration error {100 * item.expected_calibration_error:.1f} %"
        points = list(zip(confidence.tolist(), accuracy.tolist(), strict=True))
        if points:
            right.line(points, role, tip)
            right.mark(*points[-1], role, name, tip)
        edges = np.linspace(0, 1, len(item.count) + 1).tolist()
        steps = [(edge, float(share)) for left, share in zip(range(len(edges) - 1), shares[name], strict=True)
                 for edge in (edges[left], edges[left + 1])]
        sure.line(steps, role, name)
    return [right.render(), sure.render()]


def _error_axis(results: Results, split: str, errors: Sequence[tuple[float, float, float]]) -> Axis:
    """Word error rates from where they begin; counts of errors on a logarithmic axis where they differ much."""
    values, label = [value for each in errors for value in each], measure(results, split)
    axis = Axis.around(values, label, log=None if label == "errors" else False, least=0.0)
    return dataclasses.replace(axis, label=f"{label} (logarithmic)") if axis.log else axis


def short(name: str) -> str:
    return name if len(name) <= LONGEST else name[:LONGEST - 1] + "…"


def _spoken(system: System, errors: float, used: float, cost: str) -> str:
    spent = f"RTF {number(used, 3)}" if cost == "rtf" else f"{size(round(used))}, {count(system.parameters)} parameters"
    return f"{system.name}: {errors:.4g}, {spent}"
