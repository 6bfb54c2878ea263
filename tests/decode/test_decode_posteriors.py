"""Posteriors of lattices against an enumeration of every path."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from decode_toy import random_graph, toy_corpus, toy_graph

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.lattice import Lattice, distinct_paths, make_lattice
from asr_distill.decode.posteriors import NEAR, sequence_posteriors, word_posteriors

SCALE = 0.4
Said = tuple[tuple[int, int], ...]  # (word, frames before the arc that carries it)


def enumerate_paths(lattice: Lattice, scale: float) -> list[tuple[float, Said]]:
    """(cost, words) of every path, by depth-first search."""
    rows = list(zip(lattice.targets.tolist(), lattice.words.tolist(),
                    (lattice.graph_costs.astype(float) + scale * lattice.acoustic_costs.astype(float)).tolist(),
                    strict=True))
    found = []

    def follow(state: int, cost: float, said: Said) -> None:
        if state == len(lattice.offsets) - 2:
            found.append((cost, said))
        for target, word, more in rows[lattice.offsets[state]:lattice.offsets[state + 1]]:
            follow(target, cost + more, (*said, (word, int(lattice.frames[state]))) if word else said)

    follow(0, 0.0, ())
    return found


def word_at(said: Said, frame: int) -> int:
    """The word that a path is in when it reads a frame, 0 before its first."""
    return next((word for word, begin in reversed(said) if begin <= frame), 0)


def confidences_by_enumeration(lattice: Lattice, scale: float) -> list[float]:
    paths = enumerate_paths(lattice, scale)
    total = sum(math.exp(-cost) for cost, _ in paths)
    best = min(paths)[1]
    found = []
    for index, (word, begin) in enumerate(best):
        end = best[index + 1][1] if index + 1 < len(best) else int(lattice.frames[-1])
        shares = [sum(math.exp(-cost) for cost, said in paths if word_at(said, frame) == word) / total
                  for frame in range(begin, end)]
        if index + 1 < len(best) and begin == end:
            near = sum(math.exp(-cost) * sum(other == word and abs(at - begin) <= NEAR for other, at in said)
                       for cost, said in paths)
            shares = [min(near / total, 1.0)]
        found.append(max(shares))
    return found


def random_lattice(directory: Path, seed: int) -> Lattice:
    random = np.random.default_rng(seed)
    random_graph(random, directory)
    matrix = random.normal(0, 3, (5, 4)).astype(np.float32)
    lattice = Decoder(directory, SearchConfig(beam=1000.0, acoustic_scale=SCALE, lattice_beam=5.0)).lattice(matrix)
    assert lattice is not None
    return lattice


@pytest.mark.parametrize("seed", range(12))
def test_confidences_equal_the_enumeration(tmp_path: Path, seed: int) -> None:
    lattice = random_lattice(tmp_path, seed)
    found = word_posteriors(lattice, SCALE)
    assert found.words == distinct_paths(lattice, 1, SCALE)[0].words
    np.testing.assert_allclose(found.confidences, confidences_by_enumeration(lattice, SCALE), atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_posteriors_of_sequences_equal_the_enumeration(tmp_path: Path, seed: int) -> None:
    lattice = random_lattice(tmp_path, seed)
    masses: dict[tuple[int, ...], float] = defaultdict(float)
    for cost, said in enumerate_paths(lattice, SCALE):
        masses[tuple(word for word, _ in said)] += math.exp(-cost)
    sequences = list(masses)
    logs = sequence_posteriors(lattice, [*sequences, (1, 2) * 20], SCALE)
    assert len(sequences) > 3 and logs[-1] == -math.inf
    np.testing.assert_allclose(np.exp(logs[:-1]), [masses[each] / sum(masses.values()) for each in sequences],
                               atol=1e-9)
    one = sequence_posteriors(lattice, sequences[:1], SCALE)  # one at a time is the same as all at once
    np.testing.assert_allclose(one, logs[:1], atol=1e-12)


def test_words_by_hand() -> None:
    """Three frames; A then B is three times as likely as C then B, whose B begins a frame later."""
    arcs = [(0, 1, 1, 0.0, 0), (0, 2, 3, math.log(3), 0), (1, 3, 2, 0.0, 1), (2, 4, 0, 0.0, 1), (3, 5, 0, 0.0, 2),
            (4, 5, 2, 0.0, 2), (5, 6, 0, 0.0, 3)]
    columns = [np.array(column) for column in zip(*arcs, strict=True)]
    frames = np.array([0, 1, 1, 2, 2, 3, 4], np.int32)
    lattice = make_lattice(7, columns[0], columns[1], columns[2].astype(np.int32), columns[3].astype(np.float32),
                           np.zeros(7, np.float32), frames)
    found = word_posteriors(lattice, 1.0)
    assert found.words == (1, 2)
    assert found.confidences == pytest.approx([0.75, 1.0])
    assert np.exp(sequence_posteriors(lattice, [(1, 2), (3, 2), (2,), ()], 1.0)) == pytest.approx([0.75, 0.25, 0, 0])


def test_a_word_without_a_frame_counts_where_it_begins() -> None:
    """Two words on arcs that read no frame: A B, or B alone."""
    arcs = [(0, 1, 1), (0, 2, 0), (1, 2, 2), (2, 3, 0), (3, 4, 0)]
    costs = np.array([math.log(4), math.log(4 / 3), 0, 0, 0], np.float32)
    columns = [np.array(column) for column in zip(*arcs, strict=True)]
    lattice = make_lattice(5, columns[0], columns[1], columns[2].astype(np.int32), -costs * np.array([1, 1, 1, 1, 1]),
                           np.zeros(5, np.float32), np.array([0, 0, 0, 1, 2], np.int32))
    found = word_posteriors(lattice, 1.0)  # weights 4 and 4/3
    assert found.words == (1, 2) and found.confidences == pytest.approx([0.75, 0.75])


def test_noise_makes_unsure(tmp_path: Path) -> None:
    graph = toy_graph(tmp_path)
    means = []
    for noise in (4.0, 14.0, 25.0):
        store, _ = toy_corpus(12, noise=noise)
        decoder = Decoder(graph, SearchConfig())
        sure = []
        for matrix in store.matrices:
            lattice = decoder.lattice(matrix)
            assert lattice is not None
            found = word_posteriors(lattice, 0.1)
            assert tuple(decoder.words[word] for word in found.words) == decoder.decode(matrix).words
            assert ((found.confidences > 0) & (found.confidences <= 1)).all()
            sure += found.confidences.tolist()
        means.append(np.mean(sure))
    assert means[0] > 0.95 and means[0] > means[1] > means[2]


def test_no_words() -> None:
    lattice = make_lattice(2, np.array([0]), np.array([1]), np.array([0], np.int32), np.zeros(1, np.float32),
                           np.zeros(1, np.float32), np.array([0, 1], np.int32))
    assert word_posteriors(lattice, 1.0).words == ()
    assert sequence_posteriors(lattice, [()], 1.0) == pytest.approx([0.0])
