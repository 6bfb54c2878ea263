"""Statistics of every phone state in its context: what the senone tree is built from (Kaldi's acc-tree-stats)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.align import Alignment
from asr_distill.hmm.model import HmmModel, base_phone
from asr_distill.lang.lang import SILENCE_PHONE, SPOKEN_NOISE_PHONE

CONTEXT_INDEPENDENT = (SILENCE_PHONE, SPOKEN_NOISE_PHONE)  # base phones whose sound does not depend on the neighbours
_BLOCK = 1 << 16  # frames that are in float64 at once


@dataclass(frozen=True)
class TreeStats:
    """Sufficient statistics of one diagonal Gaussian per (left, phone, right, state), in ascending order."""

    contexts: np.ndarray  # int32 (N, 4): left, phone, right (ids, 0 = no neighbour), state
    counts: np.ndarray  # float64 (N,): frames
    sums: np.ndarray  # float64 (N, D)
    squares: np.ndarray  # float64 (N, D)

    @property
    def packed(self) -> np.ndarray:
        """float64 (N, 1 + 2 D): count, sums, squares side by side, so that one sum pools all."""
        return np.concatenate([self.counts[:, None], self.sums, self.squares], 1)

    def __add__(self, other: TreeStats) -> TreeStats:
        contexts, rows = np.unique(np.concatenate([self.contexts, other.contexts]), axis=0, return_inverse=True)
        packed = np.zeros((len(contexts), 1 + 2 * self.sums.shape[1]))
        rows = rows.ravel()
        packed[rows[: len(self.counts)]] += self.packed  # within one operand every context occurs once
        packed[rows[len(self.counts) :]] += other.packed
        return _unpack(contexts, packed)


def gaussian_log_likelihood(packed: np.ndarray, variance_floor: float) -> np.ndarray:
    """Log-likelihood of the frames behind statistics (..., 1 + 2 D) under their own diagonal Gaussian: (...).

    Variances are floored as in Kaldi's GaussClusterable; no frames have log-likelihood 0.
    """
    dimension = (packed.shape[-1] - 1) // 2
    count = packed[..., 0]
    divisor = np.maximum(count, 1e-10)[..., None]
    mean = packed[..., 1 : 1 + dimension] / divisor
    variance = packed[..., 1 + dimension :] / divisor - mean * mean
    floored = np.maximum(variance, variance_floor)
    return -0.5 * count * (dimension * math.log(2 * math.pi) + (np.log(floored) + variance / floored).sum(-1))


def context_independent_phones(phones: tuple[str, ...],
                               names: Collection[str] = CONTEXT_INDEPENDENT) -> frozenset[int]:
    """Ids of the phones with these base names, in all positions (SIL, SPN_B, SPN_S ...)."""
    return frozenset(index for index, phone in enumerate(phones, 1) if base_phone(phone) in names)


def frame_contexts(alignment: Alignment, offsets: np.ndarray,
                   context_independent: Collection[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Context of every frame: distinct contexts int32 (N, 4), ascending, and int64 (frames,) rows of it, or -1.

    A new phone begins where an utterance begins, the phone changes or the state falls. (Of phones with a single
    state, two equal ones in a row count as one.) Phones of `context_independent` have left = right = 0.
    """
    rows = np.flatnonzero(alignment.phone_ids >= 0)
    phone, state = alignment.phone_ids[rows].astype(np.int64), alignment.states[rows].astype(np.int64)
    utterance = np.searchsorted(np.asarray(offsets), rows, side="right")
    new_utterance = np.diff(utterance, prepend=-1) != 0
    begins = np.flatnonzero(new_utterance | (np.diff(phone, prepend=-1) != 0) | (np.diff(state, prepend=-1) < 0))
    phones = phone[begins]  # one each phone instance from here on
    joined = ~new_utterance[begins][1:]  # instance i + 1 follows instance i in its utterance
    left, right = np.zeros_like(phones), np.zeros_like(phones)
    left[1:], right[:-1] = phones[:-1] * joined, phones[1:] * joined
    independent = np.isin(phones, list(context_independent))
    left[independent] = right[independent] = 0
    triphones, instance = np.unique(np.stack([left, phones, right], 1), axis=0, return_inverse=True)
    states = int(state.max(initial=0)) + 1
    of_frame = np.repeat(instance.ravel(), np.diff(begins, append=len(rows))) * states + state
    codes, of_frame = np.unique(of_frame, return_inverse=True)
    contexts = np.concatenate([triphones[codes // states], codes[:, None] % states], 1).astype(np.int32)
    index = np.full(len(alignment.phone_ids), -1, np.int64)
    index[rows] = of_frame
    return contexts, index


def accumulate_tree_stats(features: torch.Tensor, alignment: Alignment, offsets: np.ndarray, hmm: HmmModel,
                          context_independent: Collection[int]) -> TreeStats:
    """Pool the frames of every context. features: (frames, D), a row per row of the alignment, on any device.

    offsets: (utterances + 1,) first row of each utterance. Frames without an alignment are left out.
    Raises ValueError where the alignment does not fit the features or the model.
    """
    if len(features) != len(alignment.phone_ids):
        raise ValueError(f"{len(features)} rows of features but {len(alignment.phone_ids)} of alignment")
    contexts, index = frame_contexts(alignment, offsets, context_independent)
    if len(contexts) and (contexts[:, 1].max() > len(hmm.phones)
                          or (contexts[:, 3] >= np.array(hmm.states)[contexts[:, 1] - 1]).any()):
        raise ValueError("the alignment has phones or states that the HMM lacks")
    sums = torch.zeros(len(contexts) + 1, features.shape[1], dtype=torch.float64)  # the last row: not aligned
    squares = torch.zeros_like(sums)
    target = torch.from_numpy(np.where(index < 0, len(contexts), index))
    for begin in range(0, len(features), _BLOCK):
        block = features[begin : begin + _BLOCK].cpu().double()
        sums.index_add_(0, target[begin : begin + _BLOCK], block)
        squares.index_add_(0, target[begin : begin + _BLOCK], block.square_())
    counts = np.bincount(index[index >= 0], minlength=len(contexts)).astype(np.float64)
    return TreeStats(contexts, counts, sums[:-1].numpy(), squares[:-1].numpy())


def convert_alignment(alignment: Alignment, offsets: np.ndarray, hmm: HmmModel) -> Alignment:
    """The same phones and states under the tree of `hmm` (Kaldi's convert-ali, for an unchanged topology)."""
    contexts, index = frame_contexts(alignment, offsets)
    pdfs = np.array([*(hmm.tree.pdf(*context) for context in contexts.tolist()), -1], np.int32)
    return dataclasses.replace(alignment, pdf_ids=pdfs[index], num_pdfs=hmm.num_pdfs)


def _unpack(contexts: np.ndarray, packed: np.ndarray) -> TreeStats:
    dimension = (packed.shape[1] - 1) // 2
    return TreeStats(contexts, packed[:, 0], packed[:, 1 : 1 + dimension], packed[:, 1 + dimension :])
