"""Small languages, trees and stores for the HMM room's tests, and real Kaldi's view of our graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from asr_distill.features.cmvn import CmvnStats, UtteranceFeatures
from asr_distill.features.store import Utterance
from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.kaldi import kaldi_decoder, kaldifst
from asr_distill.lang.lang import UNKNOWN_WORD
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.silence import SilenceModel

ENTRIES = {
    UNKNOWN_WORD: (Pronunciation(("SPN",)),),
    "A": (Pronunciation(("AA",)), Pronunciation(("B", "AA"), 0.25)),
    "CAB": (Pronunciation(("K", "AA", "B")),),
    "BACK": (Pronunciation(("B", "AA", "K"), 0.5), Pronunciation(("B", "K"), 0.125), Pronunciation(("B", "AA"))),
}


@dataclass(frozen=True)
class ToyLang:
    """What the HMM room reads of a Lang."""

    lexicon: Lexicon
    phones: tuple[str, ...]
    silence_probability: float = 0.5

    @property
    def silence(self) -> SilenceModel:
        return SilenceModel.constant(self.silence_probability)

    def word_or_unknown(self, word: str) -> str:
        return word if word in self.lexicon else UNKNOWN_WORD


def toy_lang(entries: Mapping[str, tuple[Pronunciation, ...]] = ENTRIES, silence: float = 0.5) -> Any:
    lexicon = Lexicon(entries)
    others = sorted({p for each in entries.values() for one in each for p in one.phones} - {"SPN"})
    return ToyLang(lexicon, ("SIL", "SPN", *others), silence)


class TriphoneToy:
    """Every (left, phone, right, state) is a pdf of its own, numbered as it is asked for."""

    kind: ClassVar[str] = "toy"
    context_width = 3

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int, int, int], int] = {}

    @property
    def num_pdfs(self) -> int:
        return max(len(self.seen), 1)

    def pdf(self, left: int, phone: int, right: int, state: int) -> int:
        return self.seen.setdefault((left, phone, right, state), len(self.seen))

    def to_dict(self) -> dict[str, Any]:
        return {}


class ToyStore:
    """A frame store in memory (raw frames of each utterance in float16, one speaker)."""

    def __init__(self, utterances: Sequence[tuple[str, Sequence[str], np.ndarray]]):
        self.directory = Path("toy")
        self.utterances = [Utterance(name, "one", tuple(words), len(frames) / 100)
                           for name, words, frames in utterances]
        self.offsets = np.cumsum([0, *(len(frames) for _, _, frames in utterances)])
        self.frames = np.concatenate([frames for _, _, frames in utterances]).astype(np.float16)
        self.num_frames = len(self.frames)
        self.total_stats = CmvnStats.of(self.frames)

    def features(self, index: int, device: torch.device) -> UtteranceFeatures:
        rows = self.frames[self.offsets[index] : self.offsets[index + 1]].astype(np.float32)
        return UtteranceFeatures(torch.from_numpy(rows).to(device), self.total_stats)


def all_paths(graph: UtteranceGraph) -> list[tuple[tuple[int, ...], float]]:
    """Every way through the graph without self-loops, and its log-weight, by walking the predecessor lists."""
    states, weights = graph.predecessors()
    reach: list[list[tuple[tuple[int, ...], float]]] = []
    for s in range(len(graph)):
        here = [((s,), float(graph.initial[s]))] if np.isfinite(graph.initial[s]) else []
        here += [((*path, s), total + float(weight)) for p, weight in zip(states[s], weights[s], strict=True)
                 if np.isfinite(weight) for path, total in reach[p]]
        reach.append(here)
    return [(path, total + float(graph.final[s])) for s, found in enumerate(reach)
            if np.isfinite(graph.final[s]) for path, total in found]


def kaldi_graph(graph: UtteranceGraph, table: TransitionTable, self_loop_scale: float) -> kaldifst.StdVectorFst:
    """The same states and weights as an FST: input label = pdf + 1."""
    loop, forward = (log * self_loop_scale for log in table.logs(graph.phone, graph.state, graph.pdf))
    predecessors, weights = graph.predecessors()
    fst = kaldifst.StdVectorFst()
    start = fst.add_state()
    fst.start = start
    nodes = [fst.add_state() for _ in range(len(graph))]
    for s, node in enumerate(nodes):
        label = int(graph.pdf[s]) + 1
        fst.add_arc(node, kaldifst.StdArc(label, 0, float(-loop[s]), node))
        if np.isfinite(graph.initial[s]):
            fst.add_arc(start, kaldifst.StdArc(label, 0, float(-graph.initial[s]), node))
        for p, weight in zip(predecessors[s], weights[s], strict=True):
            if np.isfinite(weight):
                fst.add_arc(nodes[p], kaldifst.StdArc(label, 0, float(-weight - forward[p]), node))
        if np.isfinite(graph.final[s]):
            fst.set_final(node, float(-graph.final[s] - forward[s]))
    return fst


def kaldi_best_score(fst: kaldifst.StdVectorFst, scores: np.ndarray, beam: float) -> float | None:
    """Best path's log-weight by Kaldi's FasterDecoder; `scores` (frames, pdfs) already scaled."""
    options = kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=1 << 30)
    decoder = kaldi_decoder.FasterDecoder(fst, options)
    decoder.decode(kaldi_decoder.DecodableCtc(np.ascontiguousarray(scores, np.float32)))
    if not decoder.reached_final():
        return None
    ok, best = decoder.get_best_path()
    assert ok
    ok, _, _, weight = kaldifst.get_linear_symbol_sequence(best)
    assert ok
    return -(weight.value1 + weight.value2)
