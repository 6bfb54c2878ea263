"""The lattice while it is searched: tokens and links of every frame, pruned backwards from time to time.

A token's extra cost is how much worse than the best path the best path through it is; links and tokens beyond the
lattice beam go (Kaldi's LatticeFasterDecoder::PruneActiveTokens). Arrays stay in the order of frames: links into frame
t stand together, the emitting ones (from frame t - 1) before the epsilons (within t).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from asr_distill.decode.tokens import grown

LINK = np.dtype([("source", np.int32), ("target", np.int32), ("word", np.int32), ("graph_cost", np.float32),
                 ("acoustic_cost", np.float32)])  # source and target: places of tokens; acoustic cost scaled
TOKENS, LINKS, FRAMES = 0, 1, 2  # places in Trellis.sizes
GONE = -1


class Trellis(NamedTuple):
    """Arrays are longer than used: see sizes. Frame 0 stands before the first acoustic frame, the end's behind all."""

    sizes: np.ndarray  # (3,) int64: tokens, links, frames in use
    links: np.ndarray  # LINK
    costs: np.ndarray  # float64, by token: best cost from the start
    extras: np.ndarray  # float64, by token: extra cost; below 0 where not yet known
    frames: np.ndarray  # (frames + 3, 3) int64: first token, first link, first epsilon link


@njit(nogil=True, cache=True)
def new_trellis(frames: int) -> Trellis:
    """For so many acoustic frames at first; it grows."""
    return Trellis(np.zeros(3, np.int64), np.empty(1024, LINK), np.empty(1024, np.float64),
                   np.empty(1024, np.float64), np.zeros((frames + 3, 3), np.int64))


@njit(nogil=True, cache=True)
def add_frame(trellis: Trellis, tokens: np.ndarray, count: int) -> Trellis:
    """Append a frame's tokens; the links that lead to them from the frame before are there already."""
    sizes, costs, extras, frames = trellis.sizes, trellis.costs, trellis.extras, trellis.frames
    first = sizes[TOKENS]
    if sizes[FRAMES] + 2 > len(frames):
        frames = np.concatenate((frames, np.zeros_like(frames)))
    if first + count > len(costs):
        costs, extras = grown(costs, first + count), grown(extras, first + count)
    for index in range(count):
        costs[first + index] = tokens[index].cost
        extras[first + index] = -1.0
    frames[sizes[FRAMES], 0] = first
    frames[sizes[FRAMES], 2] = sizes[LINKS]
    sizes[TOKENS] += count
    sizes[FRAMES] += 1
    grown_trellis = Trellis(sizes, trellis.links, costs, extras, frames)
    end_frame(grown_trellis)
    return grown_trellis


@njit(nogil=True, cache=True)
def end_frame(trellis: Trellis) -> None:
    """Note where the next frame's tokens and links begin."""
    trellis.frames[trellis.sizes[FRAMES], 0] = trellis.sizes[TOKENS]
    trellis.frames[trellis.sizes[FRAMES], 1] = trellis.sizes[LINKS]


@njit(nogil=True, cache=True)
def prune(trellis: Trellis, beam: float, tolerance: float) -> None:
    """Drop what is beyond the beam, given the newest frame's extra costs (below 0: not known, taken as 0).

    Goes back until a frame's extra costs change by no more than `tolerance` (below 0: to the first frame).
    """
    first = trellis.sizes[FRAMES] - 1
    for token in range(trellis.frames[first, 0], trellis.sizes[TOKENS]):
        trellis.extras[token] = max(trellis.extras[token], 0.0)
    _spread_epsilons(trellis, first)
    while first > 0 and _spread(trellis, first - 1) > tolerance:
        first -= 1
    _compact(trellis, first, beam)


@njit(nogil=True, cache=True)
def _worse(trellis: Trellis, link: Any) -> float:
    """Extra cost of the best path through a link."""
    return (trellis.extras[link.target] + trellis.costs[link.source] + link.graph_cost + link.acoustic_cost
            - trellis.costs[link.target])


@njit(nogil=True, cache=True)
def _spread_epsilons(trellis: Trellis, frame: int) -> None:
    """Extra costs along the links within a frame, until they are settled."""
    changed = True
    while changed:
        changed = False
        for place in range(trellis.frames[frame + 1, 1] - 1, trellis.frames[frame, 2] - 1, -1):
            link = trellis.links[place]
            worse = _worse(trellis, link)
            if worse < trellis.extras[link.source] - 1e-6:
                trellis.extras[link.source] = worse
                changed = True


@njit(nogil=True, cache=True)
def _spread(trellis: Trellis, frame: int) -> float:
    """Extra costs of a frame's tokens from the next frame's; the largest change (inf where one was not known)."""
    begin, end = trellis.frames[frame, 0], trellis.frames[frame + 1, 0]
    before = trellis.extras[begin:end].copy()
    trellis.extras[begin:end] = math.inf
    for place in range(trellis.frames[frame + 1, 1], trellis.frames[frame + 1, 2]):
        link = trellis.links[place]
        trellis.extras[link.source] = min(trellis.extras[link.source], _worse(trellis, link))
    _spread_epsilons(trellis, frame)
    change = 0.0
    for index in range(end - begin):
        change = max(change, abs(trellis.extras[begin + index] - before[index]) if before[index] >= 0 else math.inf)
    return change


@njit(nogil=True, cache=True)
def _compact(trellis: Trellis, first: int, beam: float) -> None:
    """Move what stays of frame `first` and all later ones together."""
    sizes, links, frames = trellis.sizes, trellis.links, trellis.frames
    last, first_link, base = sizes[FRAMES] - 1, frames[first, 1], frames[first, 0]
    for place in range(first_link, sizes[LINKS]):
        if not _worse(trellis, links[place]) <= beam:  # also where both sides are infinite
            links[place].target = GONE
    places = np.full(sizes[TOKENS] - base, GONE, np.int64)  # each token's new place
    token, kept = base, base
    for frame in range(first, last + 1):
        end = frames[frame + 1, 0]
        frames[frame, 0] = kept
        while token < end:
            if trellis.extras[token] <= beam:
                trellis.costs[kept], trellis.extras[kept] = trellis.costs[token], trellis.extras[token]
                places[token - base] = kept
                kept += 1
            token += 1
    sizes[TOKENS] = kept
    place, kept = first_link, first_link
    for frame in range(first, last + 1):
        for part in range(2):  # emitting links, then epsilons
            end = frames[frame, 2] if part == 0 else frames[frame + 1, 1]
            frames[frame, 1 + part] = kept
            while place < end:
                link = links[place]
                place += 1
                if link.target == GONE:
                    continue
                source = places[link.source - base] if link.source >= base else link.source
                target = places[link.target - base]
                if source == GONE or target == GONE:
                    continue
                links[kept] = link
                links[kept].source, links[kept].target = source, target
                kept += 1
    sizes[LINKS] = kept
    end_frame(trellis)
