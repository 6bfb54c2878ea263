"""Expansion of triphones to HMM states and determinization of the result, in one (Mohri 1997; log semiring).

Triphones that begin alike share those states: a state of the result is a set of places reached by the same state
labels, each with the cost and the words that are still owed on the way there. Most sets hold one place and owe
nothing; those are found again by their place alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import int64, njit
from numba.typed import Dict

from asr_distill.decode.expand import Chain, linked
from asr_distill.decode.minimize import mixed
from asr_distill.decode.tokens import ARC, grown
from asr_distill.lang.fst_arrays import FstArrays

# code: tail * (states + 1) + state: what remains of a chain, and the graph's state it leads to (tail 0: is in).
PLACE = np.dtype([("label", np.int32), ("words", np.int32), ("code", np.int64), ("cost", np.float64)])
STEPS = 1024  # costs owed are taken as equal where they are equal in 1/1024 (Kaldi's kDelta)


def expand_determinized(graph: FstArrays, chains: Sequence[Chain]) -> FstArrays:
    """Each arc becomes the chain of state labels that `chains` has for its input label, and no state has two arcs of
    one label. Words move to where they are certain; epsilons (empty chains) count as a label.
    """
    first, after, heads, rest = linked(chains)
    finals, offsets, arcs = _determinize(graph.start, graph.finals, graph.offsets, graph.ilabels, graph.olabels,
                                         graph.weights, graph.nextstates, first, after, heads, rest)
    return FstArrays(0, finals, offsets, *(np.ascontiguousarray(arcs[name])
                                           for name in ("label", "word", "weight", "target")))


class Sets(NamedTuple):
    """Sets of places, found again by their content (open addressing); a set's number is the new state's."""

    places: np.ndarray  # PLACE, set after set; `label` is not part of them
    begins: np.ndarray  # (sets + 1,) int64
    hashes: np.ndarray  # (sets,) uint64
    table: np.ndarray  # int32: sets by hash, -1 for none; at most half full
    number: int


@njit(nogil=True, cache=True)
def _determinize(start: int, finals: np.ndarray, offsets: np.ndarray, ilabels: np.ndarray, olabels: np.ndarray,
                 weights: np.ndarray, nextstates: np.ndarray, first: np.ndarray, after: np.ndarray, heads: np.ndarray,
                 rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(finals, offsets, arcs). State `states`, one more than the graph has, is the end where words are still owed."""
    states = len(finals)
    base = states + 1
    words = Dict.empty(int64, int64)  # rest << 32 | word -> a sequence of words
    firsts, rests = [0], [0]  # of sequences; 0 is the empty one
    onward = np.empty(1024, PLACE)
    onward[0].code, onward[0].cost, onward[0].words = start, 0.0, 0
    sets, _ = _find(Sets(np.empty(1024, PLACE), np.zeros(1024, np.int64), np.empty(1024, np.uint64),
                         np.full(4096, -1, np.int32), 0), onward, 0, 1)
    new_finals, new_offsets = np.empty(1024, np.float32), np.zeros(1024, np.int64)
    arcs, used, done = np.empty(1024, ARC), 0, 0
    while done < sets.number:
        number, final = 0, math.inf
        for index in range(sets.begins[done], sets.begins[done + 1]):
            code, cost, owed = sets.places[index].code, sets.places[index].cost, sets.places[index].words
            tail, state = code // base, code % base
            leaving = 1 if tail or state == states else offsets[state + 1] - offsets[state] + 1
            if number + leaving > len(onward):
                onward = grown(onward, number + leaving)
            if tail:
                number = _put(onward, number, heads[tail], rest[tail] * base + state, cost, owed)
                continue
            end_cost = cost + (finals[state] if state < states else 0.0)
            if end_cost < math.inf and owed:
                # One epsilon for each first word owed: labels below 0 keep them apart.
                number = _put(onward, number, -firsts[owed], states, end_cost, owed)
            elif end_cost < math.inf:
                final = _log_add(final, end_cost)
            for arc in range(offsets[state], offsets[state + 1]) if state < states else range(0):
                owing = _appended(words, firsts, rests, owed, olabels[arc]) if olabels[arc] else owed
                number = _put(onward, number, first[ilabels[arc]], after[ilabels[arc]] * base + nextstates[arc],
                              cost + weights[arc], owing)
        if done + 2 > len(new_offsets):
            new_offsets, new_finals = grown(new_offsets, done + 2), grown(new_finals, done + 2)
        if used + number > len(arcs):
            arcs = grown(arcs, used + number)
        _sort(onward, number)
        begin = 0
        while begin < number:
            end, kept, cost, word = _joined(onward, begin, number, firsts, rests)
            sets, target = _find(sets, onward, begin, kept)
            arcs[used].label, arcs[used].word = max(onward[begin].label, 0), word
            arcs[used].weight, arcs[used].target = cost, target
            used, begin = used + 1, end
        new_finals[done] = final
        done += 1
        new_offsets[done] = used
    return new_finals[:done], new_offsets[:done + 1], arcs[:used]


@njit(nogil=True, cache=True)
def _put(onward: np.ndarray, number: int, label: int, code: int, cost: float, words: int) -> int:
    onward[number].label, onward[number].words = label, words
    onward[number].code, onward[number].cost = code, cost
    return number + 1


@njit(nogil=True, cache=True)
def _log_add(a: float, b: float) -> float:
    """-log(exp(-a) + exp(-b))."""
    least, most = min(a, b), max(a, b)
    return least - math.log1p(math.exp(least - most)) if most < math.inf else least


@njit(nogil=True, cache=True)
def _appended(words: dict[int, int], firsts: list[int], rests: list[int], owed: int, word: int) -> int:
    """The sequence `owed` with one more word at its end."""
    heads = [np.int64(0) for _ in range(0)]
    while owed:
        heads.append(np.int64(firsts[owed]))
        owed = rests[owed]
    heads.append(np.int64(word))
    sequence = np.int64(0)
    while len(heads):
        head = heads.pop()
        key = sequence << 32 | head
        if key not in words:
            words[key] = len(firsts)
            firsts.append(head)
            rests.append(sequence)
        sequence = words[key]
    return sequence


@njit(nogil=True, cache=True)
def _before(a: Any, b: Any) -> bool:
    if a.label != b.label:
        return a.label < b.label
    return a.code < b.code if a.code != b.code else a.words < b.words


@njit(nogil=True, cache=True)
def _sort(onward: np.ndarray, number: int) -> None:
    """By label, then by place: those of many arcs by label first, the rest by insertion."""
    if number > 40:
        onward[:number] = onward[:number][np.argsort(onward[:number]["label"], kind="mergesort")]
    item = np.empty(1, PLACE)
    for index in range(1, number):
        if not _before(onward[index], onward[index - 1]):
            continue
        item[0] = onward[index]
        while index and _before(item[0], onward[index - 1]):
            onward[index] = onward[index - 1]
            index -= 1
        onward[index] = item[0]


@njit(nogil=True, cache=True)
def _joined(onward: np.ndarray, begin: int, number: int, firsts: list[int], rests: list[int],
            ) -> tuple[int, int, float, int]:
    """The places of one label, equal ones added up, what they have in common taken off: (where the label ends,
    how many places, their common cost, their common first word or 0).
    """
    label, end, kept = onward[begin].label, begin, 0
    total = math.inf
    word = np.int64(firsts[onward[begin].words])
    while end < number and onward[end].label == label:
        total = _log_add(total, onward[end].cost)
        last = begin + kept - 1
        if kept and onward[last].code == onward[end].code and onward[last].words == onward[end].words:
            onward[last].cost = _log_add(onward[last].cost, onward[end].cost)
        else:
            onward[begin + kept] = onward[end]
            kept += 1
            if firsts[onward[end].words] != word:
                word = np.int64(0)
        end += 1
    for place in range(begin, begin + kept):
        onward[place].cost = onward[place].cost - total if kept > 1 else 0.0
        if word:
            onward[place].words = rests[onward[place].words]
    return end, kept, total, word


@njit(nogil=True, cache=True)
def _find(sets: Sets, onward: np.ndarray, begin: int, number: int) -> tuple[Sets, int]:
    """The number of the set of these places, a new one where there is none yet."""
    value = np.uint64(number)
    for index in range(begin, begin + number):
        owed = np.uint64(np.int64(math.floor(onward[index].cost * STEPS + 0.5)))
        value = mixed(value ^ mixed(np.uint64(onward[index].code) ^ mixed(owed << np.uint64(24)
                                                                          ^ np.uint64(onward[index].words))))
    mask = np.uint64(len(sets.table) - 1)
    slot = value & mask
    while sets.table[slot] >= 0:
        known = sets.table[slot]
        if sets.hashes[known] == value:
            return sets, np.int64(known)
        slot = (slot + np.uint64(1)) & mask
    places, begins, hashes, table, count = sets
    first = begins[count]
    if first + number > len(places):
        places = grown(places, first + number)
    if count + 2 > len(begins):
        begins, hashes = grown(begins, count + 2), grown(hashes, count + 2)
    places[first:first + number] = onward[begin:begin + number]
    begins[count + 1], hashes[count], table[slot] = first + number, value, count
    if 2 * (count + 1) > len(table):
        table = _rehashed(hashes, count + 1, 2 * len(table))
    return Sets(places, begins, hashes, table, count + 1), np.int64(count)


@njit(nogil=True, cache=True)
def _rehashed(hashes: np.ndarray, count: int, size: int) -> np.ndarray:
    table = np.full(size, -1, np.int32)
    mask = np.uint64(size - 1)
    for number in range(count):
        slot = hashes[number] & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = number
    return table
