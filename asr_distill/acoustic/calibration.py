"""Reliability of posteriors: how often the best pdf is right, given how sure the model was (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class ReliabilityBins:
    """Frames in equal bins of confidence (the largest posterior); bins add up over utterances and batches."""

    count: np.ndarray  # int64 (bins,)
    confidence: np.ndarray  # float64 (bins,): sum of the largest posteriors
    correct: np.ndarray  # int64 (bins,): frames whose best pdf is the aligned one

    @staticmethod
    def empty(bins: int = 15) -> ReliabilityBins:
        return ReliabilityBins(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64))

    @staticmethod
    def of(log_posteriors: torch.Tensor, pdf_ids: torch.Tensor, bins: int = 15) -> ReliabilityBins:
        """From log posteriors (frames, pdfs) and the aligned pdf-ids (frames,); frames with -1 are left out."""
        known = pdf_ids >= 0
        best, pdf = log_posteriors[known].max(dim=1)
        confidence = best.double().exp().clamp(0, 1).cpu().numpy()
        right = (pdf == pdf_ids[known].to(pdf.device)).cpu().numpy()
        index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
        return ReliabilityBins(np.bincount(index, minlength=bins),
                               np.bincount(index, weights=confidence, minlength=bins),
                               np.bincount(index[right], minlength=bins))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain data that `from_dict` reads back."""
        return {"count": self.count.tolist(), "confidence": self.confidence.tolist(), "correct": self.correct.tolist()}

    @staticmethod
    def from_dict(plain: Mapping[str, Sequence[float]]) -> ReliabilityBins:
        return ReliabilityBins(np.array(plain["count"], np.int64), np.array(plain["confidence"]),
                               np.array(plain["correct"], np.int64))

    def __add__(self, other: ReliabilityBins) -> ReliabilityBins:
        return ReliabilityBins(self.count + other.count, self.confidence + other.confidence,
                               self.correct + other.correct)

    def curve(self, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(mean confidence, accuracy) of every bin with at least `least` frames."""
        used = self.count >= max(least, 1)
        return self.confidence[used] / self.count[used], self.correct[used] / self.count[used]

    @property
    def expected_calibration_error(self) -> float:
        """Mean |accuracy - confidence| over frames; 0 without frames."""
        total = self.count.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else 0.0
