"""Token passing over HCLG with beam and histogram pruning; on wish it keeps the links of a lattice.

The search of Kaldi's LatticeFasterDecoder (Povey et al., "Generating exact lattices in the WFST framework", ICASSP
2012), compiled by numba: it releases the interpreter lock, so threads search one graph in memory.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from asr_distill.decode.links import LINKS, TOKENS, Trellis, add_frame, end_frame, new_trellis, prune
from asr_distill.decode.tokens import TOKEN, WORD, SearchGraph, Workspace, collect, grown, reach, sentence, take

BINS = 1000  # of the histogram of costs that max_active is found by
BEAM_DELTA = 0.5  # how much wider than this frame's the next frame's beam may be where max_active rules (Kaldi's)
PRUNE_INTERVAL = 25  # frames between prunings of the lattice (Kaldi's)
LEAST_SCORE = -1e6  # an impossible pdf (minus infinity): finite, and below every beam
COLLECT = 1 << 20  # words in the history before the first that no token ends with are dropped


class Found(NamedTuple):
    """What a search ends with; `trellis` holds a lattice's links where a lattice was asked for.

    cost and graph_cost are the best path's, with the insertion penalty and (if reached_final) the final cost.
    """

    alive: bool
    reached_final: bool
    cost: float
    graph_cost: float
    words: np.ndarray  # (words,) int32
    trellis: Trellis


@njit(nogil=True, cache=True)
def search(graph: SearchGraph, work: Workspace, log_likelihoods: np.ndarray, scale: float, penalty: float,
           beam: float, max_active: int, min_active: int, lattice_beam: float) -> Found:
    """Best path (and, with lattice_beam > 0, all links within that beam of it) for float32 (frames, pdfs)."""
    old, new = work.tokens[0], work.tokens[1]
    frames = len(log_likelihoods)
    scores = np.empty(log_likelihoods.shape[1], np.float32)
    histogram = np.empty(BINS, np.int32)
    history, said = np.empty(1 << 16, WORD), 1
    collect_at = COLLECT
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
            said = collect(history, said, old, count)
            collect_at = max(collect_at, 2 * said)
        if lattice_beam > 0:
            trellis = _link_epsilons(graph, work, old, count, cutoff, penalty, add_frame(trellis, old, count))
            if (frame + 1) % PRUNE_INTERVAL == 0 and frame + 1 < frames:
                prune(trellis, lattice_beam, 0.1 * lattice_beam)
    return _finish(graph, old, count, history, trellis, lattice_beam)


@njit(nogil=True, cache=True)
def _cutoff(tokens: np.ndarray, count: int, beam: float, max_active: int, min_active: int,
            histogram: np.ndarray) -> tuple[float, float, int]:
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
def _put(link: Any, source: int, target: int, word: int, weight: float, acoustic_cost: float) -> None:
    link.source, link.target, link.word = source, target, word
    link.graph_cost, link.acoustic_cost = weight, acoustic_cost


@njit(nogil=True, cache=True)
def _with_links(trellis: Trellis, links: np.ndarray) -> Trellis:
    return Trellis(trellis.sizes, links, trellis.costs, trellis.extras, trellis.frames)


@njit(nogil=True, cache=True)
def _advance(graph: SearchGraph, slots: np.ndarray, old: np.ndarray, count: int, best: int, new: np.ndarray,
             scores: np.ndarray, cutoff: float, beam: float, penalty: float, history: np.ndarray, said: int,
             trellis: Trellis, keep_links: bool) -> tuple[int, float, np.ndarray, int, Trellis]:
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
            slot = reach(slots, new, reached, arc.target)
            reached = max(reached, slot + 1)
            if cost < new[slot].cost:
                said = take(new[slot], token, cost, weight, arc.word, history, said)
            if keep_links:
                _put(links[used], after - count + index, after + slot, arc.word, weight, -score)
                used += 1
    trellis.sizes[LINKS] = used
    return reached, next_cutoff, history, said, _with_links(trellis, links)


@njit(nogil=True, cache=True)
def _follow_epsilons(graph: SearchGraph, work: Workspace, tokens: np.ndarray, count: int, cutoff: float,
                     penalty: float, history: np.ndarray, said: int) -> tuple[int, np.ndarray, int]:
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
            slot = reach(work.slots, tokens, count, arc.target)
            count = max(count, slot + 1)
            if cost < tokens[slot].cost:
                said = take(tokens[slot], token, cost, weight, arc.word, history, said)
                if _opens(graph, arc.target) and not work.queued[slot]:
                    work.queue[waiting] = slot
                    work.queued[slot] = True
                    waiting += 1
    return count, history, said


@njit(nogil=True, cache=True)
def _opens(graph: SearchGraph, state: int) -> bool:
    """Whether epsilon arcs leave it."""
    return graph.spans[state, 0] < graph.spans[state, 1]


@njit(nogil=True, cache=True)
def _link_epsilons(graph: SearchGraph, work: Workspace, tokens: np.ndarray, count: int, cutoff: float,
                   penalty: float, trellis: Trellis) -> Trellis:
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
def _finish(graph: SearchGraph, tokens: np.ndarray, count: int, history: np.ndarray, trellis: Trellis,
            lattice_beam: float) -> Found:
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
    if lattice_beam > 0:
        trellis = _end_links(trellis, tokens, count, costs, least, lattice_beam)
    graph_cost = tokens[best].graph_cost + least - tokens[best].cost
    return Found(True, reached_final, least, graph_cost, sentence(history, tokens[best].history), trellis)


@njit(nogil=True, cache=True)
def _end_links(trellis: Trellis, tokens: np.ndarray, count: int, costs: np.ndarray, least: float,
               lattice_beam: float) -> Trellis:
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
