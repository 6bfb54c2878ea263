"""Viterbi search of many utterances by k2's exact dense intersection, in the place of viterbi.ViterbiBatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.k2fsa import k2_module

CELLS = 10_000_000  # states x frames of a batch; k2 narrows its beam from 15 million on
OUTPUT_BEAM = 0.5  # only the best path is wanted
FINAL = -1  # k2's label of arcs into the final state


class _Arcs(NamedTuple):
    """A training graph as k2 has it: state 0 is the start, s + 1 the graph's state s, the last the end."""

    rows: np.ndarray  # (arcs, 4) int32: source, target, label (place of the pdf among the graph's own, + 1), score bits
    weights: np.ndarray  # (arcs,) float32: log-weights


class K2Viterbi:
    """The graphs of some utterances, ready to search. Raises UserError where k2 is missing."""

    def __init__(self, graphs: Sequence[UtteranceGraph], transitions: TransitionTable, *,
                 self_loop_scale: float, device: torch.device):
        self._k2, self.device = k2_module(), device
        self._sizes = [len(graph) for graph in graphs]
        self._arcs = [_arcs_of(graph, transitions, self_loop_scale) for graph in graphs]

    def search(self, scores: Sequence[torch.Tensor]) -> list[tuple[np.ndarray, float] | None]:
        """As ViterbiBatch.search: for scaled log-likelihoods of each utterance's own pdfs (frames, pdfs)."""
        found: list[tuple[np.ndarray, float] | None] = [None] * len(scores)
        order = [index for index in np.argsort([-len(each) for each in scores], kind="stable").tolist()
                 if len(scores[index])]  # intersect_dense wants the longest first
        if not order:
            return found
        with torch.no_grad():  # not inference_mode: k2 asks for the version of tensors
            lattices = self._k2.intersect_dense(self._fsas(order), self._dense([scores[index] for index in order]),
                                                output_beam=OUTPUT_BEAM)
            paths = self._k2.shortest_path(lattices, use_double_scores=True)
        arcs, graph_arcs = paths.arcs.values().cpu().numpy(), paths.graph_arc.cpu().numpy()
        ends = paths.arcs.row_splits(2).cpu().numpy()[paths.arcs.row_splits(1).cpu().numpy()]
        for index, begin, end in zip(order, ends[:-1], ends[1:], strict=True):
            if end == begin:
                continue
            own = graph_arcs[begin:end]  # one arc a frame, and one into the end
            columns = torch.from_numpy(arcs[begin:end - 1, 2].astype(np.int64) - 1).to(self.device)
            acoustic = scores[index].gather(1, columns.unsqueeze(1)).double().sum().item()
            graph = self._arcs[index]
            states = (graph.rows[own[:-1], 1] - 1).astype(np.int32)
            found[index] = states, float(graph.weights[own].sum(dtype=np.float64)) + acoustic
        return found

    def _fsas(self, order: Sequence[int]) -> Any:
        """Graphs as a k2 FsaVec; `graph_arc` is an arc's place in its own graph."""
        fsas = []
        for index in order:
            fsa = self._k2.Fsa(torch.from_numpy(self._arcs[index].rows).to(self.device))
            fsa.graph_arc = torch.arange(len(self._arcs[index].rows), dtype=torch.int32, device=self.device)
            fsas.append(fsa)
        return self._k2.create_fsa_vec(fsas)

    def _dense(self, scores: Sequence[torch.Tensor]) -> Any:
        """Column 0 is a dummy. Each frame's best score is put at 0, so that float32 sums stay exact."""
        width = max(each.shape[1] for each in scores) + 1
        padded = torch.zeros(len(scores), len(scores[0]), width, device=self.device)  # (N, T, columns)
        for row, each in zip(padded, scores, strict=True):
            row[:len(each), 1:each.shape[1] + 1] = each - each.max(1, keepdim=True).values
        segments = torch.tensor([[row, 0, len(each)] for row, each in enumerate(scores)], dtype=torch.int32)
        return self._k2.DenseFsaVec(padded, segments)


def _arcs_of(graph: UtteranceGraph, transitions: TransitionTable, self_loop_scale: float) -> _Arcs:
    """Every state's arcs bear the pdf of the state they lead to, and the transition cost of the one they leave."""
    loop, forward = (self_loop_scale * log for log in transitions.logs(graph.phone, graph.state, graph.pdf))
    predecessors, weights = graph.predecessors()  # (S, K)
    states, labels = np.arange(len(graph)), graph.own_pdfs[1] + 1
    entered, slot = np.nonzero(np.isfinite(weights))
    before = predecessors[entered, slot]
    first, last = np.flatnonzero(np.isfinite(graph.initial)), np.flatnonzero(np.isfinite(graph.final))
    sources = np.concatenate([np.zeros_like(first), states + 1, before + 1, last + 1])
    targets = np.concatenate([first + 1, states + 1, entered + 1, np.full(len(last), len(graph) + 1)])
    symbols = np.concatenate([labels[first], labels, labels[entered], np.full(len(last), FINAL)])
    costs = np.concatenate([graph.initial[first], loop, weights[entered, slot] + forward[before],
                            graph.final[last] + forward[last]]).astype(np.float32)
    order = np.lexsort((targets, symbols.astype(np.int32).view(np.uint32), sources))  # as k2 sorts: -1 is last
    rows = np.stack([sources, targets, symbols, costs.view(np.int32)], 1)[order]
    return _Arcs(np.ascontiguousarray(rows, np.int32), costs[order])
