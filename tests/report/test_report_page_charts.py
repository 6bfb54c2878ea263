"""Charts are read as a person reads them: by their axes' figures; what they show must be the numbers."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from html_check import Element, checked

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.report.page.charts import calibration_panels, cost_panel, error_panel, training_panels
from asr_distill.report.page.experiment import Curve
from asr_distill.report.page.labels import AWAY, HEIGHT, POINT, place
from asr_distill.report.page.markup import Html
from asr_distill.report.page.scale import Axis
from asr_distill.report.page.svg import LETTER, WIDTH, Panel
from asr_distill.report.results import ErrorScores, Results, System

UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1.0}


class Chart:
    """A panel with its scales recovered from two of the figures on each axis."""

    def __init__(self, panel: Html | None, *, log_x: bool = False, log_y: bool = False):
        assert panel is not None
        self.svg = checked(f"<!DOCTYPE html>\n{panel}").all("svg")[0]
        self.log = {"x": log_x, "y": log_y}
        self.ticks = {axis: [(float(tick.attributes[axis] or ""), _value(tick.text))
                             for tick in self.svg.all("text", "tick") if axis in tick.classes] for axis in "xy"}

    def value(self, axis: str, place: float) -> float:
        (from_place, from_value), (to_place, to_value) = self.ticks[axis][0], self.ticks[axis][-1]
        if axis == "y":
            from_place, to_place = from_place - 4, to_place - 4  # a figure's baseline is under its line
        forth, back = (math.log, math.exp) if self.log[axis] else (float, float)
        share = (place - from_place) / (to_place - from_place)
        return back(forth(from_value) + share * (forth(to_value) - forth(from_value)))

    def marks(self, *, hollow: bool = False) -> dict[str, tuple[float, float]]:
        """Name -> place of its mark."""
        return {mark.attributes["data-name"] or "": _numbers(mark.attributes["transform"])[:2]  # type: ignore[misc]
                for mark in self.svg.all("path", "mark") if ("hollow" in mark.classes) == hollow}

    def lines(self, kind: str) -> dict[str, list[tuple[float, float]]]:
        """Name -> places that a line goes through."""
        found = {}
        for path in self.svg.all("path", kind):
            numbers = _numbers(path.attributes["d"])
            found[path.attributes["data-name"] or ""] = list(zip(numbers[::2], numbers[1::2], strict=True))
        return found

    def value_of(self, point: tuple[float, float]) -> tuple[float, float]:
        return self.value("x", point[0]), self.value("y", point[1])


def _numbers(text: str | None) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"-?\d+(?:\.\d+)?", text or "")))


def _value(text: str) -> float:
    number, _, unit = text.partition(" ")
    return float(number) * UNITS.get(unit, 1.0)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (15.2, 17.9), (0.001, 0.0021), (-3, 80_000), (86.01, 86.02)])
def test_an_axis_has_round_figures_in_their_places(low: float, high: float) -> None:
    axis = Axis("x", low, high)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 6 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    digit = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(digit - round_) for round_ in (1, 2, 5)) < 1e-6
    for tick in ticks:
        assert axis.place(tick, 100, 500) == pytest.approx(100 + 400 * (tick - low) / (high - low))


@pytest.mark.parametrize(("low", "high"), [(3e3, 7e3), (1e4, 9e7), (0.2, 0.31), (1, 1e9)])
def test_a_logarithmic_axis(low: float, high: float) -> None:
    axis = Axis("x", low, high, log=True)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 6 and all(low <= tick <= high for tick in ticks)
    assert axis.place(math.sqrt(low * high), 0, 1) == pytest.approx(0.5)


def test_an_axis_around_values() -> None:
    axis = Axis.around([3, 5], "x")
    assert axis.low < 3 and axis.high > 5 and not axis.log
    assert Axis.around([0.5, 100], "x", log=False, least=0.0).low == 0  # no error rate below 0
    assert Axis.around([1, 9], "x").log and not Axis.around([0, 9], "x").log
    assert Axis.around([0.0], "x").low < Axis.around([0.0], "x").high and Axis.around([7, 7], "x", log=True).high > 7
    with pytest.raises(ValueError):
        Axis("x", 2, 2)


def test_error_rates_with_their_intervals(results: Results) -> None:
    assert set(Chart(error_panel(results, "test", "e", ladder=True)).marks()) == {"mono"}
    chart = Chart(error_panel(results, "test", "e"))
    marks, whiskers = chart.marks(), chart.lines("whisker")
    networks = [system for system in results.systems if system.role != "gmm"]
    assert list(marks) == [system.name for system in networks]
    for above, below in itertools.pairwise(networks):
        assert marks[above.name][1] < marks[below.name][1]
    for system in networks:
        scores = results.scores(system.name, "test")
        assert scores
        assert chart.value("x", marks[system.name][0]) == pytest.approx(scores.wer, abs=0.01)
        (whisker,) = [line for name, line in whiskers.items() if name.startswith(f"{system.name}:")]
        assert [chart.value("x", x) for x, _ in whisker] == pytest.approx([scores.wer_low, scores.wer_high], abs=0.01)
        assert {y for _, y in whisker} == {marks[system.name][1]}
    assert error_panel(results, "train", "e") is None


def test_size_and_speed_against_errors(results: Results) -> None:
    faster = [dataclasses.replace(system, splits={"test": dataclasses.replace(
        system.splits["test"], rtf=0.01 + 0.01 * at)}) for at, system in enumerate(results.systems)]
    results = dataclasses.replace(results, systems=faster)
    size, speed = (Chart(cost_panel(results, "test", "c", cost), log_x=cost == "size") for cost in ("size", "rtf"))
    for chart in (size, speed):
        assert set(chart.marks()) == {system.name for system in results.systems} - {"mono"}  # networks alone
        for name, point in chart.marks().items():
            system = results.system(name)
            assert system and isinstance(scores := system.splits["test"], type(faster[0].splits["test"]))
            used, wer = chart.value_of(point)
            assert used == pytest.approx(system.bytes if chart is size else scores.rtf, rel=5e-3)
            assert wer == pytest.approx(scores.wer, abs=0.01)
            _, ((_, low), (_, high)) = name, chart.lines("whisker")[name]
            assert [chart.value("y", low), chart.value("y", high)] == pytest.approx([scores.wer_low, scores.wer_high],
                                                                                   abs=0.01)
    slow = dataclasses.replace(results, systems=[dataclasses.replace(system, splits={"test": dataclasses.replace(
        system.splits["test"], rtf=None)}) for system in results.systems])
    assert cost_panel(slow, "test", "c", "rtf") is None
    same = dataclasses.replace(results, systems=[dataclasses.replace(item, bytes=9) for item in results.systems])
    assert cost_panel(same, "test", "c", "size") is None  # a chart of one size shows nothing


def test_figures_of_an_axis_do_not_run_into_each_other(results: Results) -> None:
    for low, high in ((60, 6000), (3e6, 9e6), (1e4, 9e7)):
        panel = Panel("p", "t", "d", Axis("x", low, high, log=True, show=lambda value: f"{value:,.0f} bytes"),
                      Axis("y", 0, 1), left=160)
        figures = checked(f"<!DOCTYPE html>\n{panel.render()}").all("text", "x")
        spans = [(float(figure.attributes["x"] or ""), LETTER * len(figure.text) / 2) for figure in figures]
        assert spans
        assert all(x + half < other - other_half for (x, half), (other, other_half) in itertools.pairwise(spans))
        assert spans[-1][0] + spans[-1][1] <= WIDTH


def test_errors_of_very_different_sizes_are_logarithmic(results: Results) -> None:
    systems = [System(f"net{count}", "student", 1000, 4000 * (1 + at), 10, {"test": ErrorScores(99.0, 0.1, count)})
               for at, count in enumerate((67, 146, 4730))]
    digits = dataclasses.replace(results, systems=systems, comparisons=[])
    errors = Chart(error_panel(digits, "test", "e"), log_x=True)
    assert {name: round(errors.value("x", x)) for name, (x, _) in errors.marks().items()} == \
        {"net67": 67, "net146": 146, "net4730": 4730}
    assert not errors.lines("whisker") and "Errors on test" in errors.svg.text
    assert "errors (logarithmic)" in errors.svg.text
    assert Chart(cost_panel(digits, "test", "c", "size"), log_x=True, log_y=True).marks()


def _curves() -> list[Curve]:
    rng = np.random.default_rng(0)
    return [Curve(role, role, (1.0, 2.0, 3.5), tuple(rng.uniform(40, 60, 3)), tuple(rng.uniform(1, 2, 3)),  # type: ignore[arg-type]
                  tuple(rng.uniform(1, 3, 3)), own) for role, own in
            (("teacher", 71.5), ("baseline", 66.25), ("student", None))]


def test_training_curves() -> None:
    accuracy, entropy = (Chart(panel) for panel in training_panels(_curves(), "t"))
    for curve in _curves():
        for chart, values in ((accuracy, curve.accuracy), (entropy, curve.cross_entropy)):
            shown = [chart.value_of(point) for point in chart.lines("line")[curve.name]]
            assert np.allclose(shown, list(zip(curve.epochs, values, strict=True)), atol=0.01)
            assert np.allclose(chart.value_of(chart.marks()[curve.name]), shown[-1], atol=0.01)
    hollow = {name: accuracy.value("y", y) for name, (_, y) in accuracy.marks(hollow=True).items()}
    assert hollow == pytest.approx({"teacher in training": 71.5, "baseline in training": 66.25}, abs=0.02)
    # the student's loss is no cross-entropy on senones: it has no place on that axis
    dashed = entropy.lines("dashed")
    assert set(dashed) == {"teacher, training loss", "baseline, training loss"}
    shown = [entropy.value("y", y) for _, y in dashed["teacher, training loss"]]
    assert shown == pytest.approx(list(_curves()[0].train_loss), abs=0.01)
    assert training_panels([Curve("x", "student", (), (), (), (), 3.0)], "t") == []


def test_calibration() -> None:
    bins = ReliabilityBins(np.array([100, 300, 600]), np.array([20.0, 165.0, 540.0]), np.array([30, 150, 510]))
    right, sure = (Chart(panel) for panel in calibration_panels({"student": ("student", bins)}, "c"))
    (line,) = right.lines("line").values()
    assert np.allclose([right.value_of(point) for point in line], [(0.2, 0.3), (0.55, 0.5), (0.9, 0.85)], atol=2e-3)
    assert np.allclose([right.value_of(point) for point in right.lines("even")["perfectly calibrated"]],
                       [(0, 0), (1, 1)], atol=2e-3)
    (steps,) = sure.lines("line").values()
    assert np.allclose([sure.value_of(point) for point in steps],
                       [(0, 10), (1 / 3, 10), (1 / 3, 30), (2 / 3, 30), (2 / 3, 60), (1, 60)], atol=0.1)
    assert calibration_panels({}, "c") == []


def test_names_lie_neither_over_points_nor_over_each_other() -> None:
    rng = np.random.default_rng(1)
    points = [(float(x), float(y)) for x, y in rng.uniform((60, 20), (340, 240), (12, 2))]
    names = [f"system{'x' * (at % 5)}" for at in range(12)]
    corners = place(points, names, (50, 0, 400, 260))
    boxes = [(x, y - HEIGHT + 3, x + LETTER * len(name), y + 3) for corner, name in zip(corners, names, strict=True)
             if corner for x, y in [corner]]
    assert len(boxes) >= 8 and corners[0] == (points[0][0] + AWAY, points[0][1] + 4)
    taken = [(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    for at, box in enumerate(boxes):
        assert box[0] >= 50 and box[1] >= 0 and box[2] <= 400 and box[3] <= 260
        for other in [*taken, *boxes[:at]]:
            assert box[2] <= other[0] or box[0] >= other[2] or box[3] <= other[1] or box[1] >= other[3]
    assert place([(5, 5)], ["no room at all"], (0, 0, 10, 10)) == [None]


def test_those_who_cannot_see_a_chart_are_told_what_is_on_it(results: Results) -> None:
    svg: Element = Chart(error_panel(results, "test", "e")).svg
    assert svg.attributes["role"] == "img" and svg.attributes["aria-labelledby"] == "e-title e-desc"
    assert "student 18.00" in svg.all("desc")[0].text
