"""A small corpus for the senone tree's tests, and Kaldi's view of its frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel, MonophoneTree
from asr_distill.kaldi import kaldi_hmm_gmm

PHONES = ("SIL", "SPN", "AH0", "AH1", "B", "IY0", "IY1", "K", "S")
STATES = (2, 2, 3, 3, 3, 3, 3, 3, 3)
SILENCE = frozenset({1, 2})
FLOOR = 0.01
Context = tuple[int, int, int, int]


def toy_hmm() -> HmmModel:
    return HmmModel(PHONES, STATES, MonophoneTree(STATES))


def spoken(instances: Iterable[Iterable[tuple[int, tuple[int, ...]]]]) -> tuple[Alignment, np.ndarray, list[Context]]:
    """Utterances of (phone, frames in each state): alignment, offsets, and every frame's context by a plain loop."""
    phones: list[int] = []
    states: list[int] = []
    contexts: list[Context] = []
    offsets = [0]
    for utterance in instances:
        utterance = list(utterance)
        for at, (phone, durations) in enumerate(utterance):
            left = utterance[at - 1][0] if at > 0 else 0
            right = utterance[at + 1][0] if at + 1 < len(utterance) else 0
            if phone in SILENCE:
                left = right = 0
            for state, duration in enumerate(durations):
                for _ in range(duration):
                    phones.append(phone)
                    states.append(state)
                    contexts.append((left, phone, right, state))
        offsets.append(len(phones))
    alignment = Alignment(np.zeros(len(phones), np.int32), np.array(phones, np.int16), np.array(states, np.int8),
                          np.ones(len(offsets) - 1, bool), 1)
    return alignment, np.array(offsets), contexts


def toy_corpus(utterances: int = 12, seed: int = 0) -> tuple[torch.Tensor, Alignment, np.ndarray, list[Context]]:
    """Random phones (SPN is never said, the same phone may follow itself); sound depends on the neighbours."""
    generator = np.random.default_rng(seed)
    said = np.array([1, 3, 4, 5, 6, 7, 8, 9])
    alignment, offsets, contexts = spoken(
        [(phone, tuple(generator.integers(1, 4, STATES[phone - 1]).tolist())) for phone in
         generator.choice(said, generator.integers(4, 12)).tolist()] for _ in range(utterances))
    of_phone = generator.normal(size=(3, len(PHONES) + 1, 4)) * np.array([0.7, 2.0, 0.7])[:, None, None]
    means = np.array([of_phone[0, left] + of_phone[1, phone] + of_phone[2, right] + state
                      for left, phone, right, state in contexts])
    return torch.from_numpy(means + generator.normal(size=means.shape)).float(), alignment, offsets, contexts


def kaldi_likelihood(frames: np.ndarray, floor: float = FLOOR) -> float:
    """Log-likelihood of frames (n, D) under their own Gaussian, by Kaldi's GaussClusterable."""
    gaussian = kaldi_hmm_gmm.GaussClusterable(frames.shape[1], floor)
    for frame in frames.astype(np.float64):
        gaussian.add_stats(frame, 1.0)
    return gaussian.objf()
