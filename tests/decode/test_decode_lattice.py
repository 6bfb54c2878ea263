"""n-best word sequences against an enumeration of every path."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from decode_toy import LEXICON, toy_corpus, toy_graph, viterbi

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.lattice import LatticeConfig, distinct_paths, nbest, rescore
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays

WIDE = LatticeConfig(beam=100.0, lattice_beam=30.0, paths=50)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def random_lattice(random: np.random.Generator, states: int = 9) -> tuple[kaldifst.Lattice, list]:
    """An acyclic lattice with many paths of equal labels, states in mixed order, and its arcs."""
    lattice = kaldifst.Lattice()
    names = random.permutation(states).tolist()
    for _ in range(states):
        lattice.add_state()
    lattice.start = names[0]
    arcs = []
    for source in range(states - 1):
        for target in random.integers(source + 1, states, size=3).tolist():
            label, graph, acoustic = int(random.integers(0, 3)), *np.float32(random.normal(1, 1, 2)).tolist()
            arcs.append((names[source], label, graph, acoustic, names[target]))
            lattice.add_arc(names[source], kaldifst.LatticeArc(5, label, kaldifst.LatticeWeight(graph, acoustic),
                                                               names[target]))
    lattice.set_final(names[-1], kaldifst.LatticeWeight(0.5, 0.25))
    lattice.set_final(names[-2], kaldifst.LatticeWeight(1.5, 0.0))
    return lattice, [arcs, {names[-1]: (0.5, 0.25), names[-2]: (1.5, 0.0)}, names[0]]


def enumerate_paths(arcs: list, finals: dict, state: int) -> list[tuple[tuple[int, ...], float, float]]:
    paths = [((), *finals[state])] if state in finals else []
    for source, label, graph, acoustic, target in arcs:
        if source == state:
            paths += [((label, *labels) if label else labels, graph + g, acoustic + a)
                      for labels, g, a in enumerate_paths(arcs, finals, target)]
    return paths


@pytest.mark.parametrize("seed", range(5))
def test_distinct_paths_equal_the_enumeration(seed: int) -> None:
    lattice, parts = random_lattice(np.random.default_rng(seed))
    best: dict[tuple[int, ...], tuple[float, float, float]] = {}
    for labels, graph, acoustic in enumerate_paths(*parts):
        best[labels] = min(best.get(labels, (math.inf, 0, 0)), (graph + acoustic, graph, acoustic))
    expected = sorted(best.items(), key=lambda item: item[1])
    found = distinct_paths(lattice, 12)
    assert [labels for labels, *_ in found] == [labels for labels, _ in expected[:12]]
    for (_, graph, acoustic), (_, costs) in zip(found, expected, strict=False):
        assert (graph, acoustic) == (pytest.approx(costs[1], abs=1e-5), pytest.approx(costs[2], abs=1e-5))
    assert len(distinct_paths(lattice, 10_000)) == len(best)


def test_first_is_the_best_path_and_all_differ(graph: Path) -> None:
    store, _ = toy_corpus(3, noise=12.0)
    decoder = Decoder(graph, SearchConfig())
    for matrix in store.matrices:
        paths = nbest(decoder, matrix, WIDE)
        cost, words = viterbi(FstArrays.read(graph / "HCLG.fst"), matrix, 0.1, 0.0)
        assert paths[0].words == words
        costs = [path.graph_cost + 0.1 * path.acoustic_cost for path in paths]
        assert costs[0] == pytest.approx(cost, abs=1e-2)
        assert costs == sorted(costs)
        assert len({path.words for path in paths}) == len(paths) > 3
        assert all(word in LEXICON for path in paths for word in path.words)


def test_rescoring_finds_what_decoding_there_finds(graph: Path) -> None:
    store, _ = toy_corpus(8, noise=14.0)
    decoder = Decoder(graph, SearchConfig())
    other = Decoder(graph, SearchConfig(beam=100.0, acoustic_scale=0.12, insertion_penalty=1.5))
    for matrix in store.matrices:
        assert rescore(nbest(decoder, matrix, WIDE), 0.12, 1.5).words == other.decode(matrix).words


def test_a_lost_search_gives_nothing(graph: Path) -> None:
    store, _ = toy_corpus(1, noise=40.0)
    decoder = Decoder(graph, SearchConfig(acoustic_scale=1.0))
    assert nbest(decoder, store.matrices[0], LatticeConfig(beam=0.01, lattice_beam=0.01)) == []
