"""What the beam search moves over its graph: tokens, the words behind them, and the graph as the search reads it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from asr_distill.lang.fst_arrays import FstArrays

ARC = np.dtype([("label", np.int32), ("word", np.int32), ("weight", np.float32), ("target", np.int32)])
TOKEN = np.dtype([("cost", np.float64), ("graph_cost", np.float64), ("state", np.int32), ("history", np.int32)])
WORD = np.dtype([("previous", np.int32), ("word", np.int32)])  # a token's words: a chain of these; 0 ends it


class SearchGraph(NamedTuple):
    """HCLG as the search reads it: arcs of a state together, epsilons first."""

    start: int
    finals: np.ndarray  # (states,) float32
    spans: np.ndarray  # (states + 1, 2) int32: first epsilon arc, first emitting arc
    arcs: np.ndarray  # (arcs,) ARC; label = pdf + 1, 0 for an epsilon


class Workspace(NamedTuple):
    """What one search needs besides the graph. Memory is taken only where it is touched."""

    slots: np.ndarray  # (states,) uint32: place of a state's token, true only if that token names the state
    tokens: np.ndarray  # (2, states) TOKEN: those of this frame and of the next
    queue: np.ndarray  # (states,) int32: tokens whose epsilons are to be followed
    queued: np.ndarray  # (states,) bool, by token
    still: np.ndarray  # (2, states) int32, by token: frames of silence that its path ends with, where these are counted


def search_graph(fst: FstArrays) -> SearchGraph:
    """Epsilons from a state to itself are left out: they lead nowhere."""
    spans = np.empty((fst.num_states + 1, 2), np.int32)
    arcs = np.empty(fst.num_arcs, ARC)
    used = _fill(fst.offsets, fst.ilabels, fst.olabels, fst.weights, fst.nextstates, spans, arcs)
    return SearchGraph(fst.start, fst.finals, spans, arcs[:used])


def new_workspace(graph: SearchGraph) -> Workspace:
    states = len(graph.finals)
    return Workspace(np.zeros(states, np.uint32), np.empty((2, states), TOKEN), np.empty(states, np.int32),
                     np.zeros(states, np.bool_), np.zeros((2, states), np.int32))


@njit(nogil=True, cache=True)
def _fill(offsets: np.ndarray, ilabels: np.ndarray, olabels: np.ndarray, weights: np.ndarray, nextstates: np.ndarray,
          spans: np.ndarray, arcs: np.ndarray) -> int:
    used = 0
    for state in range(len(offsets) - 1):
        for emitting in range(2):
            spans[state, emitting] = used
            for arc in range(offsets[state], offsets[state + 1]):
                if (ilabels[arc] > 0) != (emitting == 1) or (emitting == 0 and nextstates[arc] == state):
                    continue
                arcs[used].label, arcs[used].word = ilabels[arc], olabels[arc]
                arcs[used].weight, arcs[used].target = weights[arc], nextstates[arc]
                used += 1
    spans[len(offsets) - 1, :] = used
    return used


@njit(nogil=True, cache=True)
def reach(slots: np.ndarray, tokens: np.ndarray, count: int, target: int) -> int:
    """Place of a state's token among the `count` tokens; at their end, a new one of infinite cost."""
    slot = np.int64(slots[target])
    if slot < count and tokens[slot].state == target:
        return slot
    slots[target] = count
    tokens[count].state = target
    tokens[count].cost = math.inf
    return count


@njit(nogil=True, cache=True)
def take(token: Any, source: Any, cost: float, weight: float, word: int, history: np.ndarray, said: int) -> int:
    """Note that a token is reached at less cost, from `source`; the new length of the history."""
    token.cost = cost
    token.graph_cost = source.graph_cost + weight
    token.history = source.history
    if word:
        history[said].previous, history[said].word = source.history, word
        token.history = said
        return said + 1
    return said


@njit(nogil=True, cache=True)
def collect(history: np.ndarray, said: int, tokens: np.ndarray, count: int) -> int:
    """Keep only words that a token still ends with; the new length. A word's predecessor stands before it."""
    places = np.zeros(said, np.int32)  # 0: not needed
    for index in range(count):
        word = tokens[index].history
        while word and not places[word]:
            places[word] = 1
            word = history[word].previous
    kept = 1
    for word in range(1, said):
        if places[word]:
            places[word] = kept
            history[kept].previous = places[history[word].previous]
            history[kept].word = history[word].word
            kept += 1
    for index in range(count):
        tokens[index].history = places[tokens[index].history]
    return kept


@njit(nogil=True, cache=True)
def sentence(history: np.ndarray, last: int) -> np.ndarray:
    """The words that end with entry `last`, int32 (words,)."""
    length, place = 0, last
    while place:
        length, place = length + 1, history[place].previous
    words = np.empty(length, np.int32)
    while last:
        length -= 1
        words[length], last = history[last].word, history[last].previous
    return words


@njit(nogil=True, cache=True)
def grown(array: np.ndarray, needed: int) -> np.ndarray:
    """A longer copy, for `needed` items at least."""
    longer = np.empty(max(needed, 2 * len(array)), array.dtype)
    longer[:len(array)] = array
    return longer
