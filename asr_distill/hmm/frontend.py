"""The GMM's view of the features: cepstra with deltas, or spliced and projected, or speaker-adapted frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from asr_distill.config import build, to_dict
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures


@dataclass(frozen=True)
class FrontendConfig:
    """Kaldi's MFCC with add-deltas or splice-feats. No lifter: scaling a dimension changes no diagonal Gaussian."""

    cepstra: int = 13  # with C0
    delta_window: int = 2  # frames each side; of no effect where frames are spliced
    splice: int = 0  # > 0: in place of deltas, so many frames each side laid beside the frame (for LDA)
    cmvn: Literal["speaker", "speaker_mean"] = "speaker_mean"

    def __post_init__(self) -> None:
        if self.cepstra < 1 or self.delta_window < 1 or self.splice < 0:
            raise ValueError("cepstra and delta_window must be at least 1, splice not negative")

    @property
    def dimension(self) -> int:
        return (2 * self.splice + 1 if self.splice else 3) * self.cepstra


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


def splice_frames(frames: torch.Tensor, context: int) -> torch.Tensor:
    """(frames, n) to (frames, (2 context + 1) n), earliest first; the edges repeat the first and last frame."""
    index = torch.arange(len(frames), device=frames.device).unsqueeze(1)
    index = index + torch.arange(-context, context + 1, device=frames.device)
    return frames[index.clamp(0, len(frames) - 1)].flatten(1)


class Frontend:
    """CMVN, DCT, deltas or splicing, and a projection where there is one.

    Raw log-mel (frames, coefficients) become (frames, dimension). `projection`: (dimension, config.dimension), LDA
    with MLLT on top of it.
    """

    kind = "cepstra"

    def __init__(self, config: FrontendConfig, cmvn: Cmvn, projection: torch.Tensor | None = None):
        self.config, self.cmvn, self.projection = config, cmvn, projection

    @property
    def dimension(self) -> int:
        return self.config.dimension if self.projection is None else len(self.projection)

    def __call__(self, utterance: UtteranceFeatures) -> torch.Tensor:
        normalised = self.cmvn.apply(utterance)  # (frames, coefficients)
        if not len(normalised):
            return normalised.new_zeros(0, self.dimension)
        cepstra = normalised @ dct_matrix(normalised.shape[1], self.config.cepstra).to(normalised.device)
        if self.config.splice:
            spread = splice_frames(cepstra, self.config.splice)
        else:
            spread = add_deltas(cepstra, self.config.delta_window)
        return spread if self.projection is None else spread @ self.projection.T.to(spread.device)

    def projected(self, projection: torch.Tensor) -> Frontend:
        """This front end with another projection."""
        return Frontend(self.config, self.cmvn, projection)

    def settings(self) -> dict[str, Any]:
        """Plain data for JSON; `tensors` hold the rest."""
        return {"kind": self.kind, "config": to_dict(self.config), "cmvn": self.cmvn.to_dict()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {} if self.projection is None else {"projection": self.projection}


class AdaptedFrontend:
    """Speaker-adapted frames as they are: for a model trained on features that fMLLR had adapted."""

    kind = "adapted"

    def __init__(self, dimension: int):
        self.dimension = dimension

    def __call__(self, utterance: UtteranceFeatures) -> torch.Tensor:
        if utterance.adapted is None:
            raise ValueError("this model hears speaker-adapted frames, which these features do not hold")
        return utterance.adapted

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "dimension": self.dimension}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}


def frontend_from(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Frontend | AdaptedFrontend:
    """What `settings` and `tensors` describe. Raises KeyError or ValueError where they are of another form."""
    if settings["kind"] == AdaptedFrontend.kind:
        return AdaptedFrontend(int(settings["dimension"]))
    return Frontend(build(FrontendConfig, settings["config"]), Cmvn.from_dict(settings["cmvn"]),
                    tensors.get("projection"))
