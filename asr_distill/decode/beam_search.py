"""Token passing over HCLG with beam and histogram pruning; on wish it keeps the links of a lattice.

The search of Kaldi's LatticeFasterDecoder (Povey et al., "Generating exact lattices in the WFST framework", ICASSP
2012), compiled by numba: it releases the interpreter lock, so threads search one graph in memory. Frames come all at
once (`search`) or bit by bit: `begin`, `advance` as often as frames come, `finish`; the two do the same, step by step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from asr_distill.decode.links import LINKS, TOKENS, Trellis, add_frame, new_trellis, prune
from asr_distill.decode.passing import (
    BINS,
    cross_frame,
    follow_epsilons,
    frame_cutoff,
    link_epsilons,
    put_link,
    with_links,
)
from asr_distill.decode.tokens import TOKEN, WORD, SearchGraph, Workspace, collect, grown, sentence

PRUNE_INTERVAL = 25  # frames between prunings of the lattice (Kaldi's)
LEAST_SCORE = -1e6  # an impossible pdf (minus infinity): finite, and below every beam
COLLECT = 1 << 20  # words in the history before the first that no token ends with are dropped
FRAME, COUNT, SAID, COLLECT_AT = 0, 1, 2, 3  # places in Going.numbers


class Going(NamedTuple):
    """A search between two frames. Its tokens are in work.tokens[frames heard % 2]."""

    numbers: np.ndarray  # (4,) int64: frames heard, tokens (0: none survived), length of the history, and at which
    # length of it words that no token ends with are dropped
    history: np.ndarray  # WORD
    trellis: Trellis  # empty where no lattice is asked for


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


class SoFar(NamedTuple):
    """The best path of a search that goes on.

    final_cost is how much worse than it the best path is that may end here (final cost included; infinite where none
    may); still is the number of frames of silence that it ends with, where these are counted.
    """

    words: np.ndarray  # (words,) int32
    cost: float
    final_cost: float
    still: int


@njit(nogil=True, cache=True)
def search(graph: SearchGraph, work: Workspace, log_likelihoods: np.ndarray, scale: float, penalty: float,
           beam: float, max_active: int, min_active: int, lattice_beam: float) -> Found:
    """Best path (and, with lattice_beam > 0, all links within that beam of it) for float32 (frames, pdfs)."""
    going = begin(graph, work, len(log_likelihoods), penalty, lattice_beam)
    going = advance(graph, work, going, log_likelihoods, np.zeros(0, np.bool_), scale, penalty, beam, max_active,
                    min_active, lattice_beam)
    return finish(graph, work, going, lattice_beam)


@njit(nogil=True, cache=True)
def begin(graph: SearchGraph, work: Workspace, frames: int, penalty: float, lattice_beam: float) -> Going:
    """A search before its first frame; `frames`: how many will come, or a guess."""
    history = np.empty(1 << 16, WORD)
    trellis = new_trellis(frames if lattice_beam > 0 else 0)
    token = work.tokens[0, 0]
    token.state, token.cost, token.graph_cost, token.history = graph.start, 0.0, 0.0, 0
    work.slots[graph.start] = 0
    work.still[0, 0] = 0
    count, history, said = follow_epsilons(graph, work, 0, 1, math.inf, penalty, history, 1)
    if lattice_beam > 0:
        trellis = link_epsilons(graph, work, 0, count, math.inf, penalty, add_frame(trellis, work.tokens[0], count))
    return Going(np.array([0, count, said, COLLECT]), history, trellis)


@njit(nogil=True, cache=True)
def advance(graph: SearchGraph, work: Workspace, going: Going, log_likelihoods: np.ndarray, quiet: np.ndarray,
            scale: float, penalty: float, beam: float, max_active: int, min_active: int, lattice_beam: float) -> Going:
    """Hear more frames, float32 (frames, pdfs). `quiet` bool (pdfs,): those of silence, or empty (not counted)."""
    numbers, history, trellis = going
    frame, count, said, collect_at = numbers
    scores = np.empty(log_likelihoods.shape[1], np.float32)
    histogram = np.empty(BINS, np.int32)
    for row in range(len(log_likelihoods)):
        if count == 0:
            break
        half = frame % 2
        for pdf in range(len(scores)):
            scores[pdf] = max(np.float32(scale) * log_likelihoods[row, pdf], np.float32(LEAST_SCORE))
        cutoff, next_beam, best = frame_cutoff(work.tokens[half], count, beam, max_active, min_active, histogram)
        count, cutoff, history, said, trellis = cross_frame(
            graph, work, half, count, best, scores, cutoff, next_beam, penalty, history, said, trellis,
            lattice_beam > 0, quiet)
        frame, half = frame + 1, 1 - half
        count, history, said = follow_epsilons(graph, work, half, count, cutoff, penalty, history, said)
        tokens = work.tokens[half]
        if said > collect_at:
            said = collect(history, said, tokens, count)
            collect_at = max(collect_at, 2 * said)
        if lattice_beam > 0 and count > 0:
            trellis = link_epsilons(graph, work, half, count, cutoff, penalty, add_frame(trellis, tokens, count))
            if frame % PRUNE_INTERVAL == 0:
                prune(trellis, lattice_beam, 0.1 * lattice_beam)
    return Going(np.array([frame, count, said, collect_at]), history, trellis)


@njit(nogil=True, cache=True)
def so_far(graph: SearchGraph, work: Workspace, going: Going) -> SoFar:
    """The best path up to the last frame heard, whether it may end there or not."""
    half = going.numbers[FRAME] % 2
    tokens = work.tokens[half]
    best, final = 0, math.inf
    for index in range(going.numbers[COUNT]):
        if tokens[index].cost < tokens[best].cost:
            best = index
        final = min(final, tokens[index].cost + graph.finals[tokens[index].state])
    cost = tokens[best].cost
    return SoFar(sentence(going.history, tokens[best].history), cost, final - cost, work.still[half, best])


@njit(nogil=True, cache=True)
def finish(graph: SearchGraph, work: Workspace, going: Going, lattice_beam: float) -> Found:
    """The best token that may end (or, where none may, the best of all), and the lattice pruned to the end.

    Once for a search that keeps a lattice: its links to the end stay in it.
    """
    tokens, count, trellis = work.tokens[going.numbers[FRAME] % 2], going.numbers[COUNT], going.trellis
    if count == 0:
        return Found(False, False, 0.0, 0.0, np.zeros(0, np.int32), trellis)
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
    return Found(True, reached_final, least, graph_cost, sentence(going.history, tokens[best].history), trellis)


@njit(nogil=True, cache=True)
def _end_links(trellis: Trellis, tokens: np.ndarray, count: int, costs: np.ndarray, least: float,
               lattice_beam: float) -> Trellis:
    """One more frame of one token, the end, with a link from every token that may end there; then prune it all."""
    links, used, after = trellis.links, trellis.sizes[LINKS], trellis.sizes[TOKENS]
    if used + count > len(links):
        links = grown(links, used + count)
    for index in range(count):
        if costs[index] < math.inf:
            put_link(links[used], after - count + index, after, 0, costs[index] - tokens[index].cost, 0.0)
            used += 1
    trellis.sizes[LINKS] = used
    end = np.empty(1, TOKEN)
    end[0].cost = least
    trellis = add_frame(with_links(trellis, links), end, 1)
    prune(trellis, lattice_beam, -1.0)
    return trellis
