"""Batches of utterances through k2's intersect_dense_pruned: one graph on one device, best paths and lattices back.

The search is that of Kaldi's lattice-faster-decoder on a graph without epsilons, all utterances of a batch in step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from asr_distill.decode.beam_search import LEAST_SCORE
from asr_distill.decode.decoder import SearchConfig, checked, read_words
from asr_distill.decode.k2.cache import load_graph
from asr_distill.decode.k2.lattices import Costs, FoundArcs, WordsFound, lattice_of_arcs, words_of
from asr_distill.decode.lattice import Lattice
from asr_distill.errors import UserError
from asr_distill.k2fsa import k2_module

ONE_BEST_BEAM = 0.5  # k2's output beam where only the best path is wanted: nearly nothing is kept beside it


class K2Found(NamedTuple):
    """What a search ends with; `lattice` where one was asked for."""

    best: WordsFound
    reached_final: bool
    lattice: Lattice | None


class K2Decoder:
    """One graph, converted (or read from its cache) and put on `device` once. For one thread.

    `graph_dir` holds HCLG.fst and words.txt. Raises UserError for a missing, damaged or too large graph, and where k2
    is missing.
    """

    def __init__(self, graph_dir: Path, device: torch.device):
        self._k2, self.device = k2_module(), device
        self.words = read_words(graph_dir / "words.txt")
        graph = load_graph(graph_dir)
        if int(graph.words.max(initial=0)) >= len(self.words):
            raise UserError(f"{graph_dir}: HCLG.fst has word id {int(graph.words.max())}, words.txt ends at "
                            f"{len(self.words) - 1}: they are of two languages; compile the graph again")
        self.arcs, self.states = len(graph.arcs), graph.states
        self.num_pdfs = int(graph.arcs[:, 2].max(initial=0))
        self._costs = Costs.of(graph)
        self._lengths = torch.from_numpy(graph.lengths).to(device)
        fsa = self._k2.create_fsa_vec([self._k2.Fsa(torch.from_numpy(graph.arcs).to(device))])
        fsa.graph_arc = torch.arange(1, self.arcs + 1, dtype=torch.int32, device=device)  # 0: no arc of the graph
        self._fsa, self._scores, self._penalty = fsa, fsa.scores.clone(), 0.0

    @property
    def bytes(self) -> int:
        """Memory of the graph on its device, and of its words and costs beside."""
        return self.arcs * (16 + 4 * 4) + self.states * 4 + sum(array.nbytes for array in self._costs)

    def search(self, matrices: Sequence[np.ndarray], config: SearchConfig, ids: Sequence[str], *,
               lattices: bool = False) -> list[K2Found | None]:
        """For unscaled log-likelihoods float32 (frames, pdfs) each; None where no path survived (or without frames).

        With `lattices` all paths within `config.lattice_beam` of the best. Raises UserError as Decoder.decode.
        """
        found: list[K2Found | None] = [None] * len(matrices)
        some = [index for index, matrix in enumerate(matrices) if len(matrix)]
        if not some:
            return found
        inputs = [np.maximum(checked(matrices[index], self.num_pdfs, ids[index])[:, :self.num_pdfs],
                             LEAST_SCORE / config.acoustic_scale) for index in some]
        self._put_penalty(config.insertion_penalty)
        with torch.no_grad():  # not inference_mode: k2 asks for the version of tensors
            lattice = self._k2.intersect_dense_pruned(
                self._fsa, self._dense(inputs, config.acoustic_scale), search_beam=config.beam,
                output_beam=config.lattice_beam if lattices else ONE_BEST_BEAM, min_active_states=config.min_active,
                max_active_states=config.max_active, frame_idx_name="frame", allow_partial=True)
            paths = list(_arcs_of(self._k2.shortest_path(lattice, use_double_scores=True)))
            whole = list(_arcs_of(lattice)) if lattices else [None] * len(some)
        for index, matrix, path, arcs in zip(some, inputs, paths, whole, strict=True):
            if len(path.labels):
                around = self._costs, matrix, config.insertion_penalty
                found[index] = K2Found(words_of(path, *around), path.reached_final,
                                       None if arcs is None else lattice_of_arcs(arcs, *around))
        return found

    def _put_penalty(self, penalty: float) -> None:
        """Into the graph's scores: every word of an arc costs it."""
        if penalty != self._penalty:
            self._fsa.scores = self._scores - penalty * self._lengths
            self._penalty = penalty

    def _dense(self, matrices: Sequence[np.ndarray], scale: float) -> Any:
        """k2's DenseFsaVec of scaled log-likelihoods; each frame's best is put at 0, so that float32 sums stay exact.

        Column 0 is a dummy: 0 is a symbol like others to k2, and no arc has it.
        """
        frames = [len(matrix) for matrix in matrices]
        scores = torch.zeros(len(matrices), max(frames), self.num_pdfs + 1, device=self.device)  # (N, T, pdfs + 1)
        for row, matrix in zip(scores, matrices, strict=True):
            own = torch.from_numpy(matrix).to(self.device).mul(scale)
            row[:len(matrix), 1:] = own - own.max(1, keepdim=True).values
        segments = torch.tensor([[index, 0, length] for index, length in enumerate(frames)], dtype=torch.int32)
        return self._k2.DenseFsaVec(scores, segments)


def _arcs_of(fsas: Any) -> Iterator[FoundArcs]:
    """Every FSA of a k2 FsaVec."""
    arcs = fsas.arcs.values().cpu().numpy()  # (arcs, 4)
    frames, graph_arcs = fsas.frame.cpu().numpy(), fsas.graph_arc.cpu().numpy()
    states = fsas.arcs.row_splits(1).cpu().numpy()
    ends = fsas.arcs.row_splits(2).cpu().numpy()[states]
    for index in range(len(states) - 1):
        own = slice(ends[index], ends[index + 1])
        sources, targets, labels = arcs[own, :3].T
        yield FoundArcs(int(states[index + 1] - states[index]), sources, targets, labels, frames[own], graph_arcs[own])
