"""Context, determinization and minimization of graphs against enumerations of every path and against OpenFst."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from asr_distill.decode.context import with_context
from asr_distill.decode.determinize import expand_determinized
from asr_distill.decode.minimize import minimized, reachable
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays

Relation = dict[tuple[tuple[int, ...], tuple[int, ...]], float]  # (labels, words) -> -log sum exp(-cost)
TOLERANCE = 3e-3  # costs owed are taken as equal within 1/1024
CHAINS = [(), (1, 2, 3), (1, 2, 4), (1, 2, 3), (5, 6), (5,), (7,)]  # labels 1 and 3 sound alike


def random_fst(random: np.random.Generator, states: int, arcs: int, labels: int, words: int) -> FstArrays:
    """Acyclic, states in mixed order, with words on some arcs."""
    names = random.permutation(states)
    rows = []
    for source in range(states - 1):
        for target in [source + 1, *random.integers(source + 1, states, size=arcs - 1).tolist()]:
            rows.append((names[source], random.integers(1, labels + 1), random.integers(0, words + 1),
                         random.integers(0, 4096) / 1024, names[target]))
    finals = np.full(states, np.inf, np.float32)
    finals[names[-1]], finals[names[states // 2]] = 0.5, 1.25
    return FstArrays.from_arcs(int(names[0]), finals, *(np.array(column) for column in zip(*rows, strict=True)))


def relation(fst: FstArrays, chains: list[tuple[int, ...]] | None = None) -> Relation:
    """By depth-first enumeration; input labels replaced by chains where given."""
    sums: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = defaultdict(float)

    def follow(state: int, labels: tuple[int, ...], words: tuple[int, ...], cost: float) -> None:
        if fst.finals[state] < np.inf:
            sums[labels, words] += math.exp(-cost - float(fst.finals[state]))
        for arc in range(fst.offsets[state], fst.offsets[state + 1]):
            label, word = int(fst.ilabels[arc]), int(fst.olabels[arc])
            read = chains[label] if chains else ((label,) if label else ())
            follow(int(fst.nextstates[arc]), labels + read, (*words, word) if word else words,
                   cost + float(fst.weights[arc]))

    follow(fst.start, (), (), 0.0)
    return {key: -math.log(total) for key, total in sums.items()}


def assert_same(found: Relation, expected: Relation, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, cost in expected.items():
        assert found[key] == pytest.approx(cost, abs=tolerance), key


@pytest.mark.parametrize("seed", range(25))
def test_determinization_keeps_every_path_and_no_choice(seed: int) -> None:
    random = np.random.default_rng(seed)
    fst = random_fst(random, 7, 3, len(CHAINS) - 1, int(random.integers(0, 4)))
    result = expand_determinized(fst, CHAINS)
    assert_same(relation(result), relation(fst, CHAINS), TOLERANCE)
    for state in range(result.num_states):
        labels = result.ilabels[result.offsets[state]:result.offsets[state + 1]]
        # Only at the end, where two word sequences sound alike to the last, epsilons part them.
        labels = labels[labels > 0]
        assert len(np.unique(labels)) == len(labels)


def test_words_come_where_they_are_certain() -> None:
    """Two words that begin alike: neither is written before the third label tells them apart."""
    arcs = [(0, 1, 1, 1.0, 1), (0, 2, 2, 2.0, 1)]
    fst = FstArrays.from_arcs(0, np.array([np.inf, 0.0]), *(np.array(c) for c in zip(*arcs, strict=True)))
    result = expand_determinized(fst, CHAINS)
    assert result.num_arcs == 4  # 1, 2, then 3 or 4
    read = zip(result.ilabels.tolist(), result.olabels.tolist(), strict=True)
    assert sorted(read) == [(1, 0), (2, 0), (3, 1), (4, 2)]
    assert result.weights[0] == pytest.approx(-math.log(math.exp(-1) + math.exp(-2)))


@pytest.mark.parametrize("seed", range(10))
def test_many_arcs_of_one_state(seed: int) -> None:
    """Sorting has two ways, for few arcs and for many."""
    random = np.random.default_rng(seed)
    fst = random_fst(random, 4, 60, len(CHAINS) - 1, 1)
    assert_same(relation(expand_determinized(fst, CHAINS)), relation(fst, CHAINS), TOLERANCE)


@pytest.mark.parametrize("seed", range(20))
def test_as_small_as_openfst_makes_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    chains = [(), *((label,) for label in range(1, 4))]
    fst = expand_determinized(random_fst(random, 9, 3, 3, 1), chains)
    fst.weights = np.round(fst.weights * 4).astype(np.float32) / 4  # so that futures repeat
    fst.finals = np.where(np.isfinite(fst.finals), np.float32(0.5), fst.finals)
    result = minimized(fst)
    reference = fst.to_fst()
    kaldifst.minimize_encoded(reference)
    assert (result.num_states, result.num_arcs) == (reference.num_states,
                                                    FstArrays.from_fst(reference).num_arcs)
    assert_same(relation(result), relation(fst), TOLERANCE)


def test_cycles_and_unreachable_states() -> None:
    """Two copies of one loop become one; what no path reaches goes."""
    arcs = [(0, 1, 0, 0.5, 1), (1, 2, 1, 0.25, 2), (2, 1, 0, 0.5, 3), (3, 2, 1, 0.25, 0), (4, 1, 0, 0.5, 1)]
    finals = np.array([0, np.inf, 0, np.inf, 0], np.float32)
    fst = FstArrays.from_arcs(2, finals, *(np.array(c) for c in zip(*arcs, strict=True)))
    result = minimized(fst)
    assert (result.num_states, result.num_arcs, result.start) == (2, 2, 0)
    assert reachable(fst).num_states == 4
    assert result.finals.tolist() == [0.0, np.inf] and result.nextstates.tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(10))
def test_context_writes_every_phone_between_its_neighbours(seed: int) -> None:
    random = np.random.default_rng(seed)
    phones, symbols = 4, 2
    fst = random_fst(random, 7, 2, phones + symbols, 2)
    result, windows = with_context(fst, phones, symbols)
    expected: Relation = {}
    for (labels, words), cost in relation(fst).items():
        spoken = [0, *(label for label in labels if label <= phones), 0]
        triphones = iter(zip(spoken, spoken[1:], spoken[2:], strict=False))
        # A symbol stands where it was read; the phone before it is written when the next is known.
        written: list[int | tuple[int, int, int]] = []
        begun = False
        for label in labels:
            if label > phones:
                written.append(label - phones)
            elif begun:
                written.append(next(triphones))
            begun |= label <= phones
        written += list(triphones)
        expected[tuple(written), words] = cost  # type: ignore[index]
    found = {(tuple(label if label <= symbols else tuple(windows[label - symbols - 1].tolist()) for label in labels),
              words): cost for (labels, words), cost in relation(result).items()}
    assert_same(found, expected, 1e-5)  # type: ignore[arg-type]
    assert len({tuple(window) for window in windows.tolist()}) == len(windows)
