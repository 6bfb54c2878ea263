"""Rows over seeds against figures by hand; plots against what they must show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from asr_distill.decode.score import compare, score
from asr_distill.study.collect import Measured, Pooled
from asr_distill.study.config import PlotConfig, StudyConfig
from asr_distill.study.grid import label_of, override, short_names
from asr_distill.study.plots import draw
from asr_distill.study.summary import PointResults, merged, summarise

CONFIG = StudyConfig(recipe="toy", grid={"t": [1, 2], "student.seed": [1, 2]})
WORDS = {f"u{number}": ("a", "b", "c", "d") for number in range(60)}


def said(errors: int, seed: int) -> dict[str, tuple[str, ...]]:
    """The words with one of them wrong in `errors` utterances."""
    wrong = set(np.random.default_rng(seed).permutation(60)[:errors])
    return {name: ("a", "x", "c", "d") if number in wrong else words
            for number, (name, words) in enumerate(WORDS.items())}


def system(name: str, errors: int, seed: int, accuracy: float, parameters: int = 100) -> Measured:
    words = said(errors, seed)
    found = score(WORDS, words)
    figures = {"frame_accuracy": accuracy, "wer": found.wer, "wer_low": found.wer_low, "wer_high": found.wer_high}
    return Measured(name, name, "test", parameters, Path(f"{name}-{errors}-{seed}"), figures, WORDS, words)


def points() -> list[PointResults]:
    """Baseline and ensemble shared by both temperatures; the baseline differs by seed."""
    found = []
    for t, gained in ((1, 4.0), (2, 8.0)):
        for seed in (1, 2):
            found.append(PointResults(f"t={t},seed={seed}", {"t": t, "student.seed": seed}, (
                system("baseline", 30, seed, 50.0 + seed), system("ensemble", 10, 9, 61.5, 900),
                system("student", 26 - 4 * t, 10 * t + seed, 50.0 + seed + gained))))
    return found


def test_means_gains_intervals_and_the_paired_test() -> None:
    rows = {(row.axes["t"], row.system): row for row in summarise(CONFIG, points())}
    student = rows[2, "student"]
    assert student.figures["frame_accuracy"].mean == 59.5
    assert student.figures["frame_accuracy"].deviation == pytest.approx(2**-0.5)
    assert (student.figures["frame_accuracy"].low, student.figures["frame_accuracy"].high) == (59, 60)
    gain = student.figures["gain_frame_accuracy"]
    assert gain.mean == pytest.approx(100 * 8 / 10) and gain.low == pytest.approx(100 * 8 / 10.5)
    assert student.figures["gain_wer"].mean == pytest.approx(100 * (30 - 18) / (30 - 10))
    assert rows[2, "ensemble"].figures["wer"].count == 1  # of both seeds' points: one measurement
    assert rows[2, "baseline"].p is None and "gain_wer" not in rows[2, "baseline"].figures
    # 18 against 30 errors in 240 words, twice
    assert student.difference is not None and student.difference[0] == pytest.approx(-5.0)
    low, high = student.interval or (0, 0)
    assert low < 7.5 < high


def test_copies_of_an_utterance_are_drawn_together() -> None:
    """Two seeds that said the same are no more certain than one."""
    one, other = system("student", 18, 5, 50), system("student", 18, 5, 50)
    base = system("baseline", 30, 6, 50)
    pooled, alone = Pooled((one, other)).score(), score(WORDS, one.words)
    assert pooled.wer == alone.wer and pooled.words == 2 * alone.words
    assert (pooled.wer_low, pooled.wer_high) == pytest.approx((alone.wer_low, alone.wer_high), abs=0.4)
    twice = Pooled((base, base)).against(Pooled((one, other)))
    once = compare(WORDS, base.words, one.words)
    assert twice.wer_difference == once.wer_difference
    assert twice.p_bootstrap == pytest.approx(once.p_bootstrap, rel=0.5)


def test_a_share_is_left_out_where_the_ensemble_gains_nothing() -> None:
    worse = [PointResults("p", {"t": 1, "student.seed": 1}, (
        system("baseline", 10, 1, 60), system("ensemble", 10, 2, 55), system("student", 8, 3, 61)))]
    row = next(row for row in summarise(CONFIG, worse) if row.system == "student")
    assert "gain_frame_accuracy" not in row.figures and "gain_wer" not in row.figures


def test_what_points_share_stands_once() -> None:
    shown = list(merged(summarise(CONFIG, points())))
    assert [(row.system, row.axes.get("t")) for row in shown] == [
        ("baseline", None), ("ensemble", None), ("student", 1), ("student", 2)]


def test_names() -> None:
    assert short_names(["a.b.width", "c.d.width", "e.seed"]) == {
        "a.b.width": "b.width", "c.d.width": "d.width", "e.seed": "seed"}
    assert label_of({"size": "3 %", "x": [1, 2]}) == "size=3_%,x=_1,2_"
    assert label_of({"x": list(range(90))}) != label_of({"x": [*range(89), 0]})
    assert len(label_of({"x": list(range(90))})) <= 100
    assert override("a.b", 1e-3) == "a.b=0.001" and override("a", "yes") == "a=yes"


def test_plots_show_every_system(tmp_path: Path) -> None:
    rows = summarise(CONFIG, points())
    names = [name for y in ("frame_accuracy", "wer", "gain_frame_accuracy") for x in ("t", "parameters")
             for name in draw(PlotConfig(x, y), rows, tmp_path)]  # type: ignore[arg-type]
    assert len(set(names)) == 6
    for name in names:
        pixels = image.imread(tmp_path / name)[..., :3]
        found = {colour: bool((np.abs(pixels * 255 - np.array(colour)).max(-1) < 2).any())
                 for colour in ((0xd5, 0x5e, 0), (0, 0x55, 0x7f), (0, 0x9e, 0x73))}
        assert list(found.values()) == ([False, False, True] if "gain" in name else [True] * 3), name
    assert draw(PlotConfig("t", "errors"), rows, tmp_path) == []
