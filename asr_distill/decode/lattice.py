"""n-best word sequences with their graph and acoustic costs apart, from Kaldi's lattice-generating search.

Costs apart can be weighed anew: one search serves a whole grid of acoustic scales and insertion penalties.
kaldi_decoder's LatticeSimpleDecoder has neither max_active nor min_active: with a weak model on a 60,000-word graph it
loses every path at beam 9 and takes 20 times FasterDecoder's time at beam 13. It suits small graphs and good models;
`tune` therefore decodes.
"""

from __future__ import annotations

import heapq
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr_distill.decode.decoder import Decoder, scaled_decodable
from asr_distill.errors import UserError
from asr_distill.kaldi import kaldi_decoder, kaldifst


@dataclass(frozen=True)
class LatticeConfig:
    """beam: of the search; lattice_beam: how much worse than the best a lattice's path may be; paths: n of n-best."""

    beam: float = 9.0
    lattice_beam: float = 6.0
    paths: int = 100

    def __post_init__(self) -> None:
        if self.beam <= 0 or self.lattice_beam <= 0 or self.paths < 1:
            raise ValueError(f"beam, lattice_beam and paths must be above 0, not {self}")


class Path(NamedTuple):
    """One word sequence: the costs are those of its best path at the scale of the search."""

    words: tuple[str, ...]
    graph_cost: float  # with the insertion penalty of the search
    acoustic_cost: float  # unscaled


def nbest(decoder: Decoder, log_likelihoods: np.ndarray, config: LatticeConfig) -> list[Path]:
    """Up to `config.paths` distinct word sequences, best first, for log-likelihoods (frames, pdfs).

    None where the beam lost every path. Where no path reached the graph's end, those of partial paths.
    """
    scale = decoder.config.acoustic_scale
    decodable = scaled_decodable(log_likelihoods, scale, decoder.num_pdfs, "")
    options = kaldi_decoder.LatticeSimpleDecoderConfig(beam=config.beam, lattice_beam=config.lattice_beam)
    search = kaldi_decoder.LatticeSimpleDecoder(decoder.fst, options)
    if not search.decode(decodable):
        return []
    found, lattice = search.get_raw_lattice()
    if not found:
        return []
    return [Path(tuple(decoder.words[label] for label in labels), graph, acoustic / scale)
            for labels, graph, acoustic in distinct_paths(lattice, config.paths)]


def rescore(paths: Sequence[Path], acoustic_scale: float, extra_penalty: float = 0.0) -> Path:
    """The best path at another acoustic scale, with `extra_penalty` more for every word."""
    return min(paths, key=lambda path: path.graph_cost + acoustic_scale * path.acoustic_cost
               + extra_penalty * len(path.words))


def distinct_paths(lattice: kaldifst.Lattice, number: int) -> list[tuple[tuple[int, ...], float, float]]:
    """The `number` cheapest output-label sequences of an acyclic lattice, as (labels, graph cost, acoustic cost).

    A* with the exact cost to the end: nodes are (state, labels so far), so that a label sequence is found once, by its
    best path, though a lattice holds it in thousands of time alignments.
    """
    arcs, finals = _read(lattice)
    to_end = _costs_to_end(arcs, finals)
    if not to_end or to_end[lattice.start] == math.inf:
        return []
    end = len(arcs)  # the state behind the final weights
    # (cost so far + cost to the end, state, labels so far, graph cost and acoustic cost so far)
    queue: list[tuple[float, int, tuple[int, ...], float, float]]
    queue = [(to_end[lattice.start], lattice.start, (), 0.0, 0.0)]
    seen: set[tuple[int, tuple[int, ...]]] = set()
    found: list[tuple[tuple[int, ...], float, float]] = []
    while queue and len(found) < number:
        _, state, labels, graph, acoustic = heapq.heappop(queue)
        if (state, labels) in seen:
            continue
        seen.add((state, labels))
        if state == end:
            found.append((labels, graph, acoustic))
            continue
        steps = [(0, *finals[state], end)] if state in finals else []
        for label, graph_step, acoustic_step, target in arcs[state] + steps:
            heard = (*labels, label) if label else labels
            if (to_end[target] < math.inf) and (target, heard) not in seen:
                costs = graph + graph_step, acoustic + acoustic_step
                heapq.heappush(queue, (sum(costs) + to_end[target], target, heard, *costs))
    return found


Arc = tuple[int, float, float, int]  # output label, graph cost, acoustic cost, next state
HEADER_BYTES = 66  # of OpenFst's vector format with arcs "lattice4"


def _read(lattice: kaldifst.Lattice) -> tuple[list[list[Arc]], dict[int, tuple[float, float]]]:
    """Arcs of every state, and the final costs of the final ones.

    Through a file: kaldifst has no arc iterator for lattices and prints six digits. Per state: two float32 final
    costs, int64 number of arcs; per arc: int32 input and output label, two float32 costs, int32 next state.
    """
    with tempfile.NamedTemporaryFile() as file:
        if not lattice.write(file.name):
            raise UserError(f"{file.name}: cannot write a lattice there (is the disk full?)")
        integers = np.fromfile(file.name, "<i4", offset=HEADER_BYTES)
    floats = integers.view("<f4").tolist()
    words = integers.tolist()
    arcs: list[list[Arc]] = []
    finals = {}
    place = 0
    for state in range(lattice.num_states):
        if floats[place] < math.inf:
            finals[state] = (floats[place], floats[place + 1])
        first, place = place + 4, place + 4 + 5 * words[place + 2]
        arcs.append([(words[arc + 1], floats[arc + 2], floats[arc + 3], words[arc + 4])
                     for arc in range(first, place, 5)])
    return arcs, finals


def _costs_to_end(arcs: list[list[Arc]], finals: dict[int, tuple[float, float]]) -> list[float]:
    """Cheapest cost from every state to the end; one more entry, 0, for the end itself."""
    incoming = Counter(target for outgoing in arcs for *_, target in outgoing)
    order = [state for state in range(len(arcs)) if not incoming[state]]
    for state in order:  # grows as it is read: a topological order
        for *_, target in arcs[state]:
            incoming[target] -= 1
            if not incoming[target]:
                order.append(target)
    costs = [math.inf] * len(arcs) + [0.0]
    for state in reversed(order):
        onward = [graph + acoustic + costs[target] for _, graph, acoustic, target in arcs[state]]
        costs[state] = min([sum(finals[state]) if state in finals else math.inf, *onward])
    return costs
