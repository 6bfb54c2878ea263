"""Viterbi search of one utterance on a CPU: compiled loops, one thread, without the interpreter's lock.

A beam, applied every few frames, says which pdfs the next frames can come to: only those are scored. Scoring thousands
of Gaussians costs far more than the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import CHAIN, ENTRY

STEP = 64  # frames from one application of the beam to the next
_WIDER = 4.0  # the beam of the second try, in beams of the first; the third has none

# Scaled log-likelihoods float32 (n, len(columns)) of n frames, for some of the graph's own pdfs.
Score = Callable[[slice, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class BestPath:
    states: np.ndarray  # int32 (frames,)
    score: float  # log-weight
    acoustic: float  # what of it are log-likelihoods


def best_path(graph: UtteranceGraph, transitions: TransitionTable, frames: int, score: Score, *,
              self_loop_scale: float, beam: float = math.inf) -> BestPath | None:
    """The best path; None where the frames are too few for the words.

    States whose path weighs less than the best by more than `beam` are given up; where no path is left at the end
    (Kaldi's retry_beam) the search is done again with a wider beam, and at last with none.
    """
    loop, forward = transitions.logs(graph.phone, graph.state, graph.pdf)
    loop, forward = loop * np.float32(self_loop_scale), forward * np.float32(self_loop_scale)
    chain = np.empty_like(forward)
    chain[0], chain[1:] = -np.inf, forward[:-1]
    chain[graph.entries] = -np.inf
    incoming = graph.entry_weights + forward[graph.entry_predecessors]  # padded slots stay -inf
    ways = chain, graph.entries, graph.entry_predecessors, incoming
    columns = graph.own_pdfs[1]
    scores = np.zeros((frames, len(graph.own_pdfs[0])), np.float32)
    for width in dict.fromkeys((beam, _WIDER * beam, math.inf)) if frames else ():
        back = np.zeros((frames, len(graph)), np.uint8)
        now = graph.initial.copy()
        for first in range(0, frames, STEP):
            rows = slice(first, min(first + STEP, frames))
            low, high, reached = _reach(now, width, rows.stop - first, columns, scores.shape[1], *ways)
            scores[rows, reached] = score(rows, reached)
            _advance(now, scores[rows], back[rows], first == 0, low, high, columns, loop, *ways)
        path, total, acoustic = _trace(now + graph.final + forward, back, scores, columns, *ways[1:3])
        if total > -math.inf:
            return BestPath(path, total, acoustic)
    return None


@njit(nogil=True, cache=True)
def _reach(now: np.ndarray, beam: float, steps: int, columns: np.ndarray, num_columns: int, chain: np.ndarray,
           entries: np.ndarray, predecessors: np.ndarray,
           incoming: np.ndarray) -> tuple[int, int, np.ndarray]:  # pragma: no cover (compiled)
    """Give up states of `now` (S,) outside the beam; the range of states that `steps` frames can come to from those
    left, and the columns that these states need, ascending."""
    states = len(now)
    worst = now.max() - np.float32(beam)
    distance = np.empty(states, np.int32)  # fewest frames to come to a state
    needed = np.zeros(num_columns, np.bool_)
    low, high = states, 0
    entry = 0
    for s in range(states):
        distance[s] = steps + 1
        if now[s] >= worst and now[s] > -np.inf:
            distance[s] = 0
        else:
            now[s] = -np.inf
        if chain[s] > -np.inf:
            distance[s] = min(distance[s], distance[s - 1] + 1)
        if entry < len(entries) and entries[entry] == s:
            for k in range(predecessors.shape[1]):
                if incoming[entry, k] > -np.inf:
                    distance[s] = min(distance[s], distance[predecessors[entry, k]] + 1)
            entry += 1
        if distance[s] <= steps:
            low, high = min(low, s), s + 1
            needed[columns[s]] = True
    return low, high, np.flatnonzero(needed)


@njit(nogil=True, cache=True)
def _advance(now: np.ndarray, scores: np.ndarray, back: np.ndarray, begins: bool, low: int, high: int,
             columns: np.ndarray, loop: np.ndarray, chain: np.ndarray, entries: np.ndarray, predecessors: np.ndarray,
             incoming: np.ndarray) -> None:  # pragma: no cover (compiled)
    """Take `now` (S,) over the frames of scores (n, columns), and fill their back-pointers (n, S)."""
    then = np.full_like(now, -np.inf)
    first_entry, last_entry = np.searchsorted(entries, low), np.searchsorted(entries, high)
    source, target, swapped = now, then, False
    for t in range(len(scores)):
        row = scores[t]
        if t or not begins:
            pointers = back[t]
            target[low] = source[low] + loop[low]
            for s in range(low + 1, high):
                stay, move = source[s] + loop[s], source[s - 1] + chain[s]
                pointers[s] = move > stay
                target[s] = max(move, stay)
            for e in range(first_entry, last_entry):
                s = entries[e]
                best = target[s]
                for k in range(predecessors.shape[1]):
                    total = source[predecessors[e, k]] + incoming[e, k]
                    if total > best:
                        best = total
                        pointers[s] = ENTRY + k
                target[s] = best
            source, target, swapped = target, source, not swapped
        for s in range(low, high):
            source[s] += row[columns[s]]
    if swapped:
        now[:] = source


@njit(nogil=True, cache=True)
def _trace(ends: np.ndarray, back: np.ndarray, scores: np.ndarray, columns: np.ndarray, entries: np.ndarray,
           predecessors: np.ndarray) -> tuple[np.ndarray, float, float]:  # pragma: no cover (compiled)
    """The path to the best of `ends` (S,), its weight, and its scores' sum."""
    path = np.empty(len(back), np.int32)
    last = np.argmax(ends)
    entry_of = np.full(len(ends), -1, np.int32)
    for e in range(len(entries)):
        entry_of[entries[e]] = e
    acoustic = 0.0
    best = float(ends[last])
    if best == -np.inf:
        return path, best, acoustic
    for t in range(len(back) - 1, -1, -1):
        path[t] = last
        acoustic += scores[t, columns[last]]
        pointer = back[t, last]
        if pointer == CHAIN:
            last -= 1
        elif pointer >= ENTRY:
            last = predecessors[entry_of[last], pointer - ENTRY]
    return path, best, acoustic
