"""The built tree against brute force over raw frames: every question of every leaf, then every pair of leaves."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from tree_toys import FLOOR, PHONES, SILENCE, STATES, Context, kaldi_likelihood, toy_corpus, toy_hmm

from asr_distill.errors import UserError
from asr_distill.hmm.decision_tree import DecisionTree
from asr_distill.hmm.questions import automatic_questions
from asr_distill.hmm.tree_build import Splitter, TreeConfig, build_tree, merge_leaves
from asr_distill.hmm.tree_stats import CONTEXT_INDEPENDENT, TreeStats, accumulate_tree_stats

Leaf = frozenset[Context]
LEAVES, MIN_COUNT, THRESHOLD = 40, 4.0, 3.0
ROOTS = [(1,), (2,), (3, 4), (5,), (6, 7), (8,), (9,)]


class Corpus:
    """Frames by context, and likelihoods straight from them."""

    def __init__(self) -> None:
        features, alignment, offsets, contexts = toy_corpus(utterances=30)
        self.stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
        frames = features.double().numpy()
        self.frames = {context: frames[[at == context for at in contexts]] for context in set(contexts)}
        self.sets = automatic_questions(self.stats, PHONES, STATES, CONTEXT_INDEPENDENT, FLOOR)
        self._known: dict[Leaf, float] = {}

    def count(self, leaf: Leaf) -> int:
        return sum(len(self.frames[context]) for context in leaf)

    def likelihood(self, leaf: Leaf) -> float:
        if leaf not in self._known:
            self._known[leaf] = (kaldi_likelihood(np.concatenate([self.frames[context] for context in sorted(leaf)]))
                                 if leaf else 0.0)
        return self._known[leaf]

    def best_split(self, leaf: Leaf) -> tuple[float, Leaf, Leaf] | None:
        best: tuple[float, Leaf, Leaf] | None = None
        for place, asked in itertools.product((1, 0, 2), self.sets):
            yes = frozenset(context for context in leaf if context[place] in asked)
            no = leaf - yes
            if min(self.count(yes), self.count(no)) < MIN_COUNT:
                continue
            gain = self.likelihood(yes) + self.likelihood(no) - self.likelihood(leaf)
            if gain > THRESHOLD and (best is None or gain > best[0]):
                best = gain, yes, no
        return best

    def roots(self, groups: list[tuple[int, ...]] = ROOTS) -> list[Leaf]:
        return [frozenset(c for c in self.frames if c[1] in group and c[3] == state)
                for group in groups for state in range(STATES[group[0] - 1])]

    def grow(self, leaves: int, groups: list[tuple[int, ...]] = ROOTS) -> tuple[list[list[Leaf]], list[float]]:
        """Leaves of each root after greedy splitting, and the gains."""
        trees, gains = [[root] for root in self.roots(groups)], []
        while sum(map(len, trees)) < leaves:
            found = [(split[0], tree, leaf, split) for tree in trees for leaf in tree
                     if not {context[1] for context in leaf} <= SILENCE and (split := self.best_split(leaf))]
            if not found:
                break
            gain, tree, leaf, (_, yes, no) = max(found, key=lambda each: each[0])
            tree.remove(leaf)
            tree += [yes, no]
            gains.append(gain)
        return trees, gains

    def merge(self, tree: list[Leaf], threshold: float) -> list[Leaf]:
        tree = list(tree)
        while len(tree) > 1:
            loss, a, b = min(((self.likelihood(a) + self.likelihood(b) - self.likelihood(a | b), a, b)
                              for a, b in itertools.combinations(tree, 2)), key=lambda each: each[0])
            if loss >= threshold:
                break
            tree = [leaf for leaf in tree if leaf not in (a, b)] + [a | b]
        return tree


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def partition(tree: DecisionTree, contexts: list[Context]) -> set[Leaf]:
    by_pdf: dict[int, set[Context]] = {}
    for context in contexts:
        by_pdf.setdefault(tree.pdf(*context), set()).add(context)
    return {frozenset(leaf) for leaf in by_pdf.values()}


def config(**changes: object) -> TreeConfig:
    return TreeConfig(**{"leaves": LEAVES, "min_count": MIN_COUNT, "split_threshold": THRESHOLD,
                         "cluster_threshold": 0.0, **changes})  # type: ignore[arg-type]


def test_the_best_question_is_the_best_of_all(corpus: Corpus) -> None:
    splitter = Splitter(corpus.stats, corpus.sets, len(PHONES), config())
    contexts = [tuple(row) for row in corpus.stats.contexts.tolist()]
    for root in corpus.roots():
        rows = np.array([at for at, context in enumerate(contexts) if context in root], np.int64)
        split, expected = splitter.best(rows), corpus.best_split(root)
        if expected is None:
            assert split is None
            continue
        assert split is not None and split.gain == pytest.approx(expected[0], rel=1e-5)
        yes = frozenset(contexts[row] for row in rows[split.yes])
        assert {yes, root - yes} == set(expected[1:])  # "stress 0" and "stress 1" are one question


def test_splits_come_in_the_order_of_brute_force(corpus: Corpus) -> None:
    for leaves in (22, 23, 30, LEAVES):
        trees, gains = corpus.grow(leaves)
        tree, figures = build_tree(corpus.stats, PHONES, STATES, config(leaves=leaves))
        assert partition(tree, list(corpus.frames)) == {leaf for each in trees for leaf in each if leaf}
        assert figures["splits"] == len(gains) and figures["leaves"] == sum(map(len, trees)) == tree.num_pdfs
        assert figures["smallest_gain"] == pytest.approx(min(gains), rel=1e-5) and figures["merges"] == 0


def test_gains_add_up_to_the_likelihood(corpus: Corpus) -> None:
    _, gains = corpus.grow(LEAVES)
    tree, figures = build_tree(corpus.stats, PHONES, STATES, config())
    frames = sum(map(len, corpus.frames.values()))
    leaves = sum(corpus.likelihood(leaf) for leaf in partition(tree, list(corpus.frames)))
    assert figures["frames"] == frames and figures["contexts"] == len(corpus.frames)
    assert figures["gain_per_frame"] == pytest.approx(sum(gains) / frames, rel=1e-5)
    assert figures["log_likelihood_per_frame"] == pytest.approx(leaves / frames, rel=1e-5)
    roots = sum(map(corpus.likelihood, corpus.roots()))
    assert leaves - roots == pytest.approx(sum(gains), rel=1e-4)


@pytest.mark.parametrize("threshold", [None, 6.0, 25.0, 1e9])
def test_leaves_are_merged_as_by_brute_force(corpus: Corpus, threshold: float | None) -> None:
    trees, gains = corpus.grow(LEAVES)
    merged = [corpus.merge(each, min(gains) if threshold is None else threshold) for each in trees]
    tree, figures = build_tree(corpus.stats, PHONES, STATES, config(cluster_threshold=threshold))
    assert partition(tree, list(corpus.frames)) == {leaf for each in merged for leaf in each if leaf}
    assert figures["leaves"] == sum(map(len, merged)) == tree.num_pdfs
    assert figures["merges"] == sum(map(len, trees)) - tree.num_pdfs
    if threshold == 1e9:  # all is undone, questions too
        assert tree.nodes == () and tree.num_pdfs == figures["roots"]


def test_merging_numbers_clusters_by_their_first_leaf_and_leaves_empty_ones_alone() -> None:
    frames = [np.array([[value], [value + 1.0]]) for value in (0.0, 50.0, 0.5)]
    packed = np.stack([*([len(x), x.sum(), np.square(x).sum()] for x in frames), [0.0, 0.0, 0.0]])
    assert merge_leaves(packed, 1.0, FLOOR) == (3, [0, 1, 0, 2])
    assert merge_leaves(packed, 1e9, FLOOR) == (2, [0, 0, 0, 1])
    loss = kaldi_likelihood(frames[0]) + kaldi_likelihood(frames[2]) - kaldi_likelihood(np.concatenate(frames[::2]))
    assert merge_leaves(packed, loss - 1e-3, FLOOR)[0] == 4 and merge_leaves(packed, loss + 1e-3, FLOOR)[0] == 3


def test_silence_is_not_split_and_unseen_phones_have_pdfs_of_their_own(corpus: Corpus) -> None:
    tree, figures = build_tree(corpus.stats, PHONES, STATES, config(leaves=200, split_threshold=0.0))
    everything = list(itertools.product(range(10), range(1, 10), range(10)))
    pdfs = {(phone, state): {tree.pdf(left, phone, right, state) for left, p, right in everything if p == phone}
            for phone, count in enumerate(STATES, 1) for state in range(count)}
    assert all(len(pdfs[phone, state]) == 1 for phone in SILENCE for state in range(2))
    assert figures["unseen"] == ["SPN 0", "SPN 1"]
    for first, second in itertools.combinations(pdfs, 2):  # only variants in the same state share
        together = first[1] == second[1] and {first[0], second[0]} in ({3, 4}, {6, 7})
        assert together or not pdfs[first] & pdfs[second]
    assert set().union(*pdfs.values()) == set(range(tree.num_pdfs))


def test_every_phone_may_have_a_root_of_its_own(corpus: Corpus) -> None:
    apart: list[tuple[int, ...]] = [(phone,) for phone in range(1, 10)]
    trees, _ = corpus.grow(LEAVES, apart)
    tree, figures = build_tree(corpus.stats, PHONES, STATES, config(share_roots=False))
    assert figures["roots"] == sum(STATES)
    assert partition(tree, list(corpus.frames)) == {leaf for each in trees for leaf in each if leaf}


def test_silences_in_all_positions_share_and_states_may_be_fewer() -> None:
    phones, states = ("SIL", "SIL_B", "A_B", "A_E"), (2, 2, 3, 1)
    contexts = np.array([[0, 1, 0, 0], [0, 2, 0, 0], [1, 3, 4, 0], [3, 4, 1, 0], [1, 3, 4, 2]], np.int32)
    ones = np.full((5, 2), 30.0)
    stats = TreeStats(contexts, np.full(5, 30.0), ones, ones * 2)
    tree, figures = build_tree(stats, phones, states, TreeConfig(share_roots=False))
    assert [tree.pdf(0, 1, 0, s) for s in (0, 1)] == [tree.pdf(3, 2, 3, s) for s in (0, 1)]
    tree, figures = build_tree(stats, phones, states, TreeConfig())
    assert tree.pdf(1, 3, 4, 0) == tree.pdf(3, 4, 1, 0) and figures["roots"] == tree.num_pdfs == 5
    assert tuple(map(len, tree.roots)) == states


def test_given_questions_are_the_only_ones_asked(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("B K S\nSIL\n")
    tree, figures = build_tree(corpus.stats, PHONES, STATES, config(questions=path))
    assert set(tree.sets) == {frozenset({5, 8, 9}), frozenset({1})} and figures["questions"] == 2
    path.write_text("B Q\n")
    with pytest.raises(UserError, match=r"questions\.txt:1: .*'Q'"):
        build_tree(corpus.stats, PHONES, STATES, config(questions=path))


@pytest.mark.parametrize("change", [
    {"leaves": 0}, {"variance_floor": 0.0}, {"min_count": -1.0}, {"split_threshold": -1.0},
    {"cluster_threshold": -1.0}])
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        config(**change)


def test_no_statistics_no_tree() -> None:
    empty = np.zeros((0, 4))
    with pytest.raises(ValueError, match="no statistics"):
        build_tree(TreeStats(empty.astype(np.int32), np.zeros(0), empty, empty), PHONES, STATES, config())
