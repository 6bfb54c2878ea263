"""Sets of phones: clustering against all ways to cut in two, given ones from a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from tree_toys import FLOOR, PHONES, SILENCE, STATES, kaldi_likelihood, toy_corpus, toy_hmm

from asr_distill.errors import UserError
from asr_distill.hmm.questions import attribute_sets, automatic_questions, bisect, cluster_phones, read_questions
from asr_distill.hmm.tree_stats import CONTEXT_INDEPENDENT, TreeStats, accumulate_tree_stats

POSITIONAL = ("SIL", "SPN_S", "AH0_B", "AH1_B", "AH1_S", "K_E", "K_I")


@pytest.fixture(scope="module")
def stats() -> TreeStats:
    features, alignment, offsets, _ = toy_corpus(utterances=30)
    return accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)


def pack(points: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.concatenate([[len(x)], x.sum(0), np.square(x).sum(0)]) for x in points])


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_in_two_is_close_to_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = [generator.normal(size=(int(generator.integers(2, 30)), 3)) + generator.normal(size=3) * 2
              for _ in range(8)]

    def score(inside: tuple[bool, ...] | np.ndarray) -> float:
        sides = [[x for x, at in zip(points, inside, strict=True) if at == side] for side in (True, False)]
        return sum(kaldi_likelihood(np.concatenate(side)) for side in sides)

    cuts = [(True, *rest) for rest in itertools.product((True, False), repeat=7) if not all(rest)]
    best = max(map(score, cuts))
    whole = kaldi_likelihood(np.concatenate(points))
    assert score(bisect(pack(points), FLOOR)) - whole >= 0.95 * (best - whole)


def test_a_cut_leaves_no_side_empty() -> None:
    same = np.random.default_rng(0).normal(size=(5, 2))
    for count in (2, 3):
        inside = bisect(pack([same] * count), FLOOR)
        assert 0 < inside.sum() < count


def test_clusters_are_nested_sets_of_whole_base_phones(stats: TreeStats) -> None:
    sets = cluster_phones(stats, PHONES, STATES, FLOOR)
    assert sets[0] == frozenset(range(1, 10)) - {2}  # SPN was never heard
    for variants in ({3, 4}, {6, 7}):  # AH0 AH1, IY0 IY1
        assert all(variants <= each or not variants & each for each in sets)
    assert all(a <= b or b <= a or not a & b for a, b in itertools.combinations(sets, 2))
    assert sum(len(each) == 1 for each in sets) == 4 and len(sets) == 2 * 6 - 1  # SIL B K S; six base phones


def test_clusters_look_at_central_states_only(stats: TreeStats) -> None:
    central = stats.contexts[:, 3] == np.array(STATES)[stats.contexts[:, 1] - 1] // 2
    changed = TreeStats(stats.contexts, stats.counts, np.where(central[:, None], stats.sums, 7.0), stats.squares)
    assert cluster_phones(changed, PHONES, STATES, FLOOR) == cluster_phones(stats, PHONES, STATES, FLOOR)


def test_stress_place_and_silence_are_asked_about(stats: TreeStats) -> None:
    assert attribute_sets(POSITIONAL, CONTEXT_INDEPENDENT) == {
        "stress 0": {3}, "stress 1": {4, 5}, "word begin": {3, 4}, "single-phone word": {2, 5}, "word end": {6},
        "word inside": {7}, "silence": {1, 2}}
    automatic = automatic_questions(stats, PHONES, STATES, CONTEXT_INDEPENDENT, FLOOR)
    assert {frozenset({3, 6}), frozenset({4, 7}), frozenset({1, 2})} <= set(automatic)
    assert len(set(automatic)) == len(automatic)


def test_pieces_are_asked_for_the_letters_at_their_ends(stats: TreeStats) -> None:
    pieces = ("SIL", "SPN", "ING", "NO", "|1N|", "▁THE", "▁N", "O", "▁O")
    assert attribute_sets(pieces, CONTEXT_INDEPENDENT) == {
        "begins with 1": {5}, "begins with I": {3}, "begins with N": {4, 7}, "begins with O": {8, 9},
        "begins with T": {6}, "ends with E": {6}, "ends with G": {3}, "ends with N": {5, 7}, "ends with O": {4, 8, 9},
        "silence": {1, 2}, "word begin": {6, 7, 9}}
    automatic = automatic_questions(stats, pieces, STATES, CONTEXT_INDEPENDENT, FLOOR)
    assert {frozenset({4, 8, 9}), frozenset({6, 7, 9})} <= set(automatic)
    for state in (0, 1, 2):  # neighbours hear the ends of a piece: it is clustered by each of its states
        places = tuple(min(state, count - 1) for count in STATES)
        assert set(cluster_phones(stats, pieces, STATES, FLOOR, places)) <= set(automatic)
    last = stats.contexts[:, 3] == np.array(STATES)[stats.contexts[:, 1] - 1] - 1
    changed = TreeStats(stats.contexts, stats.counts, np.where(last[:, None], stats.sums, 7.0), stats.squares)
    ends = tuple(count - 1 for count in STATES)
    assert cluster_phones(changed, pieces, STATES, FLOOR, ends) == cluster_phones(stats, pieces, STATES, FLOOR, ends)


def test_given_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("AH0_B AH1_B\n\nAH\n  K SIL\nAH1_B AH0_B\nSPN_S\n")
    assert read_questions(path, POSITIONAL) == ({3, 4}, {3, 4, 5}, {1, 6, 7}, {2})


@pytest.mark.parametrize(("text", "message"), [
    ("AH0_B\n\nAH0_B AH3\n", r"questions\.txt:3: the language has no phone 'AH3' \(did you mean 'AH"),
    (" \n", r"questions\.txt: no questions")])
def test_wrong_questions_are_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "questions.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_questions(path, POSITIONAL)
    with pytest.raises(UserError, match="no such file"):
        read_questions(tmp_path / "absent", POSITIONAL)
