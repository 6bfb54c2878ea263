"""Expectation-maximisation of diagonal mixtures on aligned frames, and their growth (Kaldi's gmm-est)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.posteriors import TilePosteriors, pick, tile_frames, with_squares, zeros64
from asr_distill.hmm.threads import one_thread


@dataclass(frozen=True)
class UpdateConfig:
    """Kaldi's MleDiagGmmOptions."""

    variance_floor: float = 0.001
    min_occupancy: float = 10.0  # a component seen less is removed, unless it is its pdf's last
    min_weight: float = 1e-5

    def __post_init__(self) -> None:
        if self.variance_floor <= 0 or self.min_occupancy <= 0 or not 0 <= self.min_weight < 1:
            raise ValueError("variance_floor and min_occupancy must be positive, min_weight in [0, 1)")


@dataclass(frozen=True)
class GmmStats:
    """Zeroth, first and second order statistics, float64, and the log-likelihood of the frames."""

    occupancies: torch.Tensor  # (G,)
    sums: torch.Tensor  # (G, D)
    squares: torch.Tensor  # (G, D)
    log_likelihood: float
    frames: int


def global_mixtures(features: torch.Tensor, num_pdfs: int) -> Mixtures:
    """One Gaussian, that of all frames (frames, D), for every pdf (Kaldi's gmm-init-mono)."""
    variance, mean = torch.var_mean(features.double(), 0, correction=0)
    return Mixtures(torch.ones(num_pdfs, device=features.device), mean.float().repeat(num_pdfs, 1),
                    variance.float().repeat(num_pdfs, 1), (1,) * num_pdfs)


def accumulate(mixtures: Mixtures, features: torch.Tensor, pdfs: torch.Tensor, *,
               features_out: torch.Tensor | None = None) -> GmmStats:
    """Statistics of frames (frames, D) aligned to `pdfs` int64 (frames,); posteriors within the aligned pdf.

    features_out: (frames, E), other features of the same frames; the sums are of those, posteriors and
    log-likelihood of `features` (Kaldi's gmm-acc-stats-twofeats).
    """
    posteriors_of = TilePosteriors(mixtures)
    dimension = (features if features_out is None else features_out).shape[1]
    occupancies = zeros64(features.device, len(mixtures.weights))
    moments = zeros64(features.device, len(mixtures.weights), 2 * dimension)
    total = zeros64(features.device)
    with one_thread():
        for tiles in tile_frames(mixtures, pdfs):
            both = with_squares(pick(features, tiles.frames))
            posteriors, evidence = posteriors_of(both, tiles)
            out = both if features_out is None else with_squares(pick(features_out, tiles.frames))
            components = tiles.components.flatten()
            occupancies.index_add_(0, components, posteriors.sum(2).flatten().double())
            moments.index_add_(0, components, (posteriors @ out).flatten(0, 1).double())
            total += evidence.sum(dtype=torch.float64)
    return GmmStats(occupancies, moments[:, :dimension], moments[:, dimension:], float(total), len(features))


def update(mixtures: Mixtures, stats: GmmStats, config: UpdateConfig, *, keep_all: bool = False) -> Mixtures:
    """Maximum likelihood estimate; components with too few frames go, the last one of a pdf stays as it was.

    With `keep_all` none goes: all with too few frames keep mean and variance.
    """
    occupancies = stats.occupancies.cpu().numpy()
    keep = np.zeros(len(occupancies), bool)
    weights = np.ones(len(occupancies))
    for begin, end in zip(mixtures.offsets, mixtures.offsets[1:], strict=False):
        mine = occupancies[begin:end]
        shares = mine / mine.sum() if mine.sum() > 0 else np.full(end - begin, 1 / (end - begin))
        good = (mine > config.min_occupancy) & (shares > config.min_weight)
        if keep_all:
            good[:], shares = True, np.maximum(shares, 1e-8)  # a weight of 0 has no logarithm
        elif not good.any():
            good[np.argmax(mine)] = True
        keep[begin:end] = good
        weights[begin:end][good] = shares[good] / shares[good].sum()
    estimated = torch.as_tensor(keep & (occupancies > config.min_occupancy), device=mixtures.device).unsqueeze(1)
    count = stats.occupancies.clamp(min=1e-10).unsqueeze(1)
    means = stats.sums / count
    variances = (stats.squares / count - means.square()).clamp(min=config.variance_floor)
    kept = torch.as_tensor(np.flatnonzero(keep), device=mixtures.device)
    counts = np.add.reduceat(keep, mixtures.offsets[:-1])
    return Mixtures(
        torch.as_tensor(weights[keep], dtype=torch.float32, device=mixtures.device),
        torch.where(estimated, means.float(), mixtures.means)[kept],
        torch.where(estimated, variances.float(), mixtures.variances)[kept], tuple(counts.tolist()))


def pdf_occupancies(mixtures: Mixtures, stats: GmmStats) -> np.ndarray:
    """Frames of each pdf, (pdfs,)."""
    return np.add.reduceat(stats.occupancies.cpu().numpy(), mixtures.offsets[:-1])


def split_targets(occupancies: np.ndarray, counts: tuple[int, ...], total: int, *, power: float = 0.25,
                  min_count: float = 20.0) -> list[int]:
    """How many components each pdf should have so that there are about `total` (Kaldi's GetSplitTargets).

    The next one always goes to the pdf with most occupancy^power per component; none to a pdf that would have
    under `min_count` frames a component. No pdf loses components.
    """
    shares = np.maximum(occupancies, 0.0) ** power
    targets = [1] * len(shares)
    queue = [(-share, pdf) for pdf, share in enumerate(shares.tolist())]
    heapq.heapify(queue)
    given = len(shares)
    while queue and given < total:
        _, pdf = heapq.heappop(queue)
        if occupancies[pdf] / (targets[pdf] + 1) < min_count:
            continue
        targets[pdf] += 1
        given += 1
        heapq.heappush(queue, (-shares[pdf] / targets[pdf], pdf))
    return [max(target, count) for target, count in zip(targets, counts, strict=True)]


def split(mixtures: Mixtures, targets: list[int], *, seed: int, perturb: float = 0.01) -> Mixtures:
    """Split the heaviest component of a pdf in two, moved apart by a share of its deviation, until `targets`.

    Kaldi's DiagGmm::Split. The same seed gives the same mixtures on every device.
    """
    generator = np.random.default_rng(seed)
    weights, means, variances = (tensor.cpu().numpy() for tensor in
                                 (mixtures.weights, mixtures.means, mixtures.variances))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for begin, end, target in zip(mixtures.offsets, mixtures.offsets[1:], targets, strict=False):
        w, m, v = (list(array[begin:end]) for array in (weights, means, variances))
        while len(w) < target:
            heaviest = int(np.argmax(w))
            shift = perturb * np.sqrt(v[heaviest]) * generator.standard_normal(means.shape[1])
            w[heaviest] = w[heaviest] / 2
            w.append(w[heaviest])
            m.append(m[heaviest] + shift)
            m[heaviest] = m[heaviest] - shift
            v.append(v[heaviest])
        parts.append((np.array(w), np.array(m), np.array(v)))
    weight, mean, variance = (
        torch.as_tensor(np.concatenate(arrays), dtype=torch.float32, device=mixtures.device)
        for arrays in zip(*parts, strict=True))
    return Mixtures(weight, mean, variance, tuple(targets))
