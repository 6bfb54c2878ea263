"""Words on input labels: for runtimes that make their text from the network's columns, not from the graph's words.

In a graph so changed every word's output label stands on an arc that takes a frame, and that arc's input label is a
column of its own: the same log-likelihood as its pdf's, under the word's name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asr_distill.lang.fst_arrays import FstArrays


@dataclass(frozen=True)
class WordColumns:
    """The graph, and of each added column (input label num_pdfs + 1 + index) its pdf and its word, int32 (columns,)."""

    graph: FstArrays
    pdfs: np.ndarray
    words: np.ndarray


def with_word_columns(graph: FstArrays, num_pdfs: int) -> WordColumns:
    """Input label pdf + 1, output label word id -> every word's first frame under a column of its own."""
    graph = words_on_frames(graph)
    marked = (graph.olabels > 0) & (graph.ilabels > 0)
    keys = graph.olabels[marked].astype(np.int64) * (num_pdfs + 1) + graph.ilabels[marked]
    columns, which = np.unique(keys, return_inverse=True)
    ilabels = graph.ilabels.copy()
    ilabels[marked] = num_pdfs + 1 + which
    return WordColumns(replace(graph, ilabels=ilabels), (columns % (num_pdfs + 1) - 1).astype(np.int32),
                       (columns // (num_pdfs + 1)).astype(np.int32))


def words_on_frames(graph: FstArrays) -> FstArrays:
    """Move the words that stand on epsilon arcs back to the last arcs before them that take a frame.

    Words end up on epsilons where several have one pronunciation: known only once it is over. The states between those
    arcs and the epsilon are copied for each word; costs stay where they are. What no path leaves any more is removed.
    """
    sources = graph.sources()
    late = (graph.ilabels == 0) & (graph.olabels > 0)
    if not late.any():
        return graph
    base = int(graph.olabels.max()) + 1
    late_keys = sources[late].astype(np.int64) * base + graph.olabels[late]  # (state, word that will follow)
    loops = (sources == graph.nextstates) & (graph.ilabels > 0)
    carries = ~late & ~loops
    order = np.argsort(graph.nextstates, kind="stable")
    order = order[carries[order]]  # arcs by the state that they enter
    begins = np.searchsorted(graph.nextstates[order], np.arange(graph.num_states + 1))
    known = level = np.unique(late_keys)
    entering: list[tuple[np.ndarray, np.ndarray]] = []  # arcs, keys of the copies that they enter
    while level.size:
        arcs, keys = _entering(level, base, order, begins)
        entering.append((arcs, keys))
        silent = (graph.ilabels[arcs] == 0) & (graph.olabels[arcs] == 0)
        before = np.unique(sources[arcs[silent]].astype(np.int64) * base + keys[silent] % base)
        level = np.setdiff1d(before, known, assume_unique=True)
        known = np.union1d(known, level)

    def copy_of(keys: np.ndarray) -> np.ndarray:
        return (graph.num_states + np.searchsorted(known, keys)).astype(np.int32)

    arcs, keys = (np.concatenate(parts) for parts in zip(*entering, strict=True))
    word = (keys % base).astype(np.int32)
    silent = graph.ilabels[arcs] == 0
    from_ = np.where(silent, copy_of(np.where(silent, sources[arcs].astype(np.int64) * base + word, known[0])),
                     sources[arcs])
    loop_arcs, loop_keys = _own_loops(known, base, np.flatnonzero(loops), sources)
    kept = ~late
    changed = FstArrays.from_arcs(
        graph.start, np.concatenate([graph.finals, np.full(len(known), np.inf, np.float32)]),
        np.concatenate([sources[kept], copy_of(late_keys), from_, copy_of(loop_keys)]),
        np.concatenate([graph.ilabels[kept], np.zeros(late.sum(), np.int32), graph.ilabels[arcs],
                        graph.ilabels[loop_arcs]]),
        np.concatenate([graph.olabels[kept], np.zeros(late.sum(), np.int32), np.where(silent, 0, word),
                        np.zeros(len(loop_arcs), np.int32)]),
        np.concatenate([graph.weights[kept], graph.weights[late], graph.weights[arcs], graph.weights[loop_arcs]]),
        np.concatenate([graph.nextstates[kept], graph.nextstates[late], copy_of(keys), copy_of(loop_keys)]))
    return without_dead_ends(changed)


def without_dead_ends(graph: FstArrays) -> FstArrays:
    """Remove arcs into states from which no final state can be reached (the states stay, without arcs)."""
    sources = graph.sources()
    alive = np.isfinite(graph.finals)
    arcs = np.flatnonzero(sources != graph.nextstates)
    leaving = np.bincount(sources[arcs], minlength=graph.num_states)  # arcs to other states that still count
    by_target = arcs[np.argsort(graph.nextstates[arcs], kind="stable")]
    begins = np.searchsorted(graph.nextstates[by_target], np.arange(graph.num_states + 1))
    gone = np.zeros(graph.num_states, bool)
    dead = np.flatnonzero(~alive & (leaving == 0))
    while dead.size:
        gone[dead] = True
        place = _ranges(begins[dead], begins[dead + 1])
        np.subtract.at(leaving, sources[by_target[place]], 1)
        touched = np.unique(sources[by_target[place]])
        dead = touched[(leaving[touched] == 0) & ~alive[touched] & ~gone[touched]]
    keep = ~gone[graph.nextstates] & ~gone[sources]
    return FstArrays.from_arcs(graph.start, graph.finals, sources[keep], graph.ilabels[keep], graph.olabels[keep],
                               graph.weights[keep], graph.nextstates[keep])


def _entering(level: np.ndarray, base: int, order: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arcs into the states of the keys, each with its key."""
    states = level // base
    counts = begins[states + 1] - begins[states]
    return order[_ranges(begins[states], begins[states + 1])], np.repeat(level, counts)


def _own_loops(known: np.ndarray, base: int, loops: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The self-loops of the keys' states, each with its key."""
    loops = loops[np.argsort(sources[loops], kind="stable")]
    states = known // base
    begins = np.searchsorted(sources[loops], states)
    ends = np.searchsorted(sources[loops], states, side="right")
    return loops[_ranges(begins, ends)], np.repeat(known, ends - begins)


def _ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each begin up to its end, one range after the other."""
    counts = ends - begins
    offsets = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(offsets - begins, counts)
