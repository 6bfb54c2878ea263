"""Words on the columns of the network: the same word sequences at the same costs as in the graph before."""

from __future__ import annotations

import numpy as np
import pytest

from asr_distill.export.word_columns import with_word_columns, without_dead_ends, words_on_frames
from asr_distill.lang.fst_arrays import FstArrays

PDFS = 3


def graph_of(arcs: list[tuple[int, int, int, float, int]], finals: dict[int, float]) -> FstArrays:
    """arcs: source, input label, word, cost, target."""
    states = 1 + max(max(arc[0], arc[4]) for arc in arcs)
    last = np.full(states, np.inf, np.float32)
    for state, cost in finals.items():
        last[state] = cost
    sources, ilabels, olabels, weights, targets = (np.array(column) for column in zip(*arcs, strict=True))
    return FstArrays.from_arcs(0, last, sources, ilabels, olabels, weights, targets)


def costs(graph: FstArrays, pdf_of: np.ndarray, frames: int) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """Least cost of every (pdfs, words) of so many frames, by going all paths."""
    best: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}

    def go(state: int, pdfs: tuple[int, ...], words: tuple[int, ...], cost: float, silent: int) -> None:
        if len(pdfs) == frames and np.isfinite(graph.finals[state]):
            key = (pdfs, words)
            best[key] = min(best.get(key, np.inf), round(cost + float(graph.finals[state]), 4))
        for arc in range(graph.offsets[state], graph.offsets[state + 1]):
            label, word = int(graph.ilabels[arc]), int(graph.olabels[arc])
            if (label and len(pdfs) == frames) or (not label and silent > 4):
                continue
            go(int(graph.nextstates[arc]), pdfs + ((int(pdf_of[label]),) if label else ()),
               words + ((word,) if word else ()), cost + float(graph.weights[arc]), 0 if label else silent + 1)

    go(graph.start, (), (), 0.0, 0)
    return best


HOMOPHONES = graph_of([  # words 1 and 2 are said 1 2, known apart at the end; word 3 is said 2 3, known at once
    (0, 1, 0, 0.1, 1), (1, 1, 0, 0.2, 1), (1, 2, 0, 0.3, 2), (2, 2, 0, 0.4, 2), (2, 0, 0, 0.05, 3),
    (3, 0, 1, 0.5, 4), (3, 0, 2, 0.6, 5), (4, 0, 0, 0.7, 0), (5, 0, 0, 0.8, 0),
    (0, 2, 3, 0.9, 6), (6, 2, 0, 0.1, 6), (6, 3, 0, 0.2, 7), (7, 3, 0, 0.3, 7), (7, 0, 0, 0.0, 0)],
    {4: 0.0, 5: 0.1, 7: 0.2})


def columns_of(found: np.ndarray) -> np.ndarray:
    """pdf of every input label."""
    return np.concatenate([[-1], np.arange(PDFS), found])


@pytest.mark.parametrize("frames", [2, 3, 4, 5])
def test_no_path_is_lost_and_none_is_new(frames: int) -> None:
    marked = with_word_columns(HOMOPHONES, PDFS)
    wanted = costs(HOMOPHONES, columns_of(np.zeros(0, np.int32)), frames)
    assert costs(marked.graph, columns_of(marked.pdfs), frames) == wanted and len(wanted) > 1


def test_every_word_stands_on_one_frame_of_its_own_column() -> None:
    marked = with_word_columns(HOMOPHONES, PDFS)
    graph = marked.graph
    own = graph.ilabels > PDFS
    assert own.sum() and (graph.olabels[own] == marked.words[graph.ilabels[own] - PDFS - 1]).all()
    assert not ((graph.olabels > 0) & ~own).any()
    assert sorted(zip(marked.words.tolist(), marked.pdfs.tolist(), strict=True)) == [(1, 1), (2, 1), (3, 1)]
    loops = graph.sources() == graph.nextstates
    assert (graph.ilabels[loops] <= PDFS).all()


def test_random_graphs() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        arcs, here = [], 0
        for word in range(1, 5):  # words of 1 to 3 frames; some share a beginning and are told apart on an epsilon
            length, late = int(rng.integers(1, 4)), rng.random() < 0.6
            state = 0
            for place in range(length):
                here += 1
                label = int(rng.integers(1, PDFS + 1))
                arcs.append((state, label, 0 if late or place else word, float(rng.random()), here))
                arcs.append((here, label, 0, float(rng.random()), here))
                state = here
            arcs.append((state, 0, word if late else 0, float(rng.random()), 0))
        graph = graph_of(arcs, {0: 0.0})
        marked = with_word_columns(graph, PDFS)
        for frames in (1, 2, 3):
            assert costs(marked.graph, columns_of(marked.pdfs), frames) == costs(
                graph, columns_of(np.zeros(0, np.int32)), frames)


def test_dead_ends_are_removed_from_behind() -> None:
    graph = graph_of([(0, 1, 0, 0.0, 1), (1, 1, 0, 0.0, 1), (1, 2, 0, 0.0, 2), (0, 3, 0, 0.0, 3)], {3: 0.0})
    left = without_dead_ends(graph)
    assert (left.sources().tolist(), left.nextstates.tolist()) == ([0], [3])
    plain = graph_of([(0, 1, 5, 0.0, 1)], {1: 0.0})
    assert words_on_frames(plain) is plain
