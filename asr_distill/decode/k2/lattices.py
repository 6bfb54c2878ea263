"""Lattices and best paths of k2, arc by arc, as the rest of decoding reads them (../lattice.py)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr_distill.decode.k2.graph import K2Graph
from asr_distill.decode.lattice import Lattice, make_lattice


class Costs(NamedTuple):
    """What the arcs of a K2Graph say and cost: all of it that is needed beside k2's own copy."""

    outputs: np.ndarray  # see K2Graph
    offsets: np.ndarray
    words: np.ndarray
    costs: np.ndarray  # (arcs,) float32

    @classmethod
    def of(cls, graph: K2Graph) -> Costs:
        return cls(graph.outputs, graph.offsets, graph.words, graph.costs)


class FoundArcs(NamedTuple):
    """Arcs of one utterance's lattice, or of its best path in order, as k2 gives them back."""

    states: int  # the first is the start, the last the end
    sources: np.ndarray  # (arcs,) int32
    targets: np.ndarray  # (arcs,) int32
    labels: np.ndarray  # (arcs,) int32: pdf + 1, FINAL into the last state
    frames: np.ndarray  # (arcs,) int32: the acoustic frame that an arc reads; into the end, how many there are
    graph_arcs: np.ndarray  # (arcs,) int32: place among the graph's arcs + 1; 0 where a partial path is cut off

    @property
    def reached_final(self) -> bool:
        """Whether the paths end where the graph ends."""
        return bool((self.graph_arcs[self.targets == self.states - 1] > 0).any())


class WordsFound(NamedTuple):
    """A best path in words. Costs as in Hypothesis."""

    words: list[int]
    frames: list[int]  # at which each word is said first by its arc; of words into the end, the number of frames
    graph_cost: float
    acoustic_cost: float


def words_of(path: FoundArcs, costs: Costs, log_likelihoods: np.ndarray, penalty: float) -> WordsFound:
    """A best path's words, the frames of their arcs and their costs, for unscaled log-likelihoods (frames, pdfs)."""
    owners, words = _said(path, costs)
    graph, acoustic = _arc_costs(path, costs, log_likelihoods, penalty)
    return WordsFound(words.tolist(), path.frames[owners].tolist(), float(graph.sum()), float(acoustic.sum()))


def lattice_of_arcs(found: FoundArcs, costs: Costs, log_likelihoods: np.ndarray, penalty: float) -> Lattice:
    """Every arc that says several words becomes a chain of arcs; its first one bears all the costs."""
    owners, words = _said(found, costs)
    graph, acoustic = _arc_costs(found, costs, log_likelihoods, penalty)
    arcs = len(found.labels)
    spoken = np.bincount(owners, minlength=arcs)  # words of an arc
    parts = np.maximum(spoken, 1)
    extra = parts - 1  # states inside its chain
    states = found.states + int(extra.sum())
    targets = np.where(found.targets == found.states - 1, states - 1, found.targets)
    # New states stand between the old ones and the end; parts of a chain follow one another.
    owner = np.repeat(np.arange(arcs), parts)
    part = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
    inner = found.states - 1 + np.repeat(np.cumsum(extra) - extra, parts) + part  # the state after this part
    first, last = part == 0, part == np.repeat(extra, parts)
    chain_words = np.zeros(len(owner), np.int32)
    chain_words[spoken[owner] > 0] = words
    frames = np.zeros(states, np.int32)
    frames[found.sources] = found.frames
    frames[inner[~last]] = found.frames[owner[~last]] + 1
    frames[-1] = len(log_likelihoods) + 1
    return make_lattice(
        states, np.where(first, found.sources[owner], inner - 1).astype(np.int32),
        np.where(last, targets[owner], inner).astype(np.int32), chain_words,
        np.where(first, graph[owner], 0).astype(np.float32), np.where(first, acoustic[owner], 0).astype(np.float32),
        frames)


def _said(found: FoundArcs, costs: Costs) -> tuple[np.ndarray, np.ndarray]:
    """(arc, word) of every word that the arcs say, int64 and int32 (words,), in order."""
    output = np.where(found.graph_arcs > 0, costs.outputs[found.graph_arcs - 1], 0)
    begins, spoken = costs.offsets[output], costs.offsets[output + 1] - costs.offsets[output]
    owners = np.repeat(np.arange(len(output)), spoken)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(spoken) - spoken, spoken)
    return owners, costs.words[begins[owners] + places]


def _arc_costs(found: FoundArcs, costs: Costs, log_likelihoods: np.ndarray, penalty: float,
               ) -> tuple[np.ndarray, np.ndarray]:
    """Graph costs (insertion penalty included) and unscaled acoustic costs, float64 (arcs,)."""
    kept = found.graph_arcs > 0
    output = np.where(kept, costs.outputs[found.graph_arcs - 1], 0)
    graph = np.where(kept, costs.costs[found.graph_arcs - 1], 0.0)
    graph = graph + penalty * (costs.offsets[output + 1] - costs.offsets[output])
    reads = found.labels > 0
    acoustic = np.zeros(len(found.labels))
    acoustic[reads] = -log_likelihoods[found.frames[reads], found.labels[reads] - 1].astype(np.float64)
    return graph, acoustic
