"""Maximum likelihood linear transform, also called STC: Gales 1998, "Semi-tied covariance matrices for hidden Markov
models" (Kaldi's gmm-acc-mllt and est-mllt)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.posteriors import TilePosteriors, pick, tile_frames, weighted_squares, with_squares, zeros64
from asr_distill.hmm.threads import one_thread

_GAUSSIANS = 1024  # in one product


@dataclass(frozen=True)
class MlltStats:
    """Sums in float64; those of two sets of frames can be added."""

    count: float  # frames, weighted
    g: np.ndarray  # (D, D, D): g[d] = sum over Gaussians of 1 / variance_d * sum_t posterior (x - mean)(x - mean)^T

    def __add__(self, other: MlltStats) -> MlltStats:
        return MlltStats(self.count + other.count, self.g + other.g)


def accumulate_mllt(mixtures: Mixtures, features: torch.Tensor, pdfs: torch.Tensor,
                    weights: torch.Tensor | None = None) -> MlltStats:
    """Statistics of frames (T, D) aligned to pdfs int64 (T,); posteriors within the aligned pdf.

    weights: (T,) at least 0, of the frames (Kaldi weighs silence 0); None: all 1.
    """
    size = features.shape[1]
    precisions = 1 / mixtures.variances
    centre = mixtures.means.mean(0)  # near the frames' mean: what is subtracted below stays small
    posteriors_of = TilePosteriors(mixtures)
    occupancies = zeros64(features.device, len(precisions))
    sums = zeros64(features.device, len(precisions), size)
    g = zeros64(features.device, size, size, size)
    with one_thread():
        for tiles in tile_frames(mixtures, pdfs, weights):
            frames = pick(features, tiles.frames)
            posteriors, _ = posteriors_of(with_squares(frames), tiles)
            frame_weights = posteriors.mT @ pick(precisions, tiles.components)  # (tiles, frames of a tile, D)
            real, centred = tiles.real, frames - centre
            components = tiles.components.flatten()
            occupancies.index_add_(0, components, posteriors.sum(2).flatten().double())
            sums.index_add_(0, components, (posteriors @ centred).flatten(0, 1).double())
            g += weighted_squares(pick(frame_weights.flatten(0, 1), real), pick(centred.flatten(0, 1), real))
        # sum_t posterior (x - mean)(x - mean)^T = squares - s mean^T - mean s^T + n mean mean^T, s: the sum of x
        means = (mixtures.means - centre).double()
        cross = (0.5 * occupancies.unsqueeze(1) * means - sums).unsqueeze(1)  # (G, 1, D): half is added twice
        for at in range(0, len(means), _GAUSSIANS):
            part = slice(at, at + _GAUSSIANS)
            products = (means[part].unsqueeze(2) * cross[part]).flatten(1)  # (gaussians, D * D)
            half = (precisions[part].double().T @ products).view(size, size, size)
            g += half + half.mT
    return MlltStats(float(occupancies.sum()), g.cpu().numpy())


def estimate_mllt(stats: MlltStats, iterations: int = 200) -> tuple[np.ndarray, float]:
    """The square transform (D, D) to apply to the features, and the gain in log-likelihood per frame.

    Row by row: row_d = c G_d^-1 sqrt(count / (c G_d^-1 c^T)), c the row of cofactors. Means are to be transformed
    with it, variances stay (they are estimated anew).
    """
    size = len(stats.g)
    inverses = np.linalg.inv(stats.g)
    matrix = np.eye(size)
    before = _objective(stats, matrix)
    for _ in range(iterations):
        inverse = np.linalg.inv(matrix)
        for row in range(size):
            cofactors = inverse[:, row]  # up to the determinant, which cancels
            direction = inverses[row] @ cofactors
            new = direction * np.sqrt(stats.count / (cofactors @ direction))
            replace_row(matrix, inverse, row, new)
    return matrix, (_objective(stats, matrix) - before) / stats.count


def replace_row(matrix: np.ndarray, inverse: np.ndarray, row: int, new: np.ndarray) -> None:
    """Change one row of a matrix (D, D) and, by Sherman and Morrison, its inverse, both in place."""
    column = inverse[:, row] / (new @ inverse[:, row])
    change = new @ inverse
    change[row] -= 1.0
    inverse -= np.outer(column, change)
    matrix[row] = new


def _objective(stats: MlltStats, matrix: np.ndarray) -> float:
    """Log-likelihood of the frames up to a constant."""
    return float(stats.count * np.linalg.slogdet(matrix)[1] - 0.5 * np.einsum("di,dij,dj->", matrix, stats.g, matrix))
