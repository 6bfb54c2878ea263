"""Results as a recipe would end in, with figures that are easy to check by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from asr_distill.report.results import Comparison, Results, SplitData, SplitScores, System

sys.path.insert(0, str(Path(__file__).parent))
from page_experiment import make_experiment


def scores(accuracy: float | None, cross_entropy: float | None, errors: int, rtf: float = 0.02) -> SplitScores:
    """`errors` in 2,000 words; an interval of one point to either side."""
    wer = 100 * errors / 2000
    return SplitScores(accuracy, cross_entropy, wer, wer - 1, wer + 1, errors - 30, 10, 20, 2000, rtf)


@pytest.fixture
def results() -> Results:
    systems = [
        System("mono", "gmm", 90_000, 360_000, 126, {"test": scores(None, None, 1000)}),
        System("baseline", "baseline", 1_234_567, 4_940_000, 126, {"test": scores(58.9, 1.41, 400)}),
        *(System(f"teacher_{k}", "teacher", 6_820_000, 27_280_000, 126, {"test": scores(59.5 + k / 10, 1.35, 390 - k)})
          for k in range(3)),
        System("ensemble", "ensemble", 20_460_000, 81_840_000, 126, {"test": scores(61.1, 1.29, 350)}),
        System("student", "student", 1_234_567, 4_940_000, 126, {"test": scores(60.8, 1.31, 360)}),
        System("student_onnx", "export", 1_234_567, 4_960_000, 126, {"test": scores(60.8, 1.31, 361)}),
    ]
    return Results(
        recipe="demo", finished="2025-11-24T22:30:00+00:00", seconds=5321.5, device="cpu, 2 cores", seeds=[1, 2, 3],
        versions={"asr_distill": "0.1.0", "torch": "2.11.0"}, settings={"student": {"width": 512}},
        data={"train": SplitData(5.0, 1500, 50_000, 30), "test": SplitData(0.25, 100, 2000, 8)}, systems=systems,
        comparisons=[Comparison("student", "baseline", "test", -2.0, 0.0004),
                     Comparison("student", "ensemble", "test", 0.5, 0.31)])


def _export_rooms() -> Any:
    """tests/export/conftest.py: its toy recogniser is the page's too."""
    path = Path(__file__).parents[1] / "export" / "conftest.py"
    spec = importlib.util.spec_from_file_location("export_rooms_conftest", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


toy = _export_rooms().toy


@pytest.fixture(scope="session")
def experiment(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment's folder; copy it to change it."""
    return make_experiment(toy, tmp_path_factory.mktemp("page"))
