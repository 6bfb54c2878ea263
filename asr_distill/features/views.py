"""Several frame stores as one: more audio beside that of the first, or the same audio in other conditions."""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import CmvnStats, UtteranceFeatures
from asr_distill.features.store import FrameStore, Utterance


class JoinedStores(FrameStore):
    """A FrameStore of other material each, one after the other; a speaker who is in two has the statistics of both.

    Nothing is copied: frames are read from the stores, so there is no array `frames` of all, and no `adapted` (an
    utterance's features hold what its store does). Raises UserError where an utterance is in two of the stores or
    the numbers of coefficients differ.
    """

    rows: np.ndarray  # int64 (num_frames,): of each frame, the row where its targets are
    origins: np.ndarray  # int64 (utterances,): of each utterance, the one that it is a view of, or itself
    head: int  # utterances of the first store: held-out ones are chosen among them, whatever is joined to it

    def __init__(self, stores: Sequence[FrameStore], suffixes: Sequence[str] = ()):
        suffixes = suffixes or [""] * len(stores)
        first = stores[0]
        self.stores = tuple(stores)
        self.directory, self.config, self.adapted = first.directory, first.config, None
        self.num_coefficients = first.num_coefficients
        for store in stores[1:]:
            if store.num_coefficients != first.num_coefficients:
                raise UserError(f"{store.directory}: {store.num_coefficients} coefficients a frame, but "
                                f"{first.directory} has {first.num_coefficients}: compute both with the same settings")
        self.num_frames = sum(store.num_frames for store in stores)
        lengths = np.concatenate([np.diff(store.offsets) for store in stores])
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.utterances = [_renamed(utterance, suffix) for store, suffix in zip(stores, suffixes, strict=True)
                           for utterance in store.utterances]
        self._index = {utterance.id: i for i, utterance in enumerate(self.utterances)}
        if len(self._index) < len(self.utterances):
            twice = next(u.id for i, u in enumerate(self.utterances) if self._index[u.id] != i)
            raise UserError(f"{stores[-1].directory}: utterance {twice} is in another store too; leave one out")
        self.speaker_stats: dict[str, CmvnStats] = {}
        for store, suffix in zip(stores, suffixes, strict=True):
            for speaker, stats in store.speaker_stats.items():
                known = self.speaker_stats.get(speaker + suffix)
                self.speaker_stats[speaker + suffix] = known + stats if known else stats
        self.total_stats = functools.reduce(operator.add, (store.total_stats for store in stores))
        self._ends = np.cumsum([len(store.utterances) for store in stores])
        self.head = first.head if isinstance(first, JoinedStores) else len(first.utterances)
        self.rows = np.arange(self.num_frames)
        self.origins = np.arange(len(self.utterances))

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process: its stores by path."""
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]

    def features(self, index: int, device: torch.device | str) -> UtteranceFeatures:
        part = int(np.searchsorted(self._ends, index, "right"))
        store = self.stores[part]
        speaker = self.utterances[index].speaker
        found = store.features(index - int(self._ends[part]) + len(store.utterances), device)
        return dataclasses.replace(found, speaker=self.speaker_stats[speaker], speaker_id=speaker)


class StoreViews(JoinedStores):
    """The same utterances several times: as the teachers hear them, and (`compute_store(degrade=...)`) degraded.

    stores: row for row alike. suffixes: to tell utterances and speakers of the views apart, as `ID~1`; the first view
    keeps its names. `rows` leads from every frame to its row in the first store: there its soft targets and senones
    are. Raises UserError where a store holds other utterances or frames than the first.
    """

    def __init__(self, stores: Sequence[FrameStore], suffixes: Sequence[str] = ()):
        first = stores[0]
        for store in stores[1:]:
            if not np.array_equal(store.offsets, first.offsets) or \
                    [utterance.id for utterance in store.utterances] != [u.id for u in first.utterances]:
                raise UserError(f"{store.directory}: holds other utterances or frames than {first.directory}, so it is "
                                "no view of it: compute both of the same cuts at the same speeds")
        super().__init__(stores, suffixes or ["", *(f"~{view}" for view in range(1, len(stores)))])
        self.rows = np.tile(np.arange(first.num_frames), len(stores))
        self.origins = np.tile(np.arange(len(first.utterances)), len(stores))


def _renamed(utterance: Utterance, suffix: str) -> Utterance:
    if not suffix:
        return utterance
    return dataclasses.replace(utterance, id=utterance.id + suffix, speaker=utterance.speaker + suffix)
