"""The table of our rungs beside Kaldi's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from asr_distill.report.results import Results, SplitData, SplitScores, System
from local.beside_kaldi import beside_kaldi

ROOT = Path(__file__).resolve().parents[2]


def _results(split: str = "dev_clean_2") -> Results:
    def system(name: str, role: str, errors: int) -> System:
        wer = 100 * errors / 20138
        return System(name, role, 1000, 4000, 2070, {  # type: ignore[arg-type]
            split: SplitScores(None, None, wer, wer - 1, wer + 1, errors - 30, 10, 20, 20138, 0.01)})

    return Results(
        recipe="mini_librispeech", finished="2026-11-25T08:00:00+00:00", seconds=9000.0, device="cpu", seeds=[1],
        versions={}, settings={}, data={split: SplitData(2.0, 1089, 20138, 26)},
        systems=[system("tri3b", "gmm", 3712), system("tri3b_large", "gmm", 3500), system("student", "student", 3300)],
        comparisons=[], stages={"mono": 45.0, "tri1": 75.0, "tri2b": 101.0, "tri3b": 132.0, "student": 500.0})


def test_rungs_stand_beside_kaldis_figures() -> None:
    lines = beside_kaldi(_results()).splitlines()
    row = [cell.strip() for cell in lines[2].split("|")][1:-1]
    assert row == ["tri3b", "18.43 [17.43, 19.43]",
                   "17.38 [16.38, 18.38]", "18.91 / 17.50", "18.10 / 13.45", "132", "204"]
    assert [cell.strip() for cell in lines[3].split("|")][1:4] == ["student", "16.39 [15.39, 17.39]", "–"]
    assert not any("tri3b_large" in line for line in lines)
    assert lines[-1].startswith("The ladder with its alignments: 353 s, Kaldi's 715 s") and lines[-1].endswith("0.49.")


def test_other_results_are_refused() -> None:
    with pytest.raises(UserError, match="dev_clean_2"):
        beside_kaldi(_results("test"))


def test_the_command_prints_it(tmp_path: Path) -> None:
    _results().write(tmp_path / "RESULTS.json")
    command = [sys.executable, "local/beside_kaldi.py"]
    done = subprocess.run([*command, str(tmp_path / "RESULTS.json")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "18.91 / 17.50" in done.stdout
    failed = subprocess.run([*command, str(tmp_path / "none.json")], cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1 and "none.json" in failed.stderr and "Traceback" not in failed.stderr
