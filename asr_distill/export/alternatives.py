"""The n best texts of a piece of audio, and of pieces one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr_distill.decode.lattice import Lattice, distinct_paths
from asr_distill.decode.posteriors import sequence_posteriors


class Alternative(NamedTuple):
    """A text, its probability given the audio (of all its paths in the lattice), and its best path's cost (scaled)."""

    text: str
    posterior: float
    cost: float


NOTHING = (Alternative("", 1.0, 0.0),)  # where there is nothing to hear


def alternatives(lattice: Lattice, number: int, acoustic_scale: float, words: Sequence[str]) -> list[Alternative]:
    """At most `number` different texts, least cost first; `words` by id."""
    paths = distinct_paths(lattice, number, acoustic_scale)
    logs = sequence_posteriors(lattice, [path.words for path in paths], acoustic_scale)
    return [Alternative(" ".join(words[word] for word in path.words), min(posterior, 1.0),
                        path.graph_cost + acoustic_scale * path.acoustic_cost)
            for path, posterior in zip(paths, np.exp(logs).tolist(), strict=True)]


def joined(before: Sequence[Alternative], after: Sequence[Alternative], number: int) -> list[Alternative]:
    """The `number` best texts of two pieces that know nothing of each other: posteriors multiply, costs add.

    Both lists must have their least cost first. What two pairs spell alike is one text.
    """
    found: dict[str, Alternative] = {}
    for i, first in enumerate(before):
        for second in after[:number // (i + 1)]:  # (i, j) has (i + 1) (j + 1) - 1 pairs that are no worse
            text = f"{first.text} {second.text}".strip()
            known = found.get(text, Alternative(text, 0.0, math.inf))
            found[text] = Alternative(text, min(known.posterior + first.posterior * second.posterior, 1.0),
                                      min(known.cost, first.cost + second.cost))
    return sorted(found.values(), key=lambda alternative: alternative.cost)[:number]
