"""Forced alignment of many utterances with any emission model: graphs in batches through Viterbi."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from asr_distill.config import NO_RESULT
from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.threads import map_threads
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import Path, ViterbiBatch, batches
from asr_distill.lang.lang import SILENCE_PHONE

# States x frames whose back-pointers (a byte each) a batch may hold: enough states to fill the device at each frame,
# few enough that on a CPU they stay in cache.
_CELLS = {"cpu": 32_000_000, "cuda": 2_000_000_000}


@dataclass(frozen=True)
class AlignConfig:
    """Scales of Kaldi's gmm-align-compiled (there: acoustic-scale, self-loop-scale, gmm-boost-silence)."""

    acoustic_scale: float = 0.1  # against the log-probabilities of pronunciations and silence
    self_loop_scale: float = 0.1  # of the HMM's transition log-probabilities
    silence_boost: float = 1.0  # factor on the silence phone's likelihoods
    batch_cells: int = field(default=0, metadata=NO_RESULT)  # states x frames searched at once; 0: by device

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
        self._cells = config.batch_cells or _CELLS.get(device.type, _CELLS["cuda"])

    def align(self, graphs: Sequence[UtteranceGraph], frames: Sequence[int],
              score: Callable[[int], torch.Tensor]) -> Iterator[tuple[int, Path | None]]:
        """Yield (index, best path) in batches of like length; None where the frames are too few.

        `score(index)` gives an utterance's log-likelihoods (frames, pdfs), unscaled; on a CPU several threads call it.
        """
        def search(batch: list[int]) -> list[Path | None]:
            chosen = [graphs[i] for i in batch]
            viterbi = ViterbiBatch(chosen, self._transitions, self_loop_scale=self.config.self_loop_scale,
                                   device=self.device)
            scores = [score(i).to(self.device, torch.float32) for i in batch]
            return viterbi.search(scores, acoustic_scale=self.config.acoustic_scale, bonus=self._bonus(chosen))

        todo = list(batches(frames, [len(graph) for graph in graphs], self._cells))
        for batch, paths in zip(todo, map_threads(search, todo, self.device), strict=True):
            yield from zip(batch, paths, strict=True)

    def _bonus(self, graphs: Sequence[UtteranceGraph]) -> dict[int, float]:
        if self.config.silence_boost == 1.0:
            return {}
        boost = math.log(self.config.silence_boost)
        return {int(pdf): boost for graph in graphs for pdf in set(graph.pdf[graph.phone == self._silence].tolist())}
