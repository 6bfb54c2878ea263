"""Constrained MLLR, one affine transform of the features a speaker: Gales 1998, "Maximum likelihood linear
transformations for HMM-based speech recognition" (Kaldi's gmm-est-fmllr, full transforms)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.mllt import replace_row
from asr_distill.hmm.posteriors import TilePosteriors, pick, tile_frames, weighted_squares, with_squares, zeros64
from asr_distill.hmm.threads import one_thread

_SPAN = 1e-6  # smallest over largest eigenvalue of G with unit diagonal: below it float32 sums tell nothing


@dataclass(frozen=True)
class FmllrStats:
    """Sums over a speaker's frames in float64, z = [x, 1]; those of two sets of frames can be added."""

    beta: float  # frames, weighted
    k: np.ndarray  # (D, D + 1): k[d] = sum_t sum_g posterior mean_gd / variance_gd z
    g: np.ndarray  # (D, D + 1, D + 1): g[d] = sum_t sum_g posterior / variance_gd z z^T

    def __add__(self, other: FmllrStats) -> FmllrStats:
        return FmllrStats(self.beta + other.beta, self.k + other.k, self.g + other.g)


def accumulate_fmllr(mixtures: Mixtures, features: torch.Tensor, pdfs: torch.Tensor, *,
                     frame_weights: torch.Tensor | None = None, posterior_mixtures: Mixtures | None = None,
                     posterior_features: torch.Tensor | None = None) -> FmllrStats:
    """Statistics of frames (T, D) aligned to pdfs int64 (T,); posteriors within the aligned pdf.

    frame_weights: (T,) at least 0 (Kaldi weighs silence low); None: all 1. posterior_mixtures on posterior_features
    (T, E), each by default the one before: where the Gaussians' posteriors come from (Kaldi's two models, .alimdl,
    gmm-est-fmllr-gpost). Raises ValueError where the two models have other numbers of components.
    """
    size = features.shape[1]
    source = mixtures if posterior_mixtures is None else posterior_mixtures
    seen = features if posterior_features is None else posterior_features
    if source.counts != mixtures.counts:
        raise ValueError("the model of the posteriors must have as many components in each pdf as the other one")
    precisions = 1 / mixtures.variances
    both = torch.cat([precisions, mixtures.means * precisions], 1)  # (G, 2 D)
    posteriors_of = TilePosteriors(source)
    beta = zeros64(features.device)
    k, g = zeros64(features.device, size, size + 1), zeros64(features.device, size, size + 1, size + 1)
    with one_thread():
        for tiles in tile_frames(mixtures, pdfs, frame_weights):
            posteriors, _ = posteriors_of(with_squares(pick(seen, tiles.frames)), tiles)
            real = tiles.real
            mixed = pick((posteriors.mT @ pick(both, tiles.components)).flatten(0, 1), real)  # (frames, 2 D)
            frames = pick(features, tiles.frames.flatten()[real])
            extended = torch.cat([frames, frames.new_ones(len(frames), 1)], 1)
            beta += posteriors.sum(dtype=torch.float64)
            k += mixed[:, size:].T @ extended
            g += weighted_squares(mixed[:, :size], extended)
    return FmllrStats(float(beta), k.cpu().numpy(), g.cpu().numpy())


def estimate_fmllr(stats: FmllrStats, min_count: float = 500.0, iterations: int = 40) -> tuple[np.ndarray, float]:
    """The transform [A, b] (D, D + 1) that maximises the log-likelihood of A x + b, and the gain per frame.

    The identity, gain 0, for fewer than `min_count` frames, and for frames that do not span the space (digital
    silence): nothing can be learned from them.
    """
    size = len(stats.k)
    matrix = np.eye(size, size + 1)
    if stats.beta < min_count or not _spans(stats.g):
        return matrix, 0.0
    inverses = np.linalg.inv(stats.g)
    square = matrix[:, :size]
    before = _objective(stats, matrix)
    for _ in range(iterations):
        inverse = np.linalg.inv(square)
        for row in range(size):
            cofactors = np.append(inverse[:, row], 0.0)  # up to the determinant, which cancels
            new = _best_row(cofactors, inverses[row], stats.k[row], stats.beta)
            replace_row(square, inverse, row, new[:size])
            matrix[row, size] = new[size]
    return matrix, (_objective(stats, matrix) - before) / stats.beta


def apply_transform(features: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """A x + b for features (T, D): matrix [A, b] (E, D + 1), or A alone (E, D), to (T, E) (Kaldi's transform-feats).

    Raises ValueError where the matrix is of other features.
    """
    size = features.shape[1]
    if matrix.shape[1] not in (size, size + 1):
        raise ValueError(f"a transform of shape {matrix.shape} does not fit features of {size} coefficients")
    weights = torch.as_tensor(matrix, dtype=features.dtype, device=features.device)
    if matrix.shape[1] == size:
        return features @ weights.T
    return torch.addmm(weights[:, size], features, weights[:, :size].T)


def compose_transforms(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One affine transform that does what `first` (D, C + 1) and then `second` (E, D + 1) do: (E, C + 1)."""
    size = len(first)
    result = second[:, :size] @ first
    result[:, -1] += second[:, size]
    return result


def _best_row(cofactors: np.ndarray, inverse: np.ndarray, k: np.ndarray, beta: float) -> np.ndarray:
    """The row w (D + 1,) that maximises beta log|w c| + w k - w G w / 2: of G^-1 (a c + k), the better root a."""
    direction, start = inverse @ cofactors, inverse @ k
    e1, e2 = float(cofactors @ direction), float(cofactors @ start)
    root = math.sqrt(e2 * e2 + 4 * e1 * beta)
    roots = ((-e2 + root) / (2 * e1), (-e2 - root) / (2 * e1))
    best = max(roots, key=lambda a: beta * math.log(abs(a * e1 + e2)) - 0.5 * a * a * e1)
    return best * direction + start


def _objective(stats: FmllrStats, matrix: np.ndarray) -> float:
    """Log-likelihood of the transformed frames up to a constant."""
    size = len(matrix)
    return float(stats.beta * np.linalg.slogdet(matrix[:, :size])[1] + (matrix * stats.k).sum()
                 - 0.5 * np.einsum("di,dij,dj->", matrix, stats.g, matrix))


def _spans(g: np.ndarray) -> bool:
    deviations = np.sqrt(np.einsum("dii->di", g))
    if not (deviations > 0).all():
        return False
    values = np.linalg.eigvalsh(g / (deviations[:, :, None] * deviations[:, None, :]))
    return bool((values[:, 0] > _SPAN * values[:, -1]).all())
