"""Word-dependent silence and pronunciation probabilities: L by enumeration, estimates by hand, files."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang, LangConfig, prepare_lang, with_counts
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.lexicon_fst import disambiguated, entries_of
from asr_distill.lang.pronprobs import (
    BEGIN_SAID,
    END_SAID,
    PronunciationConfig,
    PronunciationCounts,
    silence_model,
    with_probabilities,
)
from asr_distill.lang.silence import Said, SilenceModel

LEXICON = Lexicon({
    "TO": [Pronunciation(("T", "UW"))],
    "TWO": [Pronunciation(("T", "UW"))],
    "TOOT": [Pronunciation(("T", "UW", "T"))],
    "A": [Pronunciation(("AH",)), Pronunciation(("EY",))],
})
A_AH, A_EY, TO, TWO = ("A", ("AH",)), ("A", ("EY",)), ("TO", ("T", "UW")), ("TWO", ("T", "UW"))
UTTERANCES: list[list[tuple[bool, Said]]] = [  # silence before it, what was said
    [(True, A_AH), (False, TO), (True, A_EY), (True, END_SAID)],
    [(True, TO), (False, A_AH), (False, TO), (True, END_SAID)],
    [(False, A_AH), (False, A_AH), (True, TWO), (False, END_SAID)],
]


def counted() -> PronunciationCounts:
    gaps: Counter[tuple[Said, bool, Said]] = Counter()
    for utterance in UTTERANCES:
        before = BEGIN_SAID
        for silence, said in utterance:
            gaps[before, silence, said] += 1
            before = said
    return PronunciationCounts(gaps, len(UTTERANCES))


@pytest.fixture(scope="module")
def lang(tmp_path_factory: pytest.TempPathFactory) -> Lang:
    folder = tmp_path_factory.mktemp("silence")
    plain = prepare_lang(LEXICON, folder / "plain", LangConfig(silence_probability=0.5))
    (plain.directory / "G.fst").write_bytes(b"a grammar")
    (plain.directory / "grammar.json").write_text("{}")
    return with_counts(plain, counted(), folder / "counted", PronunciationConfig())


def test_pronunciations_by_hand() -> None:
    counts = counted()
    assert counts.said() == {A_AH: 4, A_EY: 1, TO: 3, TWO: 1}
    lexicon = with_probabilities(LEXICON, counts, 1.0)
    assert [p.probability for p in lexicon.pronunciations("A")] == [1.0, pytest.approx(2 / 5)]
    assert [p.probability for p in lexicon.pronunciations("TOOT")] == [1.0]
    # What the lexicon itself says is the prior: 4 + 2 * 0.5 against 1 + 2 * 1.
    prior = Lexicon({"A": [Pronunciation(("AH",), 0.5), Pronunciation(("EY",))]})
    assert [p.probability for p in with_probabilities(prior, counts, 2.0).pronunciations("A")] == [
        1.0, pytest.approx(3 / 5)]


def test_silence_by_hand() -> None:
    config = PronunciationConfig(silence=2.0, correction=3.0)
    model = silence_model(counted(), 0.5, config)
    # Nine gaps follow a word: A_AH x 4 (one silent: TWO), A_EY, TO x 3 (two silent), TWO.
    overall = (4 + 2 * 0.5) / (9 + 2)
    assert model.probability == pytest.approx(overall)
    after = {said: (silent + 2 * overall) / (count + 2) for said, silent, count in
             [(BEGIN_SAID, 2, 3), (A_AH, 1, 4), (A_EY, 1, 1), (TO, 2, 3), (TWO, 0, 1)]}
    assert model.begin == pytest.approx(after[BEGIN_SAID])
    for said in (A_AH, A_EY, TO, TWO):
        assert model.around(*said).after == pytest.approx(after[said])
    # Before TO: <s> with silence, A_AH twice without.
    expected = after[BEGIN_SAID] + 2 * after[A_AH]
    assert model.around(*TO).factor_silence == pytest.approx((1 + 3) / (expected + 3))
    assert model.around(*TO).factor_none == pytest.approx((2 + 3) / (3 - expected + 3))
    expected = after[A_EY] + after[TO] + after[TWO]
    assert model.end.factor_silence == pytest.approx((2 + 3) / (expected + 3))
    assert model.end.factor_none == pytest.approx((1 + 3) / (3 - expected + 3))
    assert model.around("TOOT", ("T", "UW", "T")) == (model.probability, 1.0, 1.0)
    with pytest.raises(UserError, match="silence_probability 0"):
        silence_model(counted(), 0.0, config)
    with pytest.raises(ValueError, match="correction"):
        PronunciationConfig(correction=0.0)


def accepted(fst: kaldifst.StdVectorFst, inputs: list[int], outputs: list[int]) -> float:
    left = kaldifst.StdVectorFst(kaldifst.compose(kaldifst.make_linear_acceptor(inputs), fst))
    kaldifst.arcsort(left, sort_type="olabel")
    best = kaldifst.shortest_path(kaldifst.compose(left, kaldifst.make_linear_acceptor(outputs)))
    return math.inf if best.num_states == 0 else float(kaldifst.get_linear_symbol_sequence(best)[3].value)


@pytest.mark.parametrize("name", ["L", "L_disambig"])
def test_lexicon_transducer_by_enumeration(lang: Lang, name: str) -> None:
    fst = lang.fst(name)
    kaldifst.arcsort(fst, sort_type="ilabel")
    phone_ids = {line.split()[0]: int(line.split()[1])
                 for line in (lang.directory / "phones.txt").read_text().splitlines()}
    entries = entries_of(lang.lexicon)
    pause = ["SIL"]
    if name == "L_disambig":
        entries, last = disambiguated(entries)
        pause = ["SIL", f"#{last + 1}"]
    model = lang.silence
    expected: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for length in range(3):
        for said in itertools.product(entries, repeat=length):
            keys = [(word, tuple(p for p in form if p[0] != "#")) for word, form, _ in said]
            around = [model.around(*key) for key in keys]
            for gaps in itertools.product((False, True), repeat=length + 1):
                befores = [model.begin, *(each.after for each in around)]
                chance = math.prod(p if gap else 1 - p for p, gap in zip(befores, gaps, strict=True))
                chance *= math.prod(each.factor_silence if gap else each.factor_none
                                    for each, gap in zip([*around, model.end], gaps, strict=True))
                phones = pause * gaps[0]
                for (_, form, _), gap in zip(said, gaps[1:], strict=True):
                    phones = [*phones, *form, *(pause if gap else [])]
                cost = sum(entry[2] for entry in said) - math.log(chance)
                key = (tuple(phone_ids[p] for p in phones), tuple(lang.word_ids[entry[0]] for entry in said))
                expected[key] = min(cost, expected.get(key, math.inf))
    assert len(expected) > 200
    for (phones, words), cost in expected.items():
        if phones:
            assert accepted(fst, list(phones), list(words)) == pytest.approx(cost, abs=1e-4)
    assert accepted(fst, [phone_ids["T"]], []) == math.inf


def test_lexicon_with_symbols_is_determinizable(lang: Lang) -> None:
    for use_log in (False, True):
        fst = lang.fst("L_disambig")
        stopped = kaldifst.determinize_star(fst, use_log=use_log, max_states=10000)
        assert not stopped and 0 < fst.num_states < 100


def test_files_round_trip_and_the_grammar_is_kept(lang: Lang, tmp_path: Path) -> None:
    assert (lang.directory / "G.fst").read_bytes() == b"a grammar"
    plain = lang.directory.parent / "plain"
    for name in ("phones.txt", "words.txt"):
        assert (lang.directory / name).read_bytes() == (plain / name).read_bytes()
    model = silence_model(counted(), 0.5, PronunciationConfig())
    assert lang.silence_probability == model.probability
    assert lang.silence.words.keys() == model.words.keys()
    for said, around in model.words.items():
        assert lang.silence.around(*said) == pytest.approx(around, rel=1e-5)
    assert lang.silence.end == pytest.approx(model.end, rel=1e-5)
    assert lang.silence.begin == pytest.approx(model.begin, rel=1e-5)
    line = (lang.directory / "lexiconp_silprob.txt").read_text().splitlines()[0].split()
    assert (line[0], line[5:]) == ("TO", ["T", "UW"]) and [float(x) for x in line[1:5]] == pytest.approx(
        [1.0, *model.around(*TO)], rel=1e-5)
    for name in lang.alignment_files:
        (tmp_path / name).write_bytes((lang.directory / name).read_bytes())
    assert Lang(tmp_path).silence == lang.silence
    (tmp_path / "lexiconp_silprob.txt").write_text("TO 1 0.5 x 1 T UW\n")
    with pytest.raises(UserError, match=r"lexiconp_silprob\.txt:1: expected 4 positive numbers"):
        Lang(tmp_path)
    (tmp_path / "silprob.txt").write_text("<s> 0.5\n")
    with pytest.raises(UserError, match=r"silprob\.txt: must have the lines"):
        Lang(tmp_path)
    (tmp_path / "silprob.txt").unlink()
    with pytest.raises(UserError, match=r"silprob\.txt: no such file"):
        Lang(tmp_path)


def test_one_probability_needs_no_second_state(lang: Lang) -> None:
    plain = Lang(lang.directory.parent / "plain")
    assert plain.silence == SilenceModel.constant(0.5) and not plain.silence.by_word
    assert not (plain.directory / "silprob.txt").exists()
    states = FstArrays.read(plain.directory / "L.fst").num_states
    assert FstArrays.read(lang.directory / "L.fst").num_states == states + 1
