"""The page of specialists says what the numbers say; local/specialists_page.py collects several experiments."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from asr_distill.errors import UserError
from asr_distill.report.results import Results, SplitData, SplitScores, System
from asr_distill.report.specialists_page import page, read_facts
from local.specialists_page import main

TEST = "dev_clean_2"


def row(covering: int | None, frames: int, right: int, better: int, low: float, high: float) -> dict[str, Any]:
    return {"covering": covering, "frames": frames, "reference_correct": right, "system_correct": better,
            "reference_accuracy": right / frames, "system_accuracy": better / frames,
            "relative_change": (better - right) / right if right else None, "difference": (better - right) / frames,
            "difference_low": low, "difference_high": high, "speaker_low": 2 * low, "speaker_high": 2 * high}


def facts(gain: int = 30, low: float = 0.001) -> dict[str, Any]:
    """Specialists with `gain` frames more right of 1,000."""
    scores = {name: {TEST: SplitScores(frame_accuracy=accuracy, cross_entropy=1.0)}
              for name, accuracy in (("generalist", 60.0), ("combined", 63.0))}
    results = Results("toy", "2026-01-01T00:00:00+00:00", 5.0, "cpu", [1], {"torch": "2"}, {},
                      {TEST: SplitData(0.1, 4, 20, 2)},
                      [System(name, "teacher", 1000, 4000, 8, splits) for name, splits in scores.items()], [],
                      {"clusters": 1.0})
    tables = [{"reference": reference, "system": system,
               "rows": [row(0, 100, 0, 0, 0.0, 0.0), row(2, 900, 600, 600 + change, start, 0.05),
                        row(None, 1000, 600, 600 + change, start, 0.05)]}
              for reference, system, change, start in (("generalist", "combined", gain, low),
                                                       ("generalist", "control", 5, -0.004),
                                                       ("generalist", "control_mean", 9, 0.002),
                                                       ("control_mean", "combined", gain - 9, -0.02))]
    return {"results": results.to_dict(), "coverage": {TEST: tables},
            "sets": [{"senones": 3, "mass": 0.25, "phones": "S 2, Z 1", "updates": 300, "accuracy": 0.7,
                      "correction": 1.0}] * 15,
            "facts": {"specialists": 15, "smallest": 3, "largest": 3, "median": 3, "left_out": 1, "num_pdfs": 8,
                      "generalist": "teacher1 (wide)", "dustbin": "sum", "control_updates": 600},
            "command": "python made_by.py"}


def cells(text: str, first: str) -> list[str]:
    return next([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
                if line.startswith(f"| {first} "))


def test_table_by_coverage_and_what_it_says() -> None:
    text = page({"toy": facts()})
    assert cells(text, "0") == ["0", "100", "0.00", "0.00", "+0", "–", "+0.00 [+0.00, +0.00]", "[+0.00, +0.00]"]
    assert cells(text, "all frames") == ["all frames", "1,000", "60.00", "63.00", "+30", "+5.00 %",
                                         "+3.00 [+0.10, +5.00]", "[+0.20, +10.00]"]
    assert "Generalist and specialists against the generalist: +3.00 [+0.10, +5.00] points of frame accuracy, a gain." \
        in text
    assert "as many updates against the generalist: +0.50 [-0.40, +5.00] points of frame accuracy, neither gain" in text
    assert "15 sets of 3 to 3 senones (median 3); 1 of 8 senones are in none." in text and "3 smaller sets" in text
    assert "`python made_by.py`" in text and "teacher1 (wide)" in text and "- Control: 600 updates" in text
    assert "## All" not in text


def test_several_experiments_have_a_table_in_common() -> None:
    text = page({"few": facts(), "many": facts(gain=-30, low=-0.06)}, "python page.py")
    assert cells(text, "few")[:6] == ["few", TEST, "15", "90.0", "60.00", "63.00"]
    assert cells(text, "many")[6] == "-3.00 [-6.00, +5.00]"
    assert text.count("### Systems") == 2 and "This page: `python page.py`" in text


def test_the_command_collects_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sets=few", "sets=many"):
        folder = tmp_path / name / "31_specialist_report"
        folder.mkdir(parents=True)
        (folder / "SPECIALISTS.json").write_text(json.dumps(facts()))
    points = [str(tmp_path / name) for name in ("sets=few", "sets=many")]
    assert main([*points, "--out", str(tmp_path / "page"), "--command", "asr-distill study x.yaml"]) == 0
    found = json.loads((tmp_path / "page" / "RESULTS.json").read_text())
    assert list(found) == ["sets=few", "sets=many"] and found["sets=few"]["command"] == "asr-distill study x.yaml"
    text = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "## sets=many" in text and "made_by" not in text and text in capsys.readouterr().out

    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "page")]) == 1
    assert "specialist_report is not finished" in capsys.readouterr().err
    assert main([points[0], points[0], "--out", str(tmp_path / "page")]) == 1


@pytest.mark.parametrize("key", ["results", "coverage", "sets", "facts", "command"])
def test_damaged_facts(key: str, tmp_path: Path) -> None:
    broken = copy.deepcopy(facts())
    del broken[key]
    (tmp_path / "SPECIALISTS.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="specialist_report again"):
        read_facts(tmp_path / "SPECIALISTS.json")
