"""HMM transition probabilities: looked up for many states at once, and re-estimated from an alignment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asr_distill.hmm.model import DEFAULT_SELF_LOOP, HmmModel

MIN_COUNT = 5.0  # Kaldi's MleTransitionUpdateConfig
FLOOR = 0.01


class TransitionTable:
    """Self-loop probabilities by (phone, state, pdf), for arrays of states."""

    def __init__(self, hmm: HmmModel):
        self._states, self._pdfs = max(hmm.states), hmm.num_pdfs
        keys = np.array(sorted(hmm.self_loops), np.int64).reshape(-1, 3)
        self._keys = self.code(keys[:, 0], keys[:, 1], keys[:, 2])
        self._loops = np.array([hmm.self_loops[key] for key in sorted(hmm.self_loops)], np.float64)

    def code(self, phone: np.ndarray, state: np.ndarray, pdf: np.ndarray) -> np.ndarray:
        """One integer for each (phone, state, pdf)."""
        return (phone.astype(np.int64) * self._states + state) * self._pdfs + pdf

    def key(self, code: int) -> tuple[int, int, int]:
        """(phone, state, pdf) of a code."""
        code, pdf = divmod(code, self._pdfs)
        return *divmod(code, self._states), pdf

    def logs(self, phone: np.ndarray, state: np.ndarray, pdf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural logs of (self-loop, forward), float32 (S,) each; unseen states have the topology's default."""
        stay = np.full(len(phone), DEFAULT_SELF_LOOP)
        if len(self._keys):
            code = self.code(phone, state, pdf)
            at = np.minimum(np.searchsorted(self._keys, code), len(self._keys) - 1)
            stay = np.where(self._keys[at] == code, self._loops[at], stay)
        return np.log(stay).astype(np.float32), np.log1p(-stay).astype(np.float32)


def estimate_transitions(hmm: HmmModel, phones: np.ndarray, states: np.ndarray, pdfs: np.ndarray,
                         stays: np.ndarray) -> HmmModel:
    """Maximum likelihood self-loops (Kaldi's gmm-est): the share of a state's frames that stay in it.

    Arrays have one row per aligned frame; `stays` is true where the next frame is in the same HMM state of the
    same phone instance. States seen fewer than MIN_COUNT times keep their probability; floor FLOOR both ways.
    """
    table = TransitionTable(hmm)
    codes, inverse = np.unique(table.code(phones, states, pdfs), return_inverse=True)
    total = np.bincount(inverse, minlength=len(codes))
    stayed = np.bincount(inverse, weights=stays, minlength=len(codes))
    loops = dict(hmm.self_loops)
    for code, count, stay in zip(codes.tolist(), total, stayed, strict=True):
        if count >= MIN_COUNT:
            loops[table.key(code)] = float(np.clip(stay / count, FLOOR, 1 - FLOOR))
    return replace(hmm, self_loops=loops)
