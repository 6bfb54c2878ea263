"""Exact Viterbi search of one utterance on a CPU: compiled loops, one thread, without the interpreter's lock."""

from __future__ import annotations

import numpy as np
from numba import njit

from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import CHAIN, ENTRY


def best_path(graph: UtteranceGraph, transitions: TransitionTable, scores: np.ndarray, columns: np.ndarray,
              self_loop_scale: float) -> tuple[np.ndarray, float] | None:
    """States int32 (frames,) of the best path and its log-weight; None where the frames are too few for the words.

    scores: scaled log-likelihoods float32 (frames, pdfs); columns int32 (S,): each graph state's pdf among them.
    """
    loop, forward = transitions.logs(graph.phone, graph.state, graph.pdf)
    loop, forward = loop * np.float32(self_loop_scale), forward * np.float32(self_loop_scale)
    chain = np.empty_like(forward)
    chain[0], chain[1:] = -np.inf, forward[:-1]
    chain[graph.entries] = -np.inf
    incoming = graph.entry_weights + forward[graph.entry_predecessors]  # padded slots stay -inf
    states, score = _search(scores, columns, loop, chain, graph.initial, graph.final + forward, graph.entries,
                            graph.entry_predecessors, incoming)
    return (states, float(score)) if score > -np.inf else None


@njit(nogil=True, cache=True)
def _search(scores: np.ndarray, columns: np.ndarray, loop: np.ndarray, chain: np.ndarray, initial: np.ndarray,
            final: np.ndarray, entries: np.ndarray, predecessors: np.ndarray,
            incoming: np.ndarray) -> tuple[np.ndarray, float]:  # pragma: no cover (compiled)
    frames, states = len(scores), len(columns)
    back = np.zeros((frames, states), np.uint8)
    now, then = initial.copy(), np.empty_like(initial)
    for t in range(frames):
        row = scores[t]
        if t:
            pointers = back[t]
            then[0] = now[0] + loop[0]
            for s in range(1, states):
                stay, move = now[s] + loop[s], now[s - 1] + chain[s]
                pointers[s] = move > stay
                then[s] = max(move, stay)
            for e in range(len(entries)):
                s = entries[e]
                best = then[s]
                for k in range(predecessors.shape[1]):
                    score = now[predecessors[e, k]] + incoming[e, k]
                    if score > best:
                        best = score
                        pointers[s] = ENTRY + k
                then[s] = best
            now, then = then, now
        for s in range(states):
            now[s] += row[columns[s]]
    path = np.empty(frames, np.int32)
    last = 0
    best_score = np.float32(-np.inf)
    for s in range(states):
        if now[s] + final[s] > best_score:
            best_score, last = now[s] + final[s], s
    if best_score == -np.inf:
        return path, best_score
    entry_of = np.full(states, -1, np.int32)
    for e in range(len(entries)):
        entry_of[entries[e]] = e
    for t in range(frames - 1, -1, -1):
        path[t] = last
        pointer = back[t, last]
        if pointer == CHAIN:
            last -= 1
        elif pointer >= ENTRY:
            last = predecessors[entry_of[last], pointer - ENTRY]
    return path, best_score
