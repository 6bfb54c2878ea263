"""Tokens passed over one frame and its epsilons: the inner loops of the beam search, compiled by numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from asr_distill.decode.links import LINKS, TOKENS, Trellis, end_frame
from asr_distill.decode.tokens import SearchGraph, Workspace, grown, reach, take

BINS = 1000  # of the histogram of costs that max_active is found by
BEAM_DELTA = 0.5  # how much wider than this frame's the next frame's beam may be where max_active rules (Kaldi's)


@njit(nogil=True, cache=True)
def frame_cutoff(tokens: np.ndarray, count: int, beam: float, max_active: int, min_active: int,
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
def put_link(link: Any, source: int, target: int, word: int, weight: float, acoustic_cost: float) -> None:
    link.source, link.target, link.word = source, target, word
    link.graph_cost, link.acoustic_cost = weight, acoustic_cost


@njit(nogil=True, cache=True)
def with_links(trellis: Trellis, links: np.ndarray) -> Trellis:
    return Trellis(trellis.sizes, links, trellis.costs, trellis.extras, trellis.frames)


@njit(nogil=True, cache=True)
def cross_frame(graph: SearchGraph, work: Workspace, half: int, count: int, best: int, scores: np.ndarray,
                cutoff: float, beam: float, penalty: float, history: np.ndarray, said: int, trellis: Trellis,
                keep_links: bool, quiet: np.ndarray) -> tuple[int, float, np.ndarray, int, Trellis]:
    """Cross one frame: (tokens reached, their cutoff, history, its length, trellis).

    The `count` tokens are in work.tokens[half], those reached come into the other half; quiet bool (pdfs,): the pdfs
    of silence, where it is to be counted (else empty).
    """
    slots, old, new, still = work.slots, work.tokens[half], work.tokens[1 - half], work.still
    counts_silence = len(quiet) > 0
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
                if counts_silence:
                    still[1 - half, slot] = still[half, index] + 1 if quiet[arc.label - 1] else 0
            if keep_links:
                put_link(links[used], after - count + index, after + slot, arc.word, weight, -score)
                used += 1
    trellis.sizes[LINKS] = used
    return reached, next_cutoff, history, said, with_links(trellis, links)


@njit(nogil=True, cache=True)
def follow_epsilons(graph: SearchGraph, work: Workspace, half: int, count: int, cutoff: float, penalty: float,
                    history: np.ndarray, said: int) -> tuple[int, np.ndarray, int]:
    """Closure over epsilon arcs of the tokens in work.tokens[half]: (tokens, history, its length).

    A token is followed again when it gets cheaper.
    """
    tokens, still = work.tokens[half], work.still[half]
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
                still[slot] = still[index]
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
def link_epsilons(graph: SearchGraph, work: Workspace, half: int, count: int, cutoff: float, penalty: float,
                  trellis: Trellis) -> Trellis:
    """Links of all epsilon arcs between the newest frame's tokens, which are in work.tokens[half]."""
    tokens = work.tokens[half]
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
                put_link(links[used], base + index, base + work.slots[arc.target], arc.word, weight, 0.0)
                used += 1
    trellis.sizes[LINKS] = used
    end_frame(trellis)
    return with_links(trellis, links)
