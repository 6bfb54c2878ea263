"""Plots are real pictures; reliability bins equal a count by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.report.plots import TrainingCurve, plot_reliability, plot_training, plot_wer
from asr_distill.report.results import ErrorScores, Results, SplitData, System


def colours(path: Path) -> int:
    """How many colours a PNG holds: an empty axis has few."""
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[0] > 300 and pixels.shape[1] > 600
    return len(np.unique((pixels * 255).astype(np.uint8).reshape(-1, 3), axis=0))


def has_colour(path: Path, hexadecimal: str) -> bool:
    wanted = np.array([int(hexadecimal[k:k + 2], 16) for k in (1, 3, 5)])
    return bool((np.abs(image.imread(path)[..., :3] * 255 - wanted).max(-1) < 2).any())


def test_training_curves(tmp_path: Path) -> None:
    curves = {"teacher_0": TrainingCurve("teacher", [40, 50, 55], [2.0, 1.6, 1.5]),
              "teacher_1": TrainingCurve("teacher", [41, 51, 54], [2.0, 1.7, 1.5]),
              "student": TrainingCurve("student", [45, 54, 56], [1.9, 1.5, 1.4], epochs=[0.5, 1, 1.5])}
    plot_training(curves, tmp_path / "training.png")
    assert colours(tmp_path / "training.png") > 50
    assert has_colour(tmp_path / "training.png", "#009e73") and has_colour(tmp_path / "training.png", "#8fbfe0")
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"]
    with pytest.raises(ValueError, match="one accuracy and one cross-entropy"):
        TrainingCurve("teacher", [1, 2], [1])


def test_wer_with_intervals(results: Results, tmp_path: Path) -> None:
    assert plot_wer(results, tmp_path / "wer.png")
    assert colours(tmp_path / "wer.png") > 50
    assert has_colour(tmp_path / "wer.png", "#d55e00") and has_colour(tmp_path / "wer.png", "#b0609a")


def test_nothing_to_plot_no_file(results: Results, tmp_path: Path) -> None:
    net = System("net", "student", 1, 4, 10, {"mnist": ErrorScores(99.2, 0.03, 74)})
    mnist = dataclasses.replace(results, data={"mnist": SplitData(None, 10_000, None, None)}, systems=[net],
                                comparisons=[])
    assert not plot_wer(mnist, tmp_path / "wer.png")
    assert not list(tmp_path.iterdir())


def test_reliability_bins_by_hand() -> None:
    log_posteriors = torch.tensor([[0.92, 0.08], [0.27, 0.73], [0.55, 0.45], [0.2, 0.8]]).log()
    bins = ReliabilityBins.of(log_posteriors, torch.tensor([0, 0, 0, -1]), bins=10)  # the last has no alignment
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 1]
    assert bins.correct.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    confidence, accuracy = bins.curve()
    np.testing.assert_allclose(confidence, [0.55, 0.73, 0.92], atol=1e-6)
    assert accuracy.tolist() == [1, 0, 1]
    assert bins.expected_calibration_error == pytest.approx((0.45 + 0.73 + 0.08) / 3)
    assert ReliabilityBins.empty().expected_calibration_error == 0


def test_reliability_bins_add_up() -> None:
    logits = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    truth = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(1))
    halves = ReliabilityBins.of(logits[:200], truth[:200]) + ReliabilityBins.of(logits[200:], truth[200:])
    whole = ReliabilityBins.of(logits, truth) + ReliabilityBins.empty()
    np.testing.assert_array_equal(halves.count, whole.count)
    np.testing.assert_array_equal(halves.correct, whole.correct)
    np.testing.assert_allclose(halves.confidence, whole.confidence)


def test_true_posteriors_are_calibrated(tmp_path: Path) -> None:
    """Labels drawn from the posteriors themselves lie on the diagonal; sharpened posteriors below it."""
    logits = 2 * torch.randn(20_000, 20, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    truth = torch.distributions.Categorical(logits=logits).sample()
    fair = ReliabilityBins.of(logits.log_softmax(1), truth)
    sharp = ReliabilityBins.of((1.6 * logits).log_softmax(1), truth)
    assert fair.expected_calibration_error < 0.015 < 0.1 < sharp.expected_calibration_error
    plot_reliability({"ensemble": ("ensemble", fair), "student": ("student", sharp)}, tmp_path / "reliability.png")
    assert colours(tmp_path / "reliability.png") > 50 and has_colour(tmp_path / "reliability.png", "#00557f")
