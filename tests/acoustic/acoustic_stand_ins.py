"""Synthetic speech for the tests of acoustic and distill: utterances of drifting states with Gaussian frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.hmm.align import Alignment


@dataclass(frozen=True)
class Spoken:
    id: str
    speaker: str


class StandInStore:
    """What the rooms under test use of a FrameStore, from arrays."""

    def __init__(self, utterances: list[np.ndarray], directory: Path = Path("stand-in")):
        self.utterances = [Spoken(f"utt{i}", f"spk{i % 3}") for i in range(len(utterances))]
        self.offsets = np.concatenate([[0], np.cumsum([len(u) for u in utterances])]).astype(np.int64)
        self.frames = np.concatenate(utterances).astype(np.float16)
        self.num_frames, self.num_coefficients = self.frames.shape
        self.directory = directory
        self.total_stats = CmvnStats.of(self.frames)

    def features(self, index: int, device: torch.device) -> UtteranceFeatures:
        rows = self.frames[self.offsets[index]:self.offsets[index + 1]].astype(np.float32)
        return UtteranceFeatures(torch.from_numpy(rows).to(device), CmvnStats.of(rows))


def synthetic(utterances: int = 12, frames: int = 60, pdfs: int = 8, coefficients: int = 6, *, noise: float = 1.0,
              seed: int = 0, unaligned: tuple[int, ...] = ()) -> tuple[StandInStore, Alignment, Cmvn]:
    """States that last a few frames, each with its own mean; the same `pdfs` and coefficients: the same means."""
    means = np.random.default_rng(99).normal(size=(pdfs, coefficients)) * 1.5
    random = np.random.default_rng(seed)
    spoken, labels = [], []
    for index in range(utterances):
        length = frames + index % 5
        states = np.repeat(random.integers(0, pdfs, length), 4)[:length]
        spoken.append(means[states] + noise * random.normal(size=(length, coefficients)))
        labels.append(np.full(length, -1) if index in unaligned else states)
    store = StandInStore(spoken)
    pdf_ids = np.concatenate(labels).astype(np.int32)
    aligned = np.array([index not in unaligned for index in range(utterances)])
    alignment = Alignment(pdf_ids, np.zeros(len(pdf_ids), np.int16), np.zeros(len(pdf_ids), np.int8), aligned, pdfs)
    return store, alignment, Cmvn("global", store.total_stats)
