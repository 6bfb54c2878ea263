"""Word lattices as plain arrays, and the n best of their distinct word sequences.

Costs of the graph and of the acoustics stay apart, so that one search can be weighed anew.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np
from numba import boolean, int64, njit
from numba.typed import Dict

from asr_distill.decode.links import FRAMES, LINKS, TOKENS, Trellis


class Lattice(NamedTuple):
    """Acyclic: every arc leads to a later state; paths go from state 0 to the last state."""

    offsets: np.ndarray  # (states + 1,) int64: arcs of state s are offsets[s]:offsets[s + 1]
    targets: np.ndarray  # (arcs,) int32
    words: np.ndarray  # (arcs,) int32: word ids, 0 for none
    graph_costs: np.ndarray  # (arcs,) float32, insertion penalty included
    acoustic_costs: np.ndarray  # (arcs,) float32, unscaled
    frames: np.ndarray  # (states,) int32: acoustic frames read before it; the last state stands one further


class WordPath(NamedTuple):
    """One word sequence (ids): the costs are those of its best path."""

    words: tuple[int, ...]
    graph_cost: float
    acoustic_cost: float  # unscaled


def lattice_of(trellis: Trellis, acoustic_scale: float) -> Lattice:
    """The lattice of a finished search. Raises ValueError where the graph has a cycle of epsilons."""
    states = int(trellis.sizes[TOKENS])
    links = trellis.links[:trellis.sizes[LINKS]]
    first_tokens = trellis.frames[:trellis.sizes[FRAMES] + 1, 0]
    frames = np.repeat(np.arange(len(first_tokens) - 1, dtype=np.int32), np.diff(first_tokens))
    return make_lattice(states, links["source"], links["target"], links["word"], links["graph_cost"],
                        links["acoustic_cost"] / np.float32(acoustic_scale), frames)


def make_lattice(states: int, sources: np.ndarray, targets: np.ndarray, words: np.ndarray, graph_costs: np.ndarray,
                 acoustic_costs: np.ndarray, frames: np.ndarray | None = None) -> Lattice:
    """From arcs in any order, by states in any order (the first of all and the last of all keep their places).

    `frames` (states,): see Lattice; without them nothing can be said of times (posteriors.word_posteriors).
    """
    order = np.argsort(sources, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=states))])
    ranks, found = _topological(offsets, targets[order])
    if found < states:
        raise ValueError("the decoding graph has a cycle of epsilons")
    sources, targets = ranks[sources], ranks[targets]
    order = np.argsort(sources, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=states))])
    times = np.zeros(states, np.int32)
    if frames is not None:
        times[ranks] = frames
    return Lattice(offsets, targets[order], words[order], graph_costs[order], acoustic_costs[order], times)


@njit(nogil=True, cache=True)
def _topological(offsets: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, int]:
    """Each state's place in a topological order, and how many states have one."""
    states = len(offsets) - 1
    waiting = np.zeros(states, np.int32)  # arcs not yet seen that lead to a state
    for target in targets:
        waiting[target] += 1
    order = np.empty(states, np.int32)
    ranks = np.empty(states, np.int32)
    found = 0
    for state in range(states):
        if waiting[state] == 0:
            order[found] = state
            found += 1
    done = 0
    while done < found:
        state = order[done]
        ranks[state] = done
        done += 1
        for arc in range(offsets[state], offsets[state + 1]):
            waiting[targets[arc]] -= 1
            if waiting[targets[arc]] == 0:
                order[found] = targets[arc]
                found += 1
    return ranks, found


def distinct_paths(lattice: Lattice, number: int, acoustic_scale: float) -> list[WordPath]:
    """The `number` cheapest word sequences, best first, each once, with the costs of its best path."""
    costs, words, ends = _cheapest(lattice, number, acoustic_scale)
    return [WordPath(tuple(words[begin:end].tolist()), *cost)
            for begin, end, cost in zip(ends[:-1], ends[1:], costs.tolist(), strict=True)]


@njit(nogil=True, cache=True)
def _costs_to_end(lattice: Lattice, acoustic_scale: float) -> np.ndarray:
    """Cheapest cost from every state to the end, float64 (states,)."""
    costs = np.full(len(lattice.offsets) - 1, math.inf)
    costs[-1] = 0.0
    for state in range(len(costs) - 2, -1, -1):
        for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
            cost = lattice.graph_costs[arc] + acoustic_scale * lattice.acoustic_costs[arc]
            costs[state] = min(costs[state], cost + costs[lattice.targets[arc]])
    return costs


@njit(nogil=True, cache=True)
def _cheapest(lattice: Lattice, number: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A* with the exact cost to the end over (state, words so far): a word sequence is found once, by its best path,
    though a lattice holds it in thousands of time alignments.

    Returns float64 (found, 2) graph and acoustic costs, all words end to end, and where each sequence ends (0 first).
    """
    to_end = _costs_to_end(lattice, scale)
    end = len(to_end) - 1
    spelled = Dict.empty(int64, int64)  # words so far << 32 | next word -> words so far; a trie
    parents, last_words = [0], [0]  # of the trie's nodes; 0: no words
    seen = Dict.empty(int64, boolean)  # words so far << 32 | state
    queue = [(to_end[0], 0, 0, 0.0, 0.0)]  # least cost of a whole path, state, words so far, costs so far
    found = [(0, 0.0, 0.0) for _ in range(0)]
    while len(queue) and len(found) < number:
        least, state, node, graph, acoustic = heapq.heappop(queue)
        # Follow the best way on while it costs nothing more: most steps need no place in the queue.
        while state >= 0 and (node << 32 | state) not in seen:
            seen[node << 32 | state] = True
            if state == end:
                found.append((node, graph, acoustic))
                break
            onward = (-1, 0, 0.0, 0.0)
            for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
                target, word = lattice.targets[arc], lattice.words[arc]
                heard = node
                if word:
                    key = node << 32 | word
                    if key not in spelled:
                        spelled[key] = len(parents)
                        parents.append(node)
                        last_words.append(word)
                    heard = spelled[key]
                graph_then, acoustic_then = graph + lattice.graph_costs[arc], acoustic + lattice.acoustic_costs[arc]
                cost = graph_then + scale * acoustic_then + to_end[target]
                if onward[0] < 0 and cost <= least + 1e-7:
                    onward = (target, heard, graph_then, acoustic_then)
                elif cost < math.inf and (heard << 32 | target) not in seen:
                    heapq.heappush(queue, (cost, np.int64(target), heard, graph_then, acoustic_then))
            state, node, graph, acoustic = onward
    return _spell(found, parents, last_words)


@njit(nogil=True, cache=True)
def _spell(found: list[tuple[int, float, float]], parents: list[int], last_words: list[int],
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    costs = np.empty((len(found), 2))
    ends = np.zeros(len(found) + 1, np.int64)
    for index, (node, graph, acoustic) in enumerate(found):
        costs[index, 0], costs[index, 1] = graph, acoustic
        ends[index + 1] = ends[index]
        while node:
            ends[index + 1] += 1
            node = parents[node]
    words = np.empty(ends[-1], np.int32)
    for index, (node, _, _) in enumerate(found):
        place = ends[index + 1]
        while node:
            place -= 1
            words[place] = last_words[node]
            node = parents[node]
    return costs, words, ends
