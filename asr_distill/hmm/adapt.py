"""fMLLR of every speaker of a store or training set, and the speaker-adapted frames that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.fmllr import accumulate_fmllr, apply_transform, estimate_fmllr
from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.tree_stats import context_independent_phones


@dataclass(frozen=True)
class FmllrConfig:
    """Kaldi's fMLLR in numbers."""

    silence_weight: float = 0.0  # of frames aligned to silence or spoken noise
    min_count: float = 500.0  # frames; a speaker with fewer keeps the features as they are

    def __post_init__(self) -> None:
        if not 0 <= self.silence_weight <= 1 or self.min_count <= 0:
            raise ValueError("silence_weight must be within 0 and 1, min_count positive")


def speaker_transform(target: Mixtures, features: torch.Tensor, pdfs: torch.Tensor, weights: torch.Tensor,
                      config: FmllrConfig, *, posterior_mixtures: Mixtures | None = None,
                      posterior_features: torch.Tensor | None = None) -> np.ndarray:
    """fMLLR of one speaker's frames (frames, D) towards `target`: float64 (D, D + 1). As `accumulate_fmllr`."""
    stats = accumulate_fmllr(target, features, pdfs, frame_weights=weights, posterior_mixtures=posterior_mixtures,
                             posterior_features=posterior_features)
    return estimate_fmllr(stats, config.min_count)[0]


def frame_weights(alignment: Alignment, phones: tuple[str, ...], silence_weight: float) -> np.ndarray:
    """float32 (frames,): 1 in speech, `silence_weight` in silence and noise, 0 where not aligned."""
    silent = list(context_independent_phones(phones))
    weights = np.where(np.isin(alignment.phone_ids, silent), silence_weight, 1.0).astype(np.float32)
    return np.where(alignment.pdf_ids < 0, np.float32(0), weights)


def speaker_utterances(store: FrameStore) -> dict[str, list[int]]:
    """Indices of every speaker's utterances in a store."""
    indices: dict[str, list[int]] = {}
    for index, utterance in enumerate(store.utterances):
        indices.setdefault(utterance.speaker, []).append(index)
    return indices


def adapted(features: torch.Tensor, frames: Mapping[str, np.ndarray],
            transforms: Mapping[str, np.ndarray]) -> torch.Tensor:
    """A copy of features (frames, D) with every speaker's transform applied to that speaker's frames."""
    out = features.clone()
    for speaker, rows in frames.items():
        index = torch.from_numpy(rows).to(features.device)
        out[index] = apply_transform(features[index], transforms[speaker])
    return out
