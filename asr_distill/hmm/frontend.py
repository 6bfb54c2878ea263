"""The GMM's view of the features: cepstra with deltas, from log-mel frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from asr_distill.features.cmvn import Cmvn, UtteranceFeatures


@dataclass(frozen=True)
class FrontendConfig:
    """Kaldi's MFCC and add-deltas in numbers. No lifter: scaling a dimension changes no diagonal Gaussian."""

    cepstra: int = 13  # with C0
    delta_window: int = 2  # frames each side

    def __post_init__(self) -> None:
        if self.cepstra < 1 or self.delta_window < 1:
            raise ValueError("cepstra and delta_window must be at least 1")

    @property
    def dimension(self) -> int:
        return 3 * self.cepstra


def dct_matrix(coefficients: int, cepstra: int) -> torch.Tensor:
    """Orthonormal DCT-II (coefficients, cepstra), as Kaldi's ComputeDctMatrix."""
    n = torch.arange(coefficients, dtype=torch.float64).unsqueeze(1)
    k = torch.arange(cepstra, dtype=torch.float64)
    matrix = torch.cos(math.pi / coefficients * (n + 0.5) * k) * math.sqrt(2.0 / coefficients)
    matrix[:, 0] = math.sqrt(1.0 / coefficients)
    return matrix.float()


def delta_filters(window: int) -> torch.Tensor:
    """Filters of static, delta and double-delta coefficients (3, 4 window + 1): Kaldi's DeltaFeatures."""
    taps = torch.arange(-window, window + 1, dtype=torch.float64)
    first = taps / taps.square().sum()
    width = 4 * window + 1
    filters = torch.zeros(3, width, dtype=torch.float64)
    filters[0, 2 * window] = 1.0
    filters[1, window : 3 * window + 1] = first
    for i, weight in enumerate(first.tolist()):
        filters[2, i : i + len(first)] += weight * first
    return filters.float()


def add_deltas(frames: torch.Tensor, window: int) -> torch.Tensor:
    """(frames, n) to (frames, 3 n): static, delta, double-delta; the edges repeat the first and last frame."""
    filters = delta_filters(window).to(frames.device)
    index = torch.arange(-2 * window, len(frames) + 2 * window, device=frames.device)
    padded = frames[index.clamp(0, len(frames) - 1)].T.unsqueeze(1)  # (n, 1, frames + 4 window)
    out = torch.nn.functional.conv1d(padded, filters.unsqueeze(1))  # (n, 3, frames)
    return out.permute(2, 1, 0).reshape(len(frames), -1)


class Frontend:
    """CMVN, DCT, deltas: (frames, coefficients) of raw log-mel to (frames, dimension)."""

    def __init__(self, config: FrontendConfig, cmvn: Cmvn):
        self.config, self.cmvn = config, cmvn

    def __call__(self, utterance: UtteranceFeatures) -> torch.Tensor:
        normalised = self.cmvn.apply(utterance)  # (frames, coefficients)
        if not len(normalised):
            return normalised.new_zeros(0, self.config.dimension)
        cepstra = normalised @ dct_matrix(normalised.shape[1], self.config.cepstra).to(normalised.device)
        return add_deltas(cepstra, self.config.delta_window)
