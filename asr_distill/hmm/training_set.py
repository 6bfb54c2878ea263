"""What GMM training looks at: some utterances of a frame store, their alignment graphs, and who speaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment, report_failed
from asr_distill.hmm.aligner import AlignConfig, Aligner
from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.graph import GraphCompiler, UtteranceGraph
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.transitions import estimate_transitions
from asr_distill.lang.lang import Lang


@dataclass
class TrainingSet:
    """Utterances laid end to end: F frames in all. Alignments and features of the set have a row a frame."""

    store: FrameStore
    indices: list[int]  # in the store
    graphs: list[UtteranceGraph]
    lengths: list[int]
    failed: list[str]  # ids left out: too few frames for their words

    def __post_init__(self) -> None:
        self.begins = np.concatenate([[0], np.cumsum(self.lengths)])  # (utterances + 1,): first frame of each

    @property
    def num_frames(self) -> int:
        return int(self.begins[-1])

    def features(self, frontend: Callable[[UtteranceFeatures], torch.Tensor], dimension: int,
                 device: torch.device) -> torch.Tensor:
        """float32 (F, dimension) on the device."""
        out = torch.empty(self.num_frames, dimension, device=device)
        for place, index in enumerate(self.indices):
            out[self.rows(place)] = frontend(self.store.features(index, device))
        return out

    def rows(self, place: int) -> slice:
        """Frames of the set's utterance number `place`."""
        return slice(int(self.begins[place]), int(self.begins[place + 1]))

    def speakers(self) -> dict[str, np.ndarray]:
        """int64 frames of every speaker, in the order in which they come."""
        places: dict[str, list[int]] = {}
        for place, index in enumerate(self.indices):
            places.setdefault(self.store.utterances[index].speaker, []).append(place)
        return {speaker: np.concatenate([np.arange(self.begins[p], self.begins[p + 1]) for p in own])
                for speaker, own in places.items()}

    def labels(self, states: Sequence[np.ndarray], num_pdfs: int) -> Alignment:
        """The alignment that goes through these graph states, one array (frames,) an utterance."""
        pdf, phone, state = (
            np.concatenate([getattr(graph, name)[path] for graph, path in zip(self.graphs, states, strict=True)])
            for name in ("pdf", "phone", "state"))
        return Alignment(pdf, phone, state, np.ones(len(self.indices), bool), num_pdfs)

    def align(self, mixtures: Mixtures, features: torch.Tensor, hmm: HmmModel, config: AlignConfig,
              device: torch.device) -> Alignment:
        """Viterbi alignment of all utterances. `features`: (F, D)."""
        states: list[np.ndarray] = [np.empty(0, np.int32)] * len(self.indices)
        for place, path in Aligner(hmm, config, device).align(
                self.graphs, self.lengths, lambda place: mixtures.scorer(features[self.rows(place)])):
            if path is not None:  # always: `select` left out what does not fit
                states[place] = path.states
        return self.labels(states, hmm.num_pdfs)

    def transitions(self, hmm: HmmModel, labels: Alignment) -> HmmModel:
        """`hmm` with transition probabilities counted on an alignment of the set.

        A frame in the same state of the same phone as the next one has taken the self-loop (two equal phones of a
        single state in a row cannot be told apart).
        """
        code = labels.phone_ids.astype(np.int32) * 128 + labels.states
        stays = np.append(code[1:] == code[:-1], False)
        stays[self.begins[1:] - 1] = False
        return estimate_transitions(hmm, labels.phone_ids, labels.states, labels.pdf_ids, stays)

    def digest(self, settings: Any, lang: Lang, start: Alignment) -> str:
        """Stands for all that training on the set depends on: settings, utterances, pronunciations, features, and the
        alignment that it begins with."""
        store = self.store
        digest = hashlib.sha256(json.dumps([settings, lang.phones, [store.utterances[i].id for i in self.indices],
                                            self.lengths], default=str).encode())
        for pdfs in (start.pdf_ids, *(graph.pdf for graph in self.graphs)):
            digest.update(pdfs.tobytes())
        for index in self.indices:
            digest.update(store.frames[store.offsets[index] : store.offsets[index + 1]].tobytes())
        return digest.hexdigest()


def select(store: FrameStore, compiler: GraphCompiler, candidates: Sequence[int], label: str) -> TrainingSet:
    """The candidates (indices in the store) that have words, and frames enough for them.

    Raises UserError where there is none.
    """
    lengths = np.diff(store.offsets)
    indices, graphs, failed = [], [], []
    for index in candidates:
        if not store.utterances[index].words:
            continue
        graph = compiler.compile(store.utterances[index].words)
        if graph.shortest() <= lengths[index]:
            indices.append(index)
            graphs.append(graph)
        else:
            failed.append(store.utterances[index].id)
    if not indices and not failed:
        raise UserError(f"{label}: no utterance of {store.directory} has a transcript")
    report_failed(label, failed, len(indices) + len(failed))
    return TrainingSet(store, indices, graphs, lengths[indices].tolist(), failed)
