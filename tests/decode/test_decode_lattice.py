"""Lattices and their n best against an enumeration of every path, and against other searches."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from decode_toy import LEXICON, NUM_PDFS, WORDS, random_graph, toy_corpus, toy_graph, viterbi

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.lattice import Lattice, distinct_paths, make_lattice
from asr_distill.decode.score import error_counts
from asr_distill.lang.fst_arrays import FstArrays

WIDE = SearchConfig(beam=100.0, max_active=100_000, lattice_beam=30.0, nbest=50)
Costs = dict[tuple[int, ...], tuple[float, float, float]]  # words -> total, graph and acoustic cost of its best path


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def random_lattice(random: np.random.Generator, states: int = 9) -> tuple[Lattice, list]:
    """An acyclic lattice with many paths of equal words, states in mixed order, and its arcs."""
    names = [0, *random.permutation(np.arange(1, states - 1)).tolist(), states - 1]
    arcs = []
    for source in range(states - 1):
        for target in [source + 1, *random.integers(source + 1, states, size=3).tolist()]:
            arcs.append((names[source], names[target], int(random.integers(0, 3)),
                         *np.float32(random.normal(1, 1, 2)).tolist()))
    columns = [np.array(column, kind) for column, kind in
               zip(zip(*arcs, strict=True), ("i4", "i4", "i4", "f4", "f4"), strict=True)]
    return make_lattice(states, *columns), arcs


def enumerate_paths(arcs: list, state: int, end: int) -> list[tuple[tuple[int, ...], float, float]]:
    if state == end:
        return [((), 0.0, 0.0)]
    return [((word, *words) if word else words, graph + g, acoustic + a)
            for source, target, word, graph, acoustic in arcs if source == state
            for words, g, a in enumerate_paths(arcs, target, end)]


@pytest.mark.parametrize("seed", range(5))
def test_distinct_paths_equal_the_enumeration(seed: int) -> None:
    lattice, arcs = random_lattice(np.random.default_rng(seed))
    best: Costs = {}
    for words, graph, acoustic in enumerate_paths(arcs, 0, 8):
        best[words] = min(best.get(words, (math.inf, 0, 0)), (graph + 0.5 * acoustic, graph, acoustic))
    expected = sorted(best.items(), key=lambda item: item[1])
    found = distinct_paths(lattice, 12, 0.5)
    assert [path.words for path in found] == [words for words, _ in expected[:12]]
    for path, (_, costs) in zip(found, expected, strict=False):
        assert path[1:] == (pytest.approx(costs[1], abs=1e-5), pytest.approx(costs[2], abs=1e-5))
    assert len(distinct_paths(lattice, 10_000, 0.5)) == len(best)


def graph_paths(fst: FstArrays, matrix: np.ndarray, scale: float, penalty: float) -> Costs:
    """Every word sequence of every path that reads the whole matrix, by depth-first enumeration."""
    best: Costs = {}

    def follow(state: int, frame: int, words: tuple[int, ...], graph: float, acoustic: float) -> None:
        if frame == len(matrix) and fst.finals[state] < np.inf:
            ending = graph + float(fst.finals[state])
            total = (ending + scale * acoustic, ending, acoustic)
            best[words] = min(best.get(words, (math.inf, 0, 0)), total)
        for arc in range(fst.offsets[state], fst.offsets[state + 1]):
            label, word = int(fst.ilabels[arc]), int(fst.olabels[arc])
            if label and frame == len(matrix):
                continue
            follow(int(fst.nextstates[arc]), frame + (label > 0), (*words, word) if word else words,
                   graph + float(fst.weights[arc]) + (penalty if word else 0.0),
                   acoustic - (float(matrix[frame, label - 1]) if label else 0.0))

    follow(fst.start, 0, (), 0.0, 0.0)
    return best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_nbest_of_random_graphs_equals_the_enumeration(tmp_path: Path, seed: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    fst = random_graph(random, tmp_path)
    matrix = random.normal(0, 3, (5, 4)).astype(np.float32)
    config = SearchConfig(beam=1000.0, max_active=100_000, acoustic_scale=0.4, insertion_penalty=penalty,
                          lattice_beam=4.0, nbest=100_000)
    expected = {tuple(" ab"[word] for word in words): costs
                for words, costs in graph_paths(fst, matrix, 0.4, penalty).items()}
    least = min(costs[0] for costs in expected.values())
    hypothesis, paths = Decoder(tmp_path, config).decode_nbest(matrix)
    found = {path.words: path for path in paths}
    totals = [path.graph_cost + 0.4 * path.acoustic_cost for path in paths]
    assert len(found) == len(paths) and totals == sorted(totals)
    # A lattice may hold worse paths too, made of links that are each part of a good one.
    inside = {words: costs for words, costs in expected.items() if costs[0] < least + 4.0 - 1e-4}
    assert inside.keys() <= found.keys() <= expected.keys()
    for words, (total, graph, acoustic) in inside.items():
        path = found[words]
        assert path.graph_cost + 0.4 * path.acoustic_cost == pytest.approx(total, abs=1e-4)
        assert (path.graph_cost, path.acoustic_cost) == (pytest.approx(graph, abs=1e-4),
                                                         pytest.approx(acoustic, abs=1e-4))
    assert hypothesis.cost == pytest.approx(least, abs=1e-5) and hypothesis.reached_final


def test_first_is_the_best_path_and_all_differ(graph: Path) -> None:
    store, _ = toy_corpus(3, noise=12.0)
    decoder = Decoder(graph, WIDE)
    for matrix in store.matrices:
        hypothesis, paths = decoder.decode_nbest(matrix)
        cost, words = viterbi(FstArrays.read(graph / "HCLG.fst"), matrix, 0.1, 0.0)
        assert paths[0].words == words == hypothesis.words
        assert paths[0].graph_cost == pytest.approx(hypothesis.graph_cost, abs=1e-3)
        costs = [path.graph_cost + 0.1 * path.acoustic_cost for path in paths]
        assert costs[0] == pytest.approx(cost, abs=1e-3)
        assert costs == sorted(costs)
        assert len({path.words for path in paths}) == len(paths) > 3
        assert all(word in LEXICON for path in paths for word in path.words)


def test_weighing_anew_finds_what_a_search_there_finds(graph: Path) -> None:
    store, _ = toy_corpus(8, noise=14.0)
    decoder = Decoder(graph, WIDE)
    other = Decoder(graph, SearchConfig(beam=100.0, acoustic_scale=0.12, insertion_penalty=1.5))
    for matrix in store.matrices:
        _, paths = decoder.decode_nbest(matrix)
        best = min(paths, key=lambda path: path.graph_cost + 0.12 * path.acoustic_cost + 1.5 * len(path.words))
        assert best.words == other.decode(matrix).words


@pytest.mark.parametrize("beam", [6.0, 13.0])
def test_one_best_is_the_same_with_and_without_a_lattice(graph: Path, beam: float) -> None:
    store, _ = toy_corpus(20, noise=16.0)
    decoder = Decoder(graph, SearchConfig(beam=beam, max_active=40, min_active=10, nbest=1))
    for matrix in store.matrices:
        alone, (hypothesis, paths) = decoder.decode(matrix), decoder.decode_nbest(matrix)
        assert (alone.words, alone.cost) == (hypothesis.words, hypothesis.cost) and paths[0].words == alone.words


def test_every_arc_lies_on_a_path_within_the_beam(graph: Path) -> None:
    store, _ = toy_corpus(12, noise=14.0, seed=3)
    decoder = Decoder(graph, SearchConfig(lattice_beam=5.0))
    for matrix in store.matrices:
        lattice = decoder.lattice(matrix)
        assert lattice is not None
        states = len(lattice.offsets) - 1
        costs = (lattice.graph_costs + 0.1 * lattice.acoustic_costs).tolist()
        sources = np.repeat(np.arange(states), np.diff(lattice.offsets)).tolist()
        rows = list(zip(sources, lattice.targets.tolist(), costs, strict=True))
        to_here, onward = np.full(states, np.inf), np.full(states, np.inf)
        to_here[0] = onward[-1] = 0.0
        for source, target, cost in rows:
            to_here[target] = min(to_here[target], to_here[source] + cost)
        for source, target, cost in reversed(rows):
            onward[source] = min(onward[source], cost + onward[target])
        assert onward[0] == pytest.approx(decoder.decode(matrix).cost, abs=1e-3)
        worst = max(to_here[source] + cost + onward[target] for source, target, cost in rows)
        assert worst < onward[0] + 5.0 + 1e-2
        assert worst > onward[0] + 3.0  # and the beam is used


def test_oracle_error_rate_falls_with_the_lattice_beam(graph: Path) -> None:
    store, references = toy_corpus(20, noise=25.0)
    rates = []
    for lattice_beam in (0.2, 1.0, 3.0, 8.0):
        decoder = Decoder(graph, SearchConfig(lattice_beam=lattice_beam, nbest=2000))
        errors = 0
        for (id, words), matrix in zip(references.items(), store.matrices, strict=True):
            _, paths = decoder.decode_nbest(matrix)
            errors += min(int(error_counts({id: words}, {id: path.words}).sum()) for path in paths)
        rates.append(errors)
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[1] > rates[-1]


def test_nothing_to_search(graph: Path) -> None:
    decoder = Decoder(graph, SearchConfig(nbest=5))
    hypothesis, paths = decoder.decode_nbest(np.zeros((0, NUM_PDFS), np.float32), "u")
    assert hypothesis.words == () and paths == [] and decoder.lattice(np.zeros((0, NUM_PDFS), np.float32)) is None


def test_a_cycle_of_epsilons_is_told(tmp_path: Path) -> None:
    arcs = [(0, 1, 1, 0.5, 1), (1, 0, 0, 0.0, 2), (2, 0, 0, 0.0, 1)]
    FstArrays.from_arcs(0, np.array([np.inf, 0, 0]), *(np.array(c) for c in zip(*arcs, strict=True))).write(
        tmp_path / "HCLG.fst")
    (tmp_path / "words.txt").write_text("".join(f"{word} {i}\n" for i, word in enumerate(WORDS)))
    with pytest.raises(ValueError, match="cycle of epsilons"):
        Decoder(tmp_path, SearchConfig()).lattice(np.zeros((1, 1), np.float32))
