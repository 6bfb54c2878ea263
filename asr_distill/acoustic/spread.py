"""One store's alignment for all that is trained on: its views, and audio that nobody has transcribed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from asr_distill.features.views import JoinedStores

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore
    from asr_distill.hmm.align import Alignment


def spread_alignment(alignment: Alignment, store: FrameStore) -> Alignment:
    """The alignment of the first of joined stores, for all their frames: views of an utterance have its senones, and
    audio that is joined to it has none (-1, not aligned).

    It is returned as it is where it has as many frames as `store`, or is not of a store that this one begins with.
    """
    utterances, frames = len(alignment.aligned), len(alignment.pdf_ids)
    if frames == store.num_frames or not isinstance(store, JoinedStores) or \
            utterances >= len(store.origins) or frames != store.offsets[utterances]:
        return alignment
    known, spoken = store.rows < frames, store.origins < utterances

    def spread(values: np.ndarray) -> np.ndarray:
        return np.where(known, values[np.where(known, store.rows, 0)], values.dtype.type(-1))

    return replace(alignment, pdf_ids=spread(alignment.pdf_ids), phone_ids=spread(alignment.phone_ids),
                   states=spread(alignment.states),
                   aligned=spoken & np.asarray(alignment.aligned, bool)[np.where(spoken, store.origins, 0)])


def hidden_alignment(alignment: Alignment, store: FrameStore, share: float) -> Alignment:
    """The alignment as if this share of the store's utterances (0 to 1) had never been transcribed.

    Which ones is drawn from a digest of each text: copies of an utterance (speed, noise) and others of its words go
    together, and a larger share hides what a smaller one does.
    """
    if not share:
        return alignment
    hidden = np.array([_drawn(utterance.words) < share for utterance in store.utterances], bool)
    frames = np.repeat(hidden, np.diff(store.offsets))

    def without(values: np.ndarray) -> np.ndarray:
        return np.where(frames, values.dtype.type(-1), values)

    return replace(alignment, pdf_ids=without(alignment.pdf_ids), phone_ids=without(alignment.phone_ids),
                   states=without(alignment.states), aligned=np.asarray(alignment.aligned, bool) & ~hidden)


def _drawn(words: tuple[str, ...]) -> float:
    """Evenly from [0, 1)."""
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:6], "big") / 2**48
