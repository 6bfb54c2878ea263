"""Alignment graphs against enumeration straight from the lexicon."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hmm_toys import ENTRIES, TriphoneToy, all_paths, toy_lang

from asr_distill.errors import UserError
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.lang.lang import UNKNOWN_WORD
from asr_distill.lang.lexicon import Pronunciation


def spellings(words: tuple[str, ...], lang: Any) -> Counter[tuple[tuple[int, ...], float]]:
    """Every phone sequence that the words allow, with its log-weight (rounded)."""
    ids = {phone: i for i, phone in enumerate(lang.phones, 1)}
    choices = [lang.lexicon.pronunciations(lang.word_or_unknown(word)) for word in words]
    found: Counter[tuple[tuple[int, ...], float]] = Counter()
    for variants in itertools.product(*choices):
        for silences in itertools.product([False, True], repeat=len(words) + 1):
            chance = math.prod(p.probability for p in variants)
            chance *= math.prod(lang.silence_probability if s else 1 - lang.silence_probability for s in silences)
            phones = [1] * silences[0]
            for variant, silence in zip(variants, silences[1:], strict=True):
                phones += [ids[phone] for phone in variant.phones] + [1] * silence
            if chance > 0 and phones:
                found[tuple(phones), round(math.log(chance), 4)] += 1
    return found


TRANSCRIPTS = [("A",), ("A", "BACK"), ("BACK", "A", "CAB"), ("NEVERSEEN", "A"), ("CAB", "CAB"), ()]


CASES = [(words, silence) for words in TRANSCRIPTS for silence in (0.5, 0.2, 0.0) if words or silence]


@pytest.mark.parametrize(("words", "silence"), CASES)
def test_monophone_graph_spells_exactly_what_the_lexicon_allows(words: tuple[str, ...], silence: float) -> None:
    lang = toy_lang(silence=silence)
    hmm = monophone_model(lang.phones)
    graph = GraphCompiler(hmm, lang).compile(words)
    found: Counter[tuple[tuple[int, ...], float]] = Counter()
    for path, weight in all_paths(graph):
        assert graph.state[list(path)].tolist() == [0, 1, 2] * (len(path) // 3)
        phones = tuple(graph.phone[list(path)][::3].tolist())
        assert graph.pdf[list(path)].tolist() == [hmm.tree.pdf(0, p, 0, s) for p in phones for s in range(3)]
        found[phones, round(weight, 4)] += 1
    assert found == spellings(words, lang)


@pytest.mark.parametrize(("words", "silence"), CASES)
def test_triphone_graph_sees_every_true_neighbour(words: tuple[str, ...], silence: float) -> None:
    lang = toy_lang(silence=silence)
    tree = TriphoneToy()
    states = (2, *[3] * (len(lang.phones) - 1))
    graph = GraphCompiler(HmmModel(lang.phones, states, tree), lang).compile(words)
    expected: Counter[tuple[tuple[tuple[int, int, int, int], ...], float]] = Counter()
    for (phones, weight), count in spellings(words, lang).items():
        contexts = zip((0, *phones), phones, (*phones[1:], 0), strict=False)
        expected[tuple((*c, s) for c in contexts for s in range(states[c[1] - 1])), weight] += count
    names = {pdf: key for key, pdf in tree.seen.items()}
    found = Counter((tuple(names[int(graph.pdf[s])] for s in path), round(weight, 4))
                    for path, weight in all_paths(graph))
    assert found == expected


def test_states_know_their_word() -> None:
    lang = toy_lang()
    graph = GraphCompiler(monophone_model(lang.phones), lang).compile(("A", "CAB"))
    assert set(graph.word.tolist()) == {-1, 0, 1}
    assert (graph.word == -1).tolist() == (graph.phone == 1).tolist()
    for path, _ in all_paths(graph):
        words = [w for w in graph.word[list(path)].tolist() if w >= 0]
        assert words == sorted(words) and set(words) == {0, 1}


def test_predecessors_come_first_and_the_shortest_path_is_counted() -> None:
    lang = toy_lang()
    for width in (1, 3):
        tree = TriphoneToy() if width == 3 else monophone_model(lang.phones).tree
        graph = GraphCompiler(HmmModel(lang.phones, (3,) * len(lang.phones), tree), lang).compile(("BACK", "A"))
        states, weights = graph.predecessors()
        used = np.isfinite(weights)
        assert (states < np.arange(len(graph))[:, None])[used].all()
        assert graph.shortest() == min(len(path) for path, _ in all_paths(graph)) == 9


def test_a_phone_that_the_hmm_lacks_is_named() -> None:
    lang = toy_lang()
    with pytest.raises(UserError, match=r"'CAB'.*'K'"):
        GraphCompiler(monophone_model(("SIL", "SPN", "AA", "B")), lang).compile(("A", "CAB"))


def test_nothing_at_all_to_align_is_refused() -> None:
    lang = toy_lang(silence=0.0)
    with pytest.raises(UserError, match="without words"):
        GraphCompiler(monophone_model(lang.phones), lang).compile(())


def test_too_many_pronunciations_are_refused() -> None:
    entries = {**ENTRIES, "MANY": tuple(Pronunciation(("B",) * n) for n in range(1, 300))}
    lang = toy_lang(entries)
    with pytest.raises(UserError, match="prune the lexicon"):
        GraphCompiler(monophone_model(lang.phones), lang).compile(("MANY", "A"))
    assert UNKNOWN_WORD in entries
