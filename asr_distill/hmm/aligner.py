"""Forced alignment of many utterances with any emission model: graphs in batches through Viterbi."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from asr_distill.config import NO_RESULT
from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.threads import map_threads
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import ViterbiBatch, batches
from asr_distill.hmm.viterbi_cpu import best_path
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
    batch_cells: int = field(default=0, metadata=NO_RESULT)  # states x frames that a GPU searches at once; 0: by itself

    def __post_init__(self) -> None:
        if self.acoustic_scale <= 0 or self.self_loop_scale < 0 or self.silence_boost <= 0:
            raise ValueError("acoustic_scale and silence_boost must be positive, self_loop_scale not negative")
        if self.batch_cells < 0:
            raise ValueError("batch_cells must not be negative")


class Aligner:
    """Aligns utterances under one HMM and one setting."""

    def __init__(self, hmm: HmmModel, config: AlignConfig, device: torch.device):
        self.config, self.device = config, device
        self._transitions = TransitionTable(hmm)
        self._silence = hmm.phones.index(SILENCE_PHONE) + 1

    def align(self, graphs: Sequence[UtteranceGraph], frames: Sequence[int],
              score: Callable[[int, np.ndarray], torch.Tensor]) -> Iterator[tuple[int, Path | None]]:
        """Yield (index, best path); None where the frames are too few.

        `score(index, pdfs)` gives an utterance's log-likelihoods of those pdfs (frames, len(pdfs)), unscaled, as a
        tensor of its own; on a CPU several threads call it.
        """
        if self.device.type == "cpu":  # compiled loops: an utterance a thread
            todo: list[list[int]] = [[i] for i in sorted(range(len(frames)), key=lambda i: -frames[i])]
        else:
            todo = list(batches(frames, [len(graph) for graph in graphs], self.config.batch_cells or _CELLS))

        def search(batch: list[int]) -> list[Path | None]:
            chosen = [graphs[i] for i in batch]
            scores = [self._scaled(graphs[i], score(i, graphs[i].own_pdfs[0])) for i in batch]
            if self.device.type == "cpu":
                found = [best_path(graph, self._transitions, mine.numpy(), graph.own_pdfs[1],
                                   self.config.self_loop_scale) for graph, mine in zip(chosen, scores, strict=True)]
            else:
                found = ViterbiBatch(chosen, self._transitions, self_loop_scale=self.config.self_loop_scale,
                                     device=self.device).search(scores)
            return [self._path(*each) for each in zip(chosen, scores, found, strict=True)]

        for batch, paths in zip(todo, map_threads(search, todo, self.device), strict=True):
            yield from zip(batch, paths, strict=True)

    def _path(self, graph: UtteranceGraph, scores: torch.Tensor,
              found: tuple[np.ndarray, float] | None) -> Path | None:
        if found is None:
            return None
        states, value = found
        columns = torch.as_tensor(graph.own_pdfs[1][states], device=self.device).long()
        scaled = scores.gather(1, columns.unsqueeze(1)).double().sum().item()
        boosted = int((graph.phone[states] == self._silence).sum()) * math.log(self.config.silence_boost)
        return Path(states, value, scaled / self.config.acoustic_scale - boosted)

    def _scaled(self, graph: UtteranceGraph, scores: torch.Tensor) -> torch.Tensor:
        """In place: the silence boost, and the acoustic scale."""
        scores = scores.to(self.device, torch.float32)
        if self.config.silence_boost != 1.0:
            silent = np.unique(graph.own_pdfs[1][graph.phone == self._silence])
            scores[:, torch.as_tensor(silent, device=self.device).long()] += math.log(self.config.silence_boost)
        return scores.mul_(self.config.acoustic_scale)
