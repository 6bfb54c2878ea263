"""Pronunciations and silences read off alignments, against what the alignment was made from."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmm_toys import ToyStore, TriphoneToy, all_paths

from asr_distill.errors import UserError
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.hmm.prons import count_pronunciations
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang, LangConfig, prepare_lang, with_counts
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.pronprobs import BEGIN_SAID, END_SAID, PronunciationConfig, PronunciationCounts
from asr_distill.lang.silence import Said

LEXICON = Lexicon({
    "A": [Pronunciation(("AH",)), Pronunciation(("EY",), 0.5)],
    "AN": [Pronunciation(("AH", "N")), Pronunciation(("N",))],
    "KNAVE": [Pronunciation(("N", "EY", "V"))],
    "AAH": [Pronunciation(("AH", "AH"))],
})
Spoken = list[tuple[bool, Said]]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "positions"])
def lang(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lang:
    config = LangConfig(silence_probability=0.3, position_dependent=request.param)
    return prepare_lang(LEXICON, tmp_path_factory.mktemp("lang"), config)


def spoken(lang: Lang, utterances: list[Spoken]) -> tuple[Alignment, Any]:
    """An alignment in which every state lasts one to three frames; noises step back now and then."""
    draw = np.random.default_rng(1)
    phones: list[int] = []
    states: list[int] = []
    texts = []
    for number, utterance in enumerate(utterances):
        begin = len(phones)
        for silence, (_, form) in utterance:
            for phone in ["SIL"] * silence + list(form):
                order = [0, 1, 0, 1, 2] if phone.startswith("S") else [0, 1, 2]
                for state in order:
                    length = int(draw.integers(1, 4))
                    phones += [lang.phone_ids[phone]] * length
                    states += [state] * length
        words = [word for _, (word, _) in utterance[:-1]]
        texts.append((f"u{number}", words, np.zeros((len(phones) - begin, 1))))
    count = len(phones)
    alignment = Alignment(np.zeros(count, np.int32), np.array(phones, np.int16), np.array(states, np.int8),
                          np.ones(len(utterances), bool), 1)
    return alignment, ToyStore(texts)


def drawn(lang: Lang, number: int) -> list[Spoken]:
    draw = np.random.default_rng(0)
    utterances = []
    for _ in range(number):
        utterance: Spoken = []
        for word in draw.choice(lang.lexicon.words, size=draw.integers(1, 6)).tolist():
            forms = lang.lexicon.pronunciations(word)
            utterance.append((bool(draw.random() < 0.4), (word, forms[draw.integers(len(forms))].phones)))
        utterances.append([*utterance, (bool(draw.random() < 0.8), END_SAID)])
    return utterances


def totals(utterances: list[Spoken]) -> Counter[tuple[Said, bool, Said]]:
    return Counter((before, silence, said) for utterance in utterances for (_, before), (silence, said)
                   in itertools.pairwise([(False, BEGIN_SAID), *utterance]))


def test_what_was_said_is_counted(lang: Lang) -> None:
    utterances = drawn(lang, 300)
    alignment, store = spoken(lang, utterances)
    counts = count_pronunciations(alignment, store, monophone_model(lang.phones), lang)
    assert (counts.utterances, counts.unmatched) == (300, 0)
    assert counts.gaps == totals(utterances)


def test_of_two_readings_the_likelier_is_counted(tmp_path: Path) -> None:
    lang = prepare_lang(Lexicon({"A": [Pronunciation(("AH",)), Pronunciation(("AH", "N"), 0.1)],
                                 "EY": [Pronunciation(("EY",)), Pronunciation(("N", "EY"), 0.2)]}), tmp_path)
    alignment, store = spoken(lang, [[(False, ("A", ("AH", "N"))), (False, ("EY", ("EY",))), (False, END_SAID)]])
    counts = count_pronunciations(alignment, store, monophone_model(lang.phones), lang)
    assert counts.said() == {("A", ("AH",)): 1, ("EY", ("N", "EY")): 1}


def test_left_out_utterances_and_wrong_directories(lang: Lang) -> None:
    utterances = drawn(lang, 20)
    alignment, store = spoken(lang, utterances)
    hmm = monophone_model(lang.phones)
    alignment.aligned[0] = False
    alignment.phone_ids[store.offsets[0] : store.offsets[1]] = -1
    alignment.states[store.offsets[0] : store.offsets[1]] = -1
    store.utterances[1] = type(store.utterances[1])("u1", "one", ("A",) * 9, 1.0)
    counts = count_pronunciations(alignment, store, hmm, lang)
    assert (counts.utterances, counts.unmatched) == (18, 1) and counts.gaps == totals(utterances[2:])
    for index in range(20):
        store.utterances[index] = store.utterances[1]
    with pytest.raises(UserError, match="spells no aligned utterance"):
        count_pronunciations(alignment, store, hmm, lang)
    with pytest.raises(UserError, match="do not belong together"):
        count_pronunciations(alignment, store, monophone_model(lang.phones[:-1]), lang)


def paths_of_lexicon(lang: Lang, words: tuple[str, ...]) -> list[tuple[tuple[int, ...], float]]:
    """Every phone sequence that L.fst maps to `words`, with its log-weight, by walking its arcs."""
    fst = lang.fst("L")
    acceptor = kaldifst.make_linear_acceptor([lang.word_ids[lang.word_or_unknown(word)] for word in words])
    graph = FstArrays.from_fst(kaldifst.StdVectorFst(kaldifst.compose(fst, acceptor)))
    found = []
    stack: list[tuple[int, tuple[int, ...], float]] = [(graph.start, (), 0.0)]
    while stack:
        state, phones, cost = stack.pop()
        if np.isfinite(graph.finals[state]) and phones:
            found.append((phones, -cost - float(graph.finals[state])))
        for arc in range(graph.offsets[state], graph.offsets[state + 1]):
            label = int(graph.ilabels[arc])
            stack.append((int(graph.nextstates[arc]), (*phones, label) if label else phones,
                          cost + float(graph.weights[arc])))
    return found


@pytest.mark.parametrize("estimated", [False, True], ids=["one", "by_word"])
@pytest.mark.parametrize("words", [("A",), ("A", "AN"), ("AN", "A", "AAH"), ("NEVERSEEN", "KNAVE"), ()])
def test_alignment_graphs_weigh_as_the_lexicon_transducer(lang: Lang, tmp_path: Path, words: tuple[str, ...],
                                                          estimated: bool) -> None:
    if estimated:
        lang = with_counts(lang, PronunciationCounts(totals(drawn(lang, 40)), 40), tmp_path, PronunciationConfig())
        assert lang.silence.by_word
    expected = paths_of_lexicon(lang, words)
    assert expected and not any(math.isinf(weight) for _, weight in expected)
    for hmm in (monophone_model(lang.phones), HmmModel(lang.phones, (3,) * len(lang.phones), TriphoneToy())):
        graph = GraphCompiler(hmm, lang).compile(words)
        found = [(tuple(graph.phone[list(path)][::3].tolist()), weight) for path, weight in all_paths(graph)]
        for one, other in zip(sorted(found), sorted(expected), strict=True):
            assert one == (other[0], pytest.approx(other[1], abs=1e-4))
