"""Forced alignment of many utterances with any emission model: graphs in batches through Viterbi."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from asr_distill.config import LATER, NO_RESULT
from asr_distill.emission import Scorer
from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.threads import map_threads
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import ViterbiBatch, batches
from asr_distill.hmm.viterbi_cpu import best_path
from asr_distill.hmm.viterbi_k2 import CELLS, K2Viterbi
from asr_distill.k2fsa import k2_module
from asr_distill.lang.lang import SILENCE_PHONE

_CELLS = 2_000_000_000  # states x frames whose back-pointers (a byte each) a GPU's batch may hold


@dataclass(frozen=True)
class Path:
    """The best path of one utterance."""

    states: np.ndarray  # int32 (frames,): states of the utterance's graph
    score: float  # log-weight of the path, acoustics scaled
    acoustic: float  # sum of the path's unscaled log-likelihoods


@dataclass(frozen=True)
class AlignConfig:
    """Scales of Kaldi's gmm-align-compiled (there: acoustic-scale, self-loop-scale, gmm-boost-silence)."""

    acoustic_scale: float = 0.1  # against the log-probabilities of pronunciations and silence
    self_loop_scale: float = 0.1  # of the HMM's transition log-probabilities
    silence_boost: float = 1.0  # factor on the silence phone's likelihoods
    beam: float = 100.0  # of the search on a CPU (a GPU searches without): ten times Kaldi's, so that nothing is lost
    batch_cells: int = field(default=0, metadata=NO_RESULT)  # states x frames that a GPU searches at once; 0: by itself
    # auto: compiled loops on a CPU, PyTorch on a GPU; k2: its exact dense intersection, on either
    backend: Literal["auto", "k2"] = field(default="auto", metadata=LATER)

    def __post_init__(self) -> None:
        if min(self.acoustic_scale, self.silence_boost, self.beam) <= 0 or self.self_loop_scale < 0:
            raise ValueError("acoustic_scale, silence_boost and beam must be positive, self_loop_scale not negative")
        if self.batch_cells < 0:
            raise ValueError("batch_cells must not be negative")


class Aligner:
    """Aligns utterances under one HMM and one setting. Raises UserError where that is k2 and k2 is missing."""

    def __init__(self, hmm: HmmModel, config: AlignConfig, device: torch.device):
        if config.backend == "k2":
            k2_module()
        self.config, self.device = config, device
        self._transitions = TransitionTable(hmm)
        self._silence = hmm.phones.index(SILENCE_PHONE) + 1

    def align(self, graphs: Sequence[UtteranceGraph], frames: Sequence[int],
              scorer: Callable[[int], Scorer]) -> Iterator[tuple[int, Path | None]]:
        """Yield (index, best path); None where the frames are too few.

        `scorer(index)` gives an utterance's log-likelihoods; on a CPU several threads call it.
        """
        with_k2 = self.config.backend == "k2"
        alone = self.device.type == "cpu" and not with_k2
        if alone:  # compiled loops: an utterance a thread
            todo: list[list[int]] = [[i] for i in sorted(range(len(frames)), key=lambda i: -frames[i])]
        else:
            cells = self.config.batch_cells or (CELLS if with_k2 else _CELLS)
            todo = list(batches(frames, [len(graph) for graph in graphs], cells))

        def search(batch: list[int]) -> list[Path | None]:
            if alone:
                return [self._alone(graphs[i], frames[i], scorer(i)) for i in batch]
            return self._together([graphs[i] for i in batch], [frames[i] for i in batch], [scorer(i) for i in batch])

        found = map(search, todo) if with_k2 else map_threads(search, todo, self.device)
        for batch, paths in zip(todo, found, strict=True):
            yield from zip(batch, paths, strict=True)

    def _alone(self, graph: UtteranceGraph, frames: int, scorer: Scorer) -> Path | None:
        """On a CPU: what the beam leaves."""
        scaled = self._scaled(graph, scorer)
        found = best_path(graph, self._transitions, frames, lambda rows, columns: scaled(rows, columns).numpy(),
                          self_loop_scale=self.config.self_loop_scale, beam=self.config.beam)
        return None if found is None else self._path(graph, found.states, found.score, found.acoustic)

    @torch.no_grad()
    def _together(self, graphs: list[UtteranceGraph], frames: list[int], scorers: list[Scorer]) -> list[Path | None]:
        """On a GPU, or by k2: exact."""
        scores = [self._scaled(graph, scorer)(slice(0, length), np.arange(len(graph.own_pdfs[0])))
                  for graph, length, scorer in zip(graphs, frames, scorers, strict=True)]
        form = K2Viterbi if self.config.backend == "k2" else ViterbiBatch
        found = form(graphs, self._transitions, self_loop_scale=self.config.self_loop_scale,
                     device=self.device).search(scores)
        paths: list[Path | None] = []
        for graph, mine, best in zip(graphs, scores, found, strict=True):
            if best is None:
                paths.append(None)
                continue
            columns = torch.as_tensor(graph.own_pdfs[1][best[0]], device=self.device).long()
            paths.append(self._path(graph, *best, mine.gather(1, columns.unsqueeze(1)).double().sum().item()))
        return paths

    def _path(self, graph: UtteranceGraph, states: np.ndarray, score: float, scaled: float) -> Path:
        boosted = int((graph.phone[states] == self._silence).sum()) * math.log(self.config.silence_boost)
        return Path(states, score, scaled / self.config.acoustic_scale - boosted)

    def _scaled(self, graph: UtteranceGraph, scorer: Scorer) -> Scorer:
        """With the silence boost and the acoustic scale; asked for columns of the graph's own pdfs."""
        pdfs, places = graph.own_pdfs
        boosts = torch.zeros(len(pdfs), device=self.device)
        boosts[np.unique(places[graph.phone == self._silence])] = math.log(self.config.silence_boost)

        def score(rows: slice, columns: np.ndarray) -> torch.Tensor:
            scores = scorer(rows, pdfs[columns]).to(self.device, torch.float32)
            return scores.add_(boosts[torch.as_tensor(columns, device=self.device)]).mul_(self.config.acoustic_scale)

        return score
