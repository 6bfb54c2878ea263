"""A study on a finished experiment in the language of tones: what it shares, what it measures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import ROOT, environment, tone_settings

pytestmark = pytest.mark.slow

STUDY = """
recipe: mini_librispeech
grid:
  distill.store.temperature: [2.0, 8.0]
  student.seed: [1, 2]
stages: [decode_baseline, decode_ensemble, decode_student]
plots:
  - {x: distill.store.temperature, y: frame_accuracy}
  - {x: distill.store.temperature, y: wer}
"""


def test_two_temperatures_on_a_finished_experiment(finished: Path, tones: Path, tmp_path: Path) -> None:
    settings = tone_settings(tones)
    base = tmp_path / "exp"
    shutil.copytree(finished, base)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in base.rglob("*") if path.is_file()}
    file = tmp_path / "heat.yaml"
    file.write_text(STUDY)
    command = [sys.executable, "-m", "asr_distill.cli", "study", str(file), "--base", str(base), "--device", "cpu",
               *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in base.rglob("*")
            if path.is_file() and "study" not in path.relative_to(base).parts} == before
    made = sorted(path.name.split("-")[0] for path in (base / "study/stages").iterdir())
    assert made == ["17_soft_targets", *["18_baseline"] * 2, *["19_student"] * 4,
                    *["21_decode_baseline"] * 2, *["24_decode_student"] * 4]

    found = json.loads((base / "study/heat/study.json").read_text())
    rows = {(row["axes"]["distill.store.temperature"], row["system"]): row for row in found["rows"]}
    assert set(rows) == {(t, system) for t in (2.0, 8.0) for system in ("baseline", "ensemble", "student")}
    assert rows[2.0, "baseline"]["figures"] == rows[8.0, "baseline"]["figures"]
    for temperature in (2.0, 8.0):
        student, baseline = rows[temperature, "student"], rows[temperature, "baseline"]
        assert student["figures"]["wer"]["count"] == 2 and student["wer_interval"][0] <= student["wer_interval"][1]
        assert student["wer_difference"][0] == pytest.approx(
            student["figures"]["wer"]["mean"] - baseline["figures"]["wer"]["mean"])
        assert 0 < student["p"] <= 1 and baseline["p"] is None
        assert student["figures"]["train_accuracy"]["mean"] > 40
    # an utterance's words as the recipe itself would score them
    system = json.loads((base / "study/heat/points/temperature=2.0,seed=1/24_decode_student/student/system.json"
                         ).read_text())
    point = next(item for item in found["points"] if item["label"] == "temperature=2.0,seed=1")
    measured = next(item for item in point["systems"] if item["name"] == "student")
    assert measured["figures"]["frame_accuracy"] == system["splits"]["dev_clean_2"]["frame_accuracy"]
    again = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert again.stdout.count("nothing to run") == 4
