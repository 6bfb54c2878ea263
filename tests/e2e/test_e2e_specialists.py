"""Specialists on a finished experiment in the language of tones, as a study: from its teachers to the page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import ROOT, environment, tone_settings

pytestmark = pytest.mark.slow

STUDY = """
recipe: mini_librispeech
set:
  specialists.enabled: true
  specialists.student: true
  specialists.trainer: {learning_rate: 1.0e-3, warmup_updates: 5, max_updates: 40, evaluate_updates: 20, batch: 256,
                        precision: float32}
grid:
  sets:
    overlapping: {specialists.sets.specialists: 5, specialists.sets.per_class: 2, specialists.sets.max_size: 15}
    apart: {specialists.sets.specialists: 3, specialists.sets_from: ensemble}
seeds: specialists.seed
stages: [specialist_report]
"""


def point(base: Path, label: str) -> tuple[Path, dict[str, Any]]:
    folder = base / "study/specialists/points" / label
    return folder, json.loads(next(folder.glob("*_specialist_report/SPECIALISTS.json")).read_text())


def test_from_teachers_to_the_page(finished: Path, tones: Path, tmp_path: Path) -> None:
    settings = tone_settings(tones)
    base = tmp_path / "exp"
    shutil.copytree(finished, base)
    file = tmp_path / "specialists.yaml"
    file.write_text(STUDY)
    command = [sys.executable, "-m", "asr_distill.cli", "study", str(file), "--base", str(base), "--device", "cpu",
               *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "specialist 5/5" in done.stderr and "specialist 3/3" in done.stderr

    folder, found = point(base, "sets=overlapping")
    systems = {item["name"]: item for item in found["results"]["systems"]}
    assert list(systems) == ["generalist", "control", "control_mean", "combined", "specialist_student"]
    scores = {name: item["splits"]["dev_clean_2"] for name, item in systems.items()}
    assert all(score["wer"] < 20 and score["frame_accuracy"] > 80 for score in scores.values())
    assert scores["combined"]["frame_accuracy"] > scores["generalist"]["frame_accuracy"] - 1
    assert systems["combined"]["parameters"] > 5 * systems["generalist"]["parameters"]
    assert {(item["a"], item["b"]) for item in found["results"]["comparisons"]} >= {("combined", "generalist")}
    # the table by coverage is of the same frames as the systems' accuracies, and adds up
    tables = {(item["reference"], item["system"]): item["rows"] for item in found["coverage"]["dev_clean_2"]}
    for (reference, system), rows in tables.items():
        assert sum(row["frames"] for row in rows[:-1]) == rows[-1]["frames"]
        assert 100 * rows[-1]["reference_accuracy"] == pytest.approx(scores[reference]["frame_accuracy"], abs=1e-6)
        assert 100 * rows[-1]["system_accuracy"] == pytest.approx(scores[system]["frame_accuracy"], abs=1e-6)
    assert len(tables["generalist", "combined"]) >= 3  # covered by none, one or two, and all
    assert [entry["updates"] for entry in found["sets"]] == [40] * 5 and found["facts"]["control_updates"] == 200
    assert "## Sets" in next(folder.glob("*_specialist_report/SPECIALISTS.md")).read_text()
    assert point(base, "sets=apart")[1]["facts"]["specialists"] == 3

    made = subprocess.run([sys.executable, "local/specialists_page.py", str(folder), "--out", str(tmp_path / "page")],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert made.returncode == 0 and "By the number of specialists" in (tmp_path / "page/RESULTS.md").read_text()
    again = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert again.stdout.count("nothing to run") == 2
