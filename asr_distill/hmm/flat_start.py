"""The first alignment of a flat start: every state of one path has an equal share of the frames."""

from __future__ import annotations

import numpy as np

from asr_distill.hmm.graph import UtteranceGraph


def equal_alignment(graph: UtteranceGraph, frames: int) -> np.ndarray:
    """State of each frame, int64 (frames,) (Kaldi's align-equal); for monophone graphs.

    The path has each word's first pronunciation, and silence at both ends only: there it most likely is, so that
    the silence model begins from real silence. Where the frames are too few for that: shortest pronunciations,
    no silence. Raises ValueError where even those do not fit (`graph.shortest() > frames`).
    """
    pieces = _pieces(graph)
    words = [piece for piece in pieces if graph.word[piece[0]] >= 0]
    silences = [piece for piece in pieces if graph.word[piece[0]] < 0]
    first = {int(graph.word[piece[0]]): piece for piece in reversed(words)}
    path = np.concatenate([*silences[:1], *(first[word] for word in sorted(first)), *silences[1:][-1:]])
    if len(path) > frames:
        shortest = {int(graph.word[piece[0]]): piece for piece in sorted(words, key=len, reverse=True)}
        path = np.concatenate([shortest[word] for word in sorted(shortest)] or silences[:1])
    if len(path) > frames:
        raise ValueError(f"{frames} frames are too few for {len(path)} states")
    return path[np.arange(frames) * len(path) // frames]


def _pieces(graph: UtteranceGraph) -> list[np.ndarray]:
    """The states of every pronunciation and every silence, in the graph's order."""
    new_word = 1 + np.flatnonzero(np.diff(graph.word))
    return [piece for piece in np.split(np.arange(len(graph)), np.union1d(graph.entries, new_word)) if len(piece)]
