"""Linear discriminant analysis of spliced features, classes being pdfs (Kaldi's acc-lda and est-lda)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.hmm.posteriors import zeros64
from asr_distill.hmm.threads import one_thread

_CHUNK = 8192  # frames in one product


@dataclass(frozen=True)
class LdaStats:
    """Sums over frames in float64; those of two sets of frames can be added."""

    counts: np.ndarray  # (C,) frames of each class
    sums: np.ndarray  # (C, D)
    squares: np.ndarray  # (D, D) sum of x x^T over all frames

    def __add__(self, other: LdaStats) -> LdaStats:
        return LdaStats(self.counts + other.counts, self.sums + other.sums, self.squares + other.squares)


def accumulate_lda(features: torch.Tensor, classes: torch.Tensor, num_classes: int) -> LdaStats:
    """Statistics of features (T, D) with classes int64 (T,); frames of a class below 0 are left out."""
    size = features.shape[1]
    sums, squares = zeros64(features.device, num_classes, size), zeros64(features.device, size, size)
    with one_thread():
        for at in range(0, len(features), _CHUNK):
            kept = classes[at : at + _CHUNK] >= 0
            frames = features[at : at + _CHUNK][kept].double()
            sums.index_add_(0, classes[at : at + _CHUNK][kept], frames)
            squares += frames.T @ frames
    counts = torch.bincount(classes[classes >= 0], minlength=num_classes).double()
    return LdaStats(counts.cpu().numpy(), sums.cpu().numpy(), squares.cpu().numpy())


def estimate_lda(stats: LdaStats, dimension: int, within_class_factor: float = 1.0) -> np.ndarray:
    """Projection (dimension, D), float64: the directions that separate the classes best, best first.

    Within the classes the projected features have unit covariance (within_class_factor 1), so the variance of row
    i is 1 + b_i with b_i that of the class means. Another factor f scales row i by sqrt((f + b_i) / (1 + b_i)).
    Raises ValueError for a dimension over D, UserError where the frames do not span the space.
    """
    size = stats.squares.shape[0]
    if not 0 < dimension <= size:
        raise ValueError(f"LDA to {dimension} dimensions, but the features have {size}")
    total = stats.counts.sum()
    if not total:
        raise UserError("LDA: no frame has a class; train on more audio")
    mean = stats.sums.sum(0) / total
    seen = stats.counts > 0
    means = stats.sums[seen] / np.sqrt(stats.counts[seen, None])  # each times the root of its count
    offset = np.outer(mean, mean)
    between = means.T @ means / total - offset
    within = stats.squares / total - offset - between
    try:
        whiten = np.linalg.inv(np.linalg.cholesky(within))
    except np.linalg.LinAlgError:
        raise UserError(f"LDA: {total:.0f} frames of {seen.sum()} classes do not span the {size} dimensions of the "
                        "features; train on more audio") from None
    spread, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    best = np.argsort(-spread)[:dimension]
    spread = np.maximum(spread[best], 0.0)
    scale = np.sqrt((within_class_factor + spread) / (1 + spread))
    return scale[:, None] * (directions[:, best].T @ whiten)
