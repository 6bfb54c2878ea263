"""Changes of G against the definition of a backoff model, computed word by word in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from lang_arpa_dict import ArpaDict

from asr_distill.errors import UserError
from asr_distill.lang.arpa import write_arpa
from asr_distill.lang.backoff_graph import BackoffGraph
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.grammar import grammar_fst
from asr_distill.lang.lang import prepare_lang
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.ngram import NgramConfig, train_arpa
from asr_distill.lang.prune import pruned

TEXT = "a b c\na b d\nc b a\nd d d a\na\nb c a d\nc a b\nd a\n"
WORDS = "ABCD"
NEW = ("N", "O")
LN10 = math.log(10)


class Trained:
    """A trigram model of four words in a language of six; N and O are in no n-gram."""

    def __init__(self, folder: Path, order: int = 3):
        (folder / "text").write_text(TEXT)
        self.arpa = folder / "lm.arpa"
        train_arpa(folder / "text", self.arpa, NgramConfig(order=order))
        lexicon = Lexicon({word: [Pronunciation((word.lower(),))] for word in (*WORDS, *NEW)})
        self.lang = prepare_lang(lexicon, folder / "lang", arpa=self.arpa)
        self.graph = BackoffGraph.of(FstArrays.read(self.lang.directory / "G.fst"), self.lang.words, "G.fst")
        self.ids = self.lang.word_ids


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trigram"))


class Walk:
    """An acceptor read as a backoff model, arc by arc: #0 is followed only where the word is not listed."""

    def __init__(self, arrays: FstArrays, words: tuple[str, ...]):
        self.words, self.start = words, arrays.start
        self.arcs: dict[int, dict[str, tuple[float, int]]] = {state: {} for state in range(arrays.num_states)}
        for source, label, weight, target in zip(arrays.sources().tolist(), arrays.ilabels.tolist(),
                                                 arrays.weights.astype(float), arrays.nextstates.tolist(), strict=True):
            assert words[label] not in self.arcs[source]
            self.arcs[source][words[label]] = (math.exp(-weight), target)
        for state, cost in enumerate(arrays.finals.astype(float)):
            if math.isfinite(cost):
                self.arcs[state]["</s>"] = (math.exp(-cost), -1)

    def step(self, state: int, word: str) -> tuple[float, int]:
        weight = 1.0
        while word not in self.arcs[state]:
            if "#0" not in self.arcs[state]:
                return 0.0, -1
            factor, state = self.arcs[state]["#0"]
            weight *= factor
        probability, target = self.arcs[state][word]
        return weight * probability, target

    def state(self, history: tuple[str, ...]) -> int:
        state = self.start
        for word in history:
            state = self.step(state, word)[1]
        return state

    def totals(self) -> list[float]:
        spoken = [word for word in self.words if word not in ("<eps>", "#0", "<s>")]
        return [sum(self.step(state, word)[0] for word in spoken) for state in self.arcs]


def histories(words: str = WORDS) -> list[tuple[str, ...]]:
    return [history for length in range(4) for history in itertools.product(words, repeat=length)]


def test_a_graph_comes_back_as_it_was(trained: Trained) -> None:
    before = FstArrays.read(trained.lang.directory / "G.fst")
    after = trained.graph.arrays()
    assert after.start == before.start and after.offsets.tolist() == before.offsets.tolist()
    for name in ("ilabels", "olabels", "nextstates"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    np.testing.assert_allclose(after.weights, before.weights, atol=1e-6)
    np.testing.assert_allclose(after.finals, before.finals, atol=1e-6)


def with_unigrams(arpa: ArpaDict, unigrams: dict[str, float]) -> ArpaDict:
    """The reference: unigrams set, the others scaled, and every backoff weight by its definition, shortest first."""
    known = sum(10 ** arpa.ngrams[(word,)] for word in unigrams if (word,) in arpa.ngrams)
    scale = (1 - sum(unigrams.values())) / (1 - known)
    for word in arpa.words:
        arpa.ngrams[(word,)] += math.log10(scale)
    for word, probability in unigrams.items():
        arpa.ngrams[(word,)] = math.log10(probability)
    for history in sorted(arpa.backoffs, key=len):
        listed = [ngram[-1] for ngram in arpa.ngrams if ngram[:-1] == history]
        free = 1 - sum(10 ** arpa.ngrams[(*history, word)] for word in listed)
        lower = 1 - sum(10 ** arpa.log10(history[1:], word) for word in listed)
        arpa.backoffs[history] = math.log10(free / lower)
    return arpa


def test_new_words_enter_as_in_a_model_that_is_made_with_them(trained: Trained) -> None:
    unigrams = {"N": 0.02, "O": 1e-4, "C": 0.3}  # two new, one known
    graph = trained.graph.with_probabilities({trained.ids[word]: p for word, p in unigrams.items()})
    walk, arpa = Walk(graph.arrays(), trained.lang.words), with_unigrams(ArpaDict(trained.arpa), unigrams)
    assert np.allclose(walk.totals(), 1, atol=1e-6)
    for history in histories():
        for word in (*WORDS, *NEW, "</s>", "<UNK>"):
            expected = 10 ** arpa.log10(("<s>", *history), word)
            assert walk.step(walk.state(history), word)[0] == pytest.approx(expected, rel=2e-5), (history, word)
    assert walk.step(walk.state(("A", "N")), "O")[0] == pytest.approx(1e-4)  # nothing is known after N


def test_sums_hold_in_float64(trained: Trained) -> None:
    before = trained.graph.masses()
    np.testing.assert_allclose(before, 1, atol=1e-6)  # as exact as float32 costs are
    after = trained.graph.with_probabilities({trained.ids["N"]: 0.1}).with_likenesses(
        {trained.ids["A"]: [trained.ids["O"]]}).masses()
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_a_likeness_has_every_context_of_its_model(trained: Trained) -> None:
    graph = trained.graph.with_likenesses({trained.ids["B"]: [trained.ids["N"], trained.ids["O"]]})
    walk, old = Walk(graph.arrays(), trained.lang.words), Walk(trained.graph.arrays(), trained.lang.words)
    assert np.allclose(walk.totals(), 1, atol=1e-6)
    for history in histories():
        whole = old.step(old.state(history), "B")[0]
        assert walk.step(walk.state(history), "B")[0] == pytest.approx(whole / 2, rel=1e-5)
        for word in NEW:
            assert walk.step(walk.state(history), word)[0] == pytest.approx(whole / 4, rel=1e-5)
            assert walk.state((*history, word)) == walk.state((*history, "B"))
        for word in "ACD":
            assert walk.step(walk.state(history), word)[0] == pytest.approx(old.step(old.state(history), word)[0])


def test_a_history_that_leaves_nothing_to_other_words_makes_room() -> None:
    words = ("<eps>", "<UNK>", "A", "N", "#0", "<s>", "</s>")
    log = [-math.log(p) for p in (0.5, 0.5, 0.7, 0.3, 0.9)]  # state 0: the root, state 1: after <s>, all listed
    arrays = FstArrays.from_arcs(1, np.array([log[1], log[3]]), np.array([0, 1, 1]), np.array([2, 2, 4]),
                                 np.array([2, 2, 0]), np.array([log[0], log[2], log[4]]), np.array([0, 0, 0]))
    graph = BackoffGraph.of(arrays, words, "G").with_probabilities({3: 0.01})
    walk = Walk(graph.arrays(), words)
    assert np.allclose(walk.totals(), 1, atol=1e-6)
    assert walk.step(1, "N")[0] == pytest.approx(0.01) and walk.step(1, "A")[0] == pytest.approx(0.7 * 0.99)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_tables_hold_every_ngram_of_the_file(tmp_path: Path, order: int) -> None:
    made = Trained(tmp_path, order)
    model, arpa = made.graph.ngrams(), ArpaDict(made.arpa)
    found = {tuple(model.words[i] for i in ids): (log10, backoff) for number, table in enumerate(model.tables, 1)
             for rows, block in model.blocks(number)
             for ids, log10, backoff in zip(block, table.log10[rows], table.backoff[rows], strict=True)}
    assert found.keys() == arpa.ngrams.keys()
    for ngram, (log10, backoff) in found.items():
        assert log10 == pytest.approx(arpa.ngrams[ngram], abs=1e-5)
        assert backoff == pytest.approx(arpa.backoffs.get(ngram, 0.0), abs=1e-5)


def test_pruned_tables_give_a_smaller_sound_graph(trained: Trained, tmp_path: Path) -> None:
    write_arpa(pruned(trained.graph.ngrams(), 0.03), tmp_path / "small.arpa")
    fst, figures = grammar_fst(tmp_path / "small.arpa", trained.lang.lexicon, trained.lang.directory / "words.txt")
    small = BackoffGraph.of(FstArrays.from_fst(fst), trained.lang.words, "G")
    assert 0 < sum(figures.ngrams.values()) < sum(trained.graph.ngrams().sizes)
    assert len(small.labels) < len(trained.graph.labels)
    np.testing.assert_allclose(small.masses(), 1, atol=1e-5)


def test_new_symbol_tables_move_every_word(trained: Trained) -> None:
    words = tuple(reversed(trained.lang.words))
    moved = Walk(trained.graph.relabelled(words).arrays(), words)
    old = Walk(trained.graph.arrays(), trained.lang.words)
    for history in histories():
        for word in (*WORDS, "</s>"):
            assert moved.step(moved.state(history), word)[0] == old.step(old.state(history), word)[0]


def test_what_is_no_backoff_model_is_refused() -> None:
    words = ("<eps>", "A", "#0", "<s>", "</s>")
    chain = FstArrays.from_arcs(0, np.array([np.inf, np.inf, 0.0]), np.array([0, 1]), np.array([1, 1]),
                                np.array([1, 1]), np.zeros(2), np.array([1, 2]))
    circle = FstArrays.from_arcs(0, np.array([0.0, 0.0]), np.array([0, 1]), np.array([2, 2]), np.zeros(2, int),
                                 np.zeros(2), np.array([1, 0]))
    for arrays in (chain, circle):
        with pytest.raises(UserError, match=r"some/G.fst: not the n-gram model of a recogniser"):
            BackoffGraph.of(arrays, words, "some/G.fst")
