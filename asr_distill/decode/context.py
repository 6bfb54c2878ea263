"""Phones into triphones: the C of HCLG (Kaldi's fstcomposecontext with width 3 and centre 1).

A state of the result is a state of the graph with the last two phones read; a triphone is written when its right
neighbour is read, so every phone comes out one arc late, and the last one before the end.
"""

from __future__ import annotations

import math

import numpy as np
from numba import int64, njit
from numba.typed import Dict

from asr_distill.decode.tokens import ARC, grown
from asr_distill.lang.fst_arrays import FstArrays

END = -1  # key of the one final state that all last phones lead to


def with_context(graph: FstArrays, phones: int, symbols: int) -> tuple[FstArrays, np.ndarray]:
    """(graph over triphones, windows int32 (windows, 3) of left neighbour, phone, right neighbour; 0: none).

    Labels of `graph` are phone ids 1 .. phones, and above these as many disambiguation symbols. In the result label
    k <= symbols stands for symbol phones + k, higher ones for windows[k - symbols - 1], 0 for an epsilon.
    """
    finals, offsets, arcs, windows = _compose(graph.start, graph.finals, graph.offsets, graph.ilabels, graph.olabels,
                                              graph.weights, graph.nextstates, phones, symbols)
    fst = FstArrays(0, finals, offsets, *(np.ascontiguousarray(arcs[name])
                                          for name in ("label", "word", "weight", "target")))
    base = phones + 1
    return fst, np.stack([windows // base**2, windows // base % base, windows % base], 1).astype(np.int32)


@njit(nogil=True, cache=True)
def _compose(start: int, finals: np.ndarray, offsets: np.ndarray, ilabels: np.ndarray, olabels: np.ndarray,
             weights: np.ndarray, nextstates: np.ndarray, phones: int, symbols: int,
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(finals, offsets, arcs, windows as numbers to the base phones + 1)."""
    base = phones + 1
    places = Dict.empty(int64, int64)  # (state * base + left) * base + phone -> new state
    labels = Dict.empty(int64, int64)  # window -> label
    keys, new_finals, new_offsets = np.empty(1024, np.int64), np.empty(1024, np.float32), np.zeros(1024, np.int64)
    arcs, used = np.empty(1024, ARC), 0
    keys[0], places[start * base * base], count, done = start * base * base, 0, 1, 0
    while done < count:
        key = keys[done]
        state, left, phone = key // base // base, key // base % base, key % base
        leaving = offsets[state + 1] - offsets[state] + 1 if key != END else 0
        if used + leaving > len(arcs):
            arcs = grown(arcs, used + leaving)
        if count + leaving > len(keys):
            keys = grown(keys, count + leaving)
        if done + 2 > len(new_offsets):
            new_offsets, new_finals = grown(new_offsets, done + 2), grown(new_finals, done + 2)
        new_finals[done] = 0.0 if key == END else finals[state] if phone == 0 else math.inf
        first = offsets[state] if key != END else 0
        for place in range(leaving):
            window, target = 0, key
            if place == leaving - 1:  # the end
                if finals[state] == math.inf or phone == 0:
                    continue
                window, target = (left * base + phone) * base, END
                label, word, weight = 0, 0, finals[state]
            else:
                label, word, weight = ilabels[first + place], olabels[first + place], weights[first + place]
                target = (nextstates[first + place] * base + left) * base + phone
                if 0 < label <= phones:
                    window = ((left * base + phone) * base + label) if phone else 0
                    target = (nextstates[first + place] * base + phone) * base + label
            if window:
                if window not in labels:
                    labels[window] = symbols + 1 + len(labels)
                label = labels[window]
            else:
                label = label - phones if label > phones else 0
            if target not in places:
                places[target] = count
                keys[count] = target
                count += 1
            arcs[used].label, arcs[used].word, arcs[used].weight = label, word, weight
            arcs[used].target = places[target]
            used += 1
        done += 1
        new_offsets[done] = used
    windows = np.empty(len(labels), np.int64)
    for window, label in labels.items():
        windows[label - symbols - 1] = window
    return new_finals[:count], new_offsets[:count + 1], arcs[:used], windows
