"""How sure a lattice is: posteriors of the words of its best path, and of whole word sequences.

A path's probability is exp(-cost) over the sum of all paths' (forward-backward over the lattice). A word's confidence
is C_max of Wessel, Schlueter, Macherey and Ney, "Confidence measures for large vocabulary continuous speech
recognition" (IEEE Trans. Speech and Audio Processing 9(3), 2001): at every frame the share of the paths that are in
that word just then, whatever its beginning, its end and its neighbours; of these shares the largest.

A path is in a word from the arc that carries it to the arc that carries the next: in a decoding graph that is a phone
or so beside where the word is spoken, but for all paths alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import int64, njit
from numba.typed import Dict

from asr_distill.decode.lattice import Lattice
from asr_distill.decode.tokens import grown

ENTRY = np.dtype([("label", np.int64), ("log", np.float64), ("next", np.int64)])  # of a state's list; next 0: the last
NEAR = 3  # frames: so far from its place on the best path a word without a frame of its own is still that word


class WordPosteriors(NamedTuple):
    """The best path's words."""

    words: tuple[int, ...]  # ids
    confidences: np.ndarray  # (words,) float64 in (0, 1]


def word_posteriors(lattice: Lattice, acoustic_scale: float) -> WordPosteriors:
    """Words of the best path, each with its confidence. The lattice must tell frames (as Decoder.lattice's does)."""
    words, confidences = _word_posteriors(lattice, acoustic_scale)
    return WordPosteriors(tuple(words.tolist()), confidences)


def sequence_posteriors(lattice: Lattice, sequences: Sequence[Sequence[int]], acoustic_scale: float) -> np.ndarray:
    """Natural log of every word sequence's probability, all its paths together, float64 (sequences,); -inf where the
    lattice lacks it."""
    words = np.array([word for sequence in sequences for word in sequence], np.int64)
    ends = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return _sequence_posteriors(lattice, words, ends, acoustic_scale)


@njit(nogil=True, cache=True)
def _log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


@njit(nogil=True, cache=True)
def _cost(lattice: Lattice, arc: int, scale: float) -> float:
    return np.float64(lattice.graph_costs[arc]) + scale * np.float64(lattice.acoustic_costs[arc])


@njit(nogil=True, cache=True)
def _backward(lattice: Lattice, scale: float) -> np.ndarray:
    """Log of the summed weights from every state to the end, float64 (states,)."""
    logs = np.full(len(lattice.offsets) - 1, -math.inf)
    logs[-1] = 0.0
    for state in range(len(logs) - 2, -1, -1):
        for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
            logs[state] = _log_add(logs[state], logs[lattice.targets[arc]] - _cost(lattice, arc, scale))
    return logs


@njit(nogil=True, cache=True)
def _forward(lattice: Lattice, scale: float, children: Dict, by_prefix: bool) -> tuple[np.ndarray, np.ndarray]:
    """Log of the summed weights from the start to every state, apart by what was said: the last word (0: none yet) or,
    `by_prefix`, the node of a trie whose edges are `children` (node << 32 | word -> node); other words end there.

    Returns each state's first entry, int64 (states,), and the entries (ENTRY; number 0 is none).
    """
    heads = np.zeros(len(lattice.offsets) - 1, np.int64)
    entries = np.empty(4096, ENTRY)
    entries[1].label, entries[1].log, entries[1].next = 0, 0.0, 0
    heads[0], used = 1, 2
    for state in range(len(heads)):
        for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
            target, word, cost = lattice.targets[arc], np.int64(lattice.words[arc]), _cost(lattice, arc, scale)
            place = heads[state]
            while place:
                label, log = entries[place].label, entries[place].log - cost
                place = entries[place].next
                if word and not by_prefix:
                    label = word
                elif word:
                    label = children.get(label << 32 | word, int64(-1))
                    if label < 0:
                        continue
                own = heads[target]
                while own and entries[own].label != label:
                    own = entries[own].next
                if own:
                    entries[own].log = _log_add(entries[own].log, log)
                    continue
                if used == len(entries):
                    entries = grown(entries, used + 1)
                entries[used].label, entries[used].log, entries[used].next = label, log, heads[target]
                heads[target] = used
                used += 1
    return heads, entries


@njit(nogil=True, cache=True)
def _best_path(lattice: Lattice, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Its words' ids and the frames before the arcs that carry them, int64 (words,) each."""
    states = len(lattice.offsets) - 1
    costs, choices = np.full(states, math.inf), np.full(states, -1, np.int64)
    costs[-1] = 0.0
    for state in range(states - 2, -1, -1):
        for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
            cost = _cost(lattice, arc, scale) + costs[lattice.targets[arc]]
            if cost < costs[state]:
                costs[state], choices[state] = cost, arc
    words, frames, state, count = np.zeros(states, np.int64), np.zeros(states, np.int64), 0, 0
    while choices[state] >= 0:
        arc = choices[state]
        if lattice.words[arc]:
            words[count], frames[count] = lattice.words[arc], lattice.frames[state]
            count += 1
        state = lattice.targets[arc]
    return words[:count].copy(), frames[:count].copy()


@njit(nogil=True, cache=True)
def _word_posteriors(lattice: Lattice, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Best path's words and confidences."""
    words, frames = _best_path(lattice, scale)
    last = np.int64(lattice.frames[-1])
    owner = np.full(last + 1, -1, np.int64)  # which of the words the best path is in at each frame
    for index in range(len(words)):
        owner[frames[index]:] = index
    shares = np.zeros(last + 1)  # of paths that are in the owner's word
    near = np.zeros(len(words))  # of paths that begin the word near its place, for words that own no frame
    onward = _backward(lattice, scale)
    heads, entries = _forward(lattice, scale, Dict.empty(int64, int64), False)
    for state in range(len(heads)):
        frame = lattice.frames[state]
        for arc in range(lattice.offsets[state], lattice.offsets[state + 1]):
            target, word = lattice.targets[arc], np.int64(lattice.words[arc])
            emits = lattice.frames[target] > frame
            tail = onward[target] - _cost(lattice, arc, scale) - onward[0]
            place = heads[state]
            while place:
                share = math.exp(entries[place].log + tail)
                label = word if word else entries[place].label
                if emits and owner[frame] >= 0 and label == words[owner[frame]]:
                    shares[frame] += share
                if word:
                    _count_near(words, frames, word, frame, share, near)
                place = entries[place].next
    confidences = np.zeros(len(words))
    for frame in range(last):
        if owner[frame] >= 0:
            confidences[owner[frame]] = max(confidences[owner[frame]], shares[frame])
    for index in range(len(words)):
        if index + 1 < len(words) and frames[index + 1] == frames[index]:
            confidences[index] = near[index]
        confidences[index] = min(confidences[index], 1.0)
    return words, confidences


@njit(nogil=True, cache=True)
def _count_near(words: np.ndarray, frames: np.ndarray, word: int, frame: int, share: float, near: np.ndarray) -> None:
    """Add `share` to every one of `words` that `word`, begun at `frame`, may stand for."""
    index = np.searchsorted(frames, frame - NEAR)
    while index < len(words) and frames[index] <= frame + NEAR:
        if words[index] == word:
            near[index] += share
        index += 1


@njit(nogil=True, cache=True)
def _sequence_posteriors(lattice: Lattice, words: np.ndarray, ends: np.ndarray, scale: float) -> np.ndarray:
    children = Dict.empty(int64, int64)
    leaves = np.zeros(len(ends) - 1, np.int64)
    nodes = 1  # 0: nothing said
    for index in range(len(leaves)):
        node = int64(0)
        for place in range(ends[index], ends[index + 1]):
            key = node << 32 | words[place]
            if key not in children:
                children[key] = int64(nodes)
                nodes += 1
            node = children[key]
        leaves[index] = node
    heads, entries = _forward(lattice, scale, children, True)
    logs = np.full(nodes, -math.inf)
    place = heads[-1]
    while place:
        logs[entries[place].label] = entries[place].log
        place = entries[place].next
    return logs[leaves] - _backward(lattice, scale)[0]
