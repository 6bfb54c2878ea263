"""Token passing over HCLG with beam and histogram pruning; on wish it keeps the links of a lattice.

The search of Kaldi's LatticeFasterDecoder (Povey et al., "Generating exact lattices in the WFST framework", ICASSP
2012), compiled by numba: it releases the interpreter lock, so threads search one graph in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from asr_distill.decode.links import LINKS, TOKENS, Trellis, add_frame, end_frame, grown, new_trellis, prune
from asr_distill.lang.fst_arrays import FstArrays

ARC = np.dtype([("label", np.int32), ("word", np.int32), ("weight", np.float32), ("target", np.int32)])
TOKEN = np.dtype([("cost", np.float64), ("graph_cost", np.float64), ("state", np.int32), ("history", np.int32)])
WORD = np.dtype([("previous", np.int32), ("word", np.int32)])  # a token's words: a chain of these, 0 is its end
BINS = 1000  # of the histogram of costs that max_active is found by
BEAM_DELTA = 0.5  # how much wider than this frame's the next frame's beam may be where max_active rules (Kaldi's)
PRUNE_INTERVAL = 25  # frames between prunings of the lattice (Kaldi's)
LEAST_SCORE = -1e6  # an impossible pdf (minus infinity): finite, and below every beam


class SearchGraph(NamedTuple):
    """HCLG as the search reads it: arcs of a state together, epsilons first."""

    start: int
    finals: np.ndarray  # (states,) float32
    spans: np.ndarray  # (states + 1, 2) int32: first epsilon arc, first emitting arc
    arcs: np.ndarray  # (arcs,) ARC; label = pdf + 1, 0 for an epsilon


class Workspace(NamedTuple):
    """What one search at a time needs besides the graph; memory is taken only where it is touched."""

    slots: np.ndarray  # (states,) uint32: place of a state's token, valid if that token names the state
    tokens: np.ndarray  # (2, states) TOKEN: those of this frame and of the next
    queue: np.ndarray  # (states,) int32: tokens whose epsilons are to be followed
    queued: np.ndarray  # (states,) bool, by token


def search_graph(fst: FstArrays) -> SearchGraph:
    """Epsilon loops of one state are left out: they lead nowhere."""
    spans = np.empty((fst.num_states + 1, 2), np.int32)
    arcs = np.empty(fst.num_arcs, ARC)
    used = _fill(fst.offsets, fst.ilabels, fst.olabels, fst.weights, fst.nextstates, spans, arcs)
    return SearchGraph(fst.start, fst.finals, spans, arcs[:used])


def new_workspace(graph: SearchGraph) -> Workspace:
    states = len(graph.finals)
    return Workspace(np.zeros(states, np.uint32), np.empty((2, states), TOKEN), np.empty(states, np.int32),
                     np.zeros(states, np.bool_))


@njit(nogil=True, cache=True)
def _fill(offsets, ilabels, olabels, weights, nextstates, spans, arcs):  # type: ignore[no-untyped-def]
    used = 0
    for state in range(len(offsets) - 1):
        for emitting in range(2):
            spans[state, emitting] = used
            for arc in range(offsets[state], offsets[state + 1]):
                if (ilabels[arc] > 0) != (emitting == 1) or (emitting == 0 and nextstates[arc] == state):
                    continue
                arcs[used].label = ilabels[arc]
                arcs[used].word = olabels[arc]
                arcs[used].weight = weights[arc]
                arcs[used].target = nextstates[arc]
                used += 1
    spans[len(offsets) - 1, :] = used
    return used


class Found(NamedTuple):
    """What a search ends with. `trellis` holds the lattice's links where a lattice was asked for."""

    alive: bool
    reached_final: bool
    cost: float
    graph_cost: float
    words: np.ndarray  # (words,) int32
    trellis: Trellis


@njit(nogil=True, cache=True)
def search(graph, work, log_likelihoods, scale, penalty, beam, max_active, min_active, lattice_beam):  # type: ignore
    """Best path (and, with lattice_beam > 0, all links within that beam of it) for float32 (frames, pdfs)."""
    old, new = work.tokens[0], work.tokens[1]
    frames = len(log_likelihoods)
    scores = np.empty(log_likelihoods.shape[1], np.float32)
    histogram = np.empty(BINS, np.int32)
    history, said = np.empty(1 << 16, WORD), 1
    collect_at = 1 << 20
    trellis = new_trellis(frames if lattice_beam > 0 else 0)
    old[0].state, old[0].cost, old[0].graph_cost, old[0].history = graph.start, 0.0, 0.0, 0
    work.slots[graph.start] = 0
    count, history, said = _follow_epsilons(graph, work, old, 1, math.inf, penalty, history, said)
    if lattice_beam > 0:
        trellis = _link_epsilons(graph, work, old, count, math.inf, penalty, add_frame(trellis, old, count))
    for frame in range(frames):
        for pdf in range(len(scores)):
            scores[pdf] = max(np.float32(scale) * log_likelihoods[frame, pdf], np.float32(LEAST_SCORE))
        cutoff, next_beam, best = _cutoff(old, count, beam, max_active, min_active, histogram)
        count, cutoff, history, said, trellis = _advance(
            graph, work.slots, old, count, best, new, scores, cutoff, next_beam, penalty, history, said, trellis,
            lattice_beam > 0)
        if count == 0:
            return Found(False, False, 0.0, 0.0, np.zeros(0, np.int32), trellis)
        old, new = new, old
        count, history, said = _follow_epsilons(graph, work, old, count, cutoff, penalty, history, said)
        if said > collect_at:
            said = _collect(history, said, old, count)
            collect_at = max(collect_at, 2 * said)
        if lattice_beam > 0:
            trellis = _link_epsilons(graph, work, old, count, cutoff, penalty, add_frame(trellis, old, count))
            if (frame + 1) % PRUNE_INTERVAL == 0 and frame + 1 < frames:
                prune(trellis, lattice_beam, 0.1 * lattice_beam)
    return _finish(graph, old, count, history, trellis, lattice_beam)


@njit(nogil=True, cache=True)
def _cutoff(tokens, count, beam, max_active, min_active, histogram):  # type: ignore[no-untyped-def]
    """(cost at which tokens are no longer expanded, the beam for the next frame, place of the best token)."""
    best = 0
    for index in range(count):
        if tokens[index].cost < tokens[best].cost:
            best = index
    least = tokens[best].cost
    if count <= min_active:
        return math.inf, math.inf, best
    histogram[:] = 0
    width = beam / BINS
    for index in range(count):
        place = (tokens[index].cost - least) / width
        if place < BINS:
            histogram[int(place)] += 1
    inside = histogram.sum()
    if inside > max_active:
        seen, bins = histogram[0], 1
        while seen + histogram[bins] <= max_active:
            seen += histogram[bins]
            bins += 1
        return least + bins * width, bins * width + BEAM_DELTA, best
    if inside < min_active:
        costs = np.empty(count, np.float64)
        for index in range(count):
            costs[index] = tokens[index].cost
        cutoff = np.partition(costs, min_active)[min_active]
        return cutoff, cutoff - least + BEAM_DELTA, best
    return least + beam, beam, best


@njit(nogil=True, cache=True)
def _reach(slots, tokens, count, target):  # type: ignore[no-untyped-def]
    """Place of a state's token, a new one of infinite cost if need be."""
    slot = slots[target]
    if slot < count and tokens[slot].state == target:
        return np.int64(slot)
    slots[target] = count
    tokens[count].state = target
    tokens[count].cost = math.inf
    return np.int64(count)


@njit(nogil=True, cache=True)
def _take(token, source, cost, weight, word, history, said):  # type: ignore[no-untyped-def]
    """The token is reached at less cost, from `source`; new length of the history."""
    token.cost = cost
    token.graph_cost = source.graph_cost + weight
    token.history = source.history
    if word:
        history[said].previous, history[said].word = source.history, word
        token.history = said
        return said + 1
    return said


@njit(nogil=True, cache=True)
def _put(link, source, target, word, weight, acoustic_cost):  # type: ignore[no-untyped-def]
    link.source, link.target, link.word = source, target, word
    link.graph_cost, link.acoustic_cost = weight, acoustic_cost


@njit(nogil=True, cache=True)
def _with_links(trellis, links):  # type: ignore[no-untyped-def]
    return Trellis(trellis.sizes, links, trellis.costs, trellis.extras, trellis.frames)


@njit(nogil=True, cache=True)
def _advance(graph, slots, old, count, best, new, scores, cutoff, beam, penalty, history, said,  # type: ignore
             trellis, keep_links):
    """Cross one frame: (tokens reached, their cutoff, history, its length, trellis)."""
    next_cutoff = math.inf
    state = old[best].state
    for place in range(graph.spans[state, 1], graph.spans[state + 1, 0]):  # the best token first: a tight cutoff early
        arc = graph.arcs[place]
        cost = old[best].cost + arc.weight + (penalty if arc.word else 0.0) - scores[arc.label - 1]
        next_cutoff = min(next_cutoff, cost + beam)
    reached = 0
    links, used, after = trellis.links, trellis.sizes[LINKS], trellis.sizes[TOKENS]
    for index in range(count):
        token = old[index]
        if token.cost >= cutoff:
            continue
        first, end = graph.spans[token.state, 1], graph.spans[token.state + 1, 0]
        if said + end - first > len(history):
            history = grown(history, said + end - first)
        if keep_links and used + end - first > len(links):
            links = grown(links, used + end - first)
        for place in range(first, end):
            arc = graph.arcs[place]
            weight = arc.weight + (penalty if arc.word else 0.0)
            score = scores[arc.label - 1]
            cost = token.cost + weight - score
            if cost >= next_cutoff:
                continue
            next_cutoff = min(next_cutoff, cost + beam)
            slot = _reach(slots, new, reached, arc.target)
            reached = max(reached, slot + 1)
            if cost < new[slot].cost:
                said = _take(new[slot], token, cost, weight, arc.word, history, said)
            if keep_links:
                _put(links[used], after - count + index, after + slot, arc.word, weight, -score)
                used += 1
    trellis.sizes[LINKS] = used
    return reached, next_cutoff, history, said, _with_links(trellis, links)


@njit(nogil=True, cache=True)
def _follow_epsilons(graph, work, tokens, count, cutoff, penalty, history, said):  # type: ignore[no-untyped-def]
    """Closure over epsilon arcs: (tokens, history, its length). A token is followed again when it gets cheaper."""
    waiting = 0
    for index in range(count):
        if _opens(graph, tokens[index].state) and tokens[index].cost < cutoff:
            work.queue[waiting] = index
            work.queued[index] = True
            waiting += 1
    while waiting:
        waiting -= 1
        index = work.queue[waiting]
        work.queued[index] = False
        token = tokens[index]
        first, end = graph.spans[token.state, 0], graph.spans[token.state, 1]
        if said + end - first > len(history):
            history = grown(history, said + end - first)
        for place in range(first, end):
            arc = graph.arcs[place]
            weight = arc.weight + (penalty if arc.word else 0.0)
            cost = token.cost + weight
            if cost >= cutoff:
                continue
            slot = _reach(work.slots, tokens, count, arc.target)
            count = max(count, slot + 1)
            if cost < tokens[slot].cost:
                said = _take(tokens[slot], token, cost, weight, arc.word, history, said)
                if _opens(graph, arc.target) and not work.queued[slot]:
                    work.queue[waiting] = slot
                    work.queued[slot] = True
                    waiting += 1
    return count, history, said


@njit(nogil=True, cache=True)
def _opens(graph, state):  # type: ignore[no-untyped-def]
    """Whether epsilon arcs leave it."""
    return graph.spans[state, 0] < graph.spans[state, 1]


@njit(nogil=True, cache=True)
def _link_epsilons(graph, work, tokens, count, cutoff, penalty, trellis):  # type: ignore[no-untyped-def]
    """Links of all epsilon arcs between the newest frame's tokens."""
    links, used = trellis.links, trellis.sizes[LINKS]
    base = trellis.sizes[TOKENS] - count
    for index in range(count):
        token = tokens[index]
        first, end = graph.spans[token.state, 0], graph.spans[token.state, 1]
        if token.cost >= cutoff:
            continue
        if used + end - first > len(links):
            links = grown(links, used + end - first)
        for place in range(first, end):
            arc = graph.arcs[place]
            weight = arc.weight + (penalty if arc.word else 0.0)
            if token.cost + weight < cutoff:
                _put(links[used], base + index, base + work.slots[arc.target], arc.word, weight, 0.0)
                used += 1
    trellis.sizes[LINKS] = used
    end_frame(trellis)
    return _with_links(trellis, links)


@njit(nogil=True, cache=True)
def _collect(history, said, tokens, count):  # type: ignore[no-untyped-def]
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
def _finish(graph, tokens, count, history, trellis, lattice_beam):  # type: ignore[no-untyped-def]
    """The best token that may end (or, where none may, the best of all), and the lattice pruned to the end."""
    reached_final = False
    for index in range(count):
        reached_final |= graph.finals[tokens[index].state] < math.inf
    best, least = 0, math.inf
    costs = np.empty(count, np.float64)
    for index in range(count):
        costs[index] = tokens[index].cost + (graph.finals[tokens[index].state] if reached_final else 0.0)
        if costs[index] < least:
            best, least = index, costs[index]
    words = 0
    place = tokens[best].history
    while place:
        words, place = words + 1, history[place].previous
    sentence = np.empty(words, np.int32)
    place = tokens[best].history
    while place:
        words -= 1
        sentence[words], place = history[place].word, history[place].previous
    if lattice_beam > 0:
        trellis = _end_links(trellis, tokens, count, costs, least, lattice_beam)
    graph_cost = tokens[best].graph_cost + least - tokens[best].cost
    return Found(True, reached_final, least, graph_cost, sentence, trellis)


@njit(nogil=True, cache=True)
def _end_links(trellis, tokens, count, costs, least, lattice_beam):  # type: ignore[no-untyped-def]
    """One more frame of one token, the end, with a link from every token that may end there; then prune it all."""
    links, used, after = trellis.links, trellis.sizes[LINKS], trellis.sizes[TOKENS]
    if used + count > len(links):
        links = grown(links, used + count)
    for index in range(count):
        if costs[index] < math.inf:
            _put(links[used], after - count + index, after, 0, costs[index] - tokens[index].cost, 0.0)
            used += 1
    trellis.sizes[LINKS] = used
    end = np.empty(1, TOKEN)
    end[0].cost = least
    trellis = add_frame(_with_links(trellis, links), end, 1)
    prune(trellis, lattice_beam, -1.0)
    return trellis
