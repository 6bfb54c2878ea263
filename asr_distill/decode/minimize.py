"""States with the same future become one (Kaldi's fstminimizeencoded), for graphs of millions of states in seconds.

A state's 64-bit colour is hashed, round after round, from its arcs and the colours of the states they lead to, until
no round tells more states apart (Weisfeiler and Leman's colour refinement). Two unlike states get one colour with a
chance of about states^2 / 2^64: one in a million for five million states.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from asr_distill.lang.fst_arrays import FstArrays

STEP = 1 / 1024  # weights are rounded to multiples of it (Kaldi's kDelta)
ROUNDS = 8  # between counts of the colours


def minimized(fst: FstArrays) -> FstArrays:
    """Weights rounded, unreachable states and repeated ones left out."""
    fst = FstArrays(fst.start, np.round(fst.finals / STEP) * np.float32(STEP), fst.offsets, fst.ilabels, fst.olabels,
                    np.round(fst.weights / STEP) * np.float32(STEP), fst.nextstates)
    labels = _arc_hashes(fst.ilabels, fst.olabels, fst.weights)
    finals = fst.finals.view(np.int32).astype(np.uint64)
    colours, number = finals.copy(), 0
    while True:
        for _ in range(ROUNDS):
            colours = _next_colours(fst.offsets, labels, fst.nextstates, finals, colours)
        found = _distinct(colours)
        if found == number:
            break
        number = found
    _, members, classes = np.unique(colours, return_index=True, return_inverse=True)
    merged = _taken(fst, members, classes.astype(np.int32))
    return reachable(merged)


def reachable(fst: FstArrays) -> FstArrays:
    """Without the states that no path from the start leads to; states in breadth-first order."""
    order, places = _breadth_first(fst.start, fst.offsets, fst.nextstates)
    return _taken(fst, order, places)


def _taken(fst: FstArrays, members: np.ndarray, places: np.ndarray) -> FstArrays:
    """The states `members`, in that order; arcs go to the new places of the states they led to."""
    counts = np.diff(fst.offsets)[members]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    arcs = np.repeat(fst.offsets[members] - offsets[:-1], counts) + np.arange(offsets[-1])
    return FstArrays(int(places[fst.start]), fst.finals[members], offsets, fst.ilabels[arcs], fst.olabels[arcs],
                     fst.weights[arcs], places[fst.nextstates[arcs]])


def _distinct(colours: np.ndarray) -> int:
    ordered = np.sort(colours)
    return 1 + int((ordered[1:] != ordered[:-1]).sum())


@njit(nogil=True, cache=True)
def mixed(value: np.uint64) -> np.uint64:
    """Spread a number over all 64 bits (the finaliser of Steele, Lea and Flood's SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(nogil=True, cache=True)
def _arc_hashes(ilabels: np.ndarray, olabels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hashes = np.empty(len(ilabels), np.uint64)
    for arc in range(len(ilabels)):
        labels = np.uint64(ilabels[arc]) << np.uint64(32) | np.uint64(olabels[arc])
        hashes[arc] = mixed(mixed(labels) + np.uint64(np.int64(math.floor(weights[arc] / STEP + 0.5))))
    return hashes


@njit(nogil=True, cache=True)
def _next_colours(offsets: np.ndarray, labels: np.ndarray, nextstates: np.ndarray, finals: np.ndarray,
                  colours: np.ndarray) -> np.ndarray:
    """The sum over arcs knows nothing of their order."""
    new = np.empty_like(colours)
    for state in range(len(colours)):
        total = finals[state]
        for arc in range(offsets[state], offsets[state + 1]):
            total += mixed(labels[arc] ^ (colours[nextstates[arc]] * np.uint64(0x9E3779B97F4A7C15)))
        new[state] = mixed(total)
    return new


@njit(nogil=True, cache=True)
def _breadth_first(start: int, offsets: np.ndarray, nextstates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reachable states in order, and each state's place (-1: unreachable)."""
    states = len(offsets) - 1
    order, places = np.empty(states, np.int32), np.full(states, -1, np.int32)
    order[0], places[start] = start, 0
    found, done = 1, 0
    while done < found:
        state = order[done]
        done += 1
        for arc in range(offsets[state], offsets[state + 1]):
            target = nextstates[arc]
            if places[target] < 0:
                places[target] = found
                order[found] = target
                found += 1
    return order[:found], places
