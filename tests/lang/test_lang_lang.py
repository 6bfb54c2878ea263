"""L against enumeration, G against the ARPA model, the directory."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from lang_arpa_dict import ArpaDict

from asr_distill.errors import UserError
from asr_distill.kaldi import kaldifst
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.lang import Lang, LangConfig, add_grammar, prepare_lang
from asr_distill.lang.lexicon import Lexicon, Pronunciation
from asr_distill.lang.lexicon_fst import disambiguated, entries_of

LEXICON = Lexicon({
    "TO": [Pronunciation(("T", "UW"))],
    "TWO": [Pronunciation(("T", "UW"), 0.8)],
    "TOO": [Pronunciation(("T", "UW"))],
    "TOOT": [Pronunciation(("T", "UW", "T"))],
    "A": [Pronunciation(("AH",)), Pronunciation(("EY",), 0.5)],
    "EIGHT": [Pronunciation(("EY", "T"))],
    "HUSH": [Pronunciation(("SIL",))],
})
ARPA = """\\data\\
ngram 1=7
ngram 2=5
ngram 3=2

\\1-grams:
-99 <s> -0.2
-0.8 </s>
-0.5 TO -0.3
-0.8 A -0.1
-0.7 TWO -0.25
-1.2 STRANGER -0.2
-2.0 <unk>

\\2-grams:
-0.5 <s> A -0.15
-0.4 A TO -0.05
-0.6 TO A
-0.9 STRANGER A
-0.3 A </s>

\\3-grams:
-0.2 <s> A TO
-0.1 A TO A

\\end\\
"""
SILENCE = 0.2


def total_cost(fst: kaldifst.StdFst) -> float:
    best = kaldifst.shortest_path(fst)
    return math.inf if best.num_states == 0 else float(kaldifst.get_linear_symbol_sequence(best)[3].value)


def accepts(fst: kaldifst.StdVectorFst, inputs: list[int], outputs: list[int]) -> float:
    """Least cost of reading and writing exactly these labels."""
    left = kaldifst.StdVectorFst(kaldifst.compose(kaldifst.make_linear_acceptor(inputs), fst))
    kaldifst.arcsort(left, sort_type="olabel")
    return total_cost(kaldifst.compose(left, kaldifst.make_linear_acceptor(outputs)))


@pytest.fixture(scope="module")
def lang(tmp_path_factory: pytest.TempPathFactory) -> Lang:
    return prepare_lang(LEXICON, tmp_path_factory.mktemp("lang"), LangConfig(silence_probability=SILENCE))


def test_symbols(lang: Lang) -> None:
    assert lang.phones == ("SIL", "SPN", "AH", "EY", "T", "UW")
    assert lang.words == ("<eps>", "<UNK>", "A", "EIGHT", "HUSH", "TO", "TOO", "TOOT", "TWO", "#0", "<s>", "</s>")
    table = (lang.directory / "phones.txt").read_text().split()
    assert [table[2 * i] for i in lang.disambig] == ["#0", "#1", "#2", "#3", "#4"]
    assert lang.word_or_unknown("TOO") == "TOO" and lang.word_or_unknown("XYZ") == "<UNK>"
    assert dict(lang.lexicon) == dict(LEXICON)
    assert lang.silence_probability == SILENCE


def test_phones_know_their_place_in_the_word(tmp_path: Path) -> None:
    config = LangConfig(position_dependent=True)
    lang = prepare_lang(LEXICON, tmp_path, config)
    assert lang.phones == ("SIL", "SPN_S", "AH_S", "EY_B", "EY_S", "T_B", "T_E", "UW_E", "UW_I")
    assert lang.config == config
    expected = {"TO": [("T_B", "UW_E")], "TOOT": [("T_B", "UW_I", "T_E")], "A": [("AH_S",), ("EY_S",)],
                "EIGHT": [("EY_B", "T_E")], "HUSH": [("SIL",)], "<UNK>": [("SPN_S",)]}
    for word, phones in expected.items():
        assert [p.phones for p in lang.lexicon.pronunciations(word)] == phones
    assert [p.probability for p in lang.lexicon.pronunciations("A")] == [1.0, 0.5]
    # EY begins EIGHT no more, nor T UW TOOT: only the homophones TO, TWO, TOO are marked.
    assert len(lang.disambig) == 5
    marked, last = disambiguated(entries_of(lang.lexicon))
    assert last == 3 and {word for word, phones, _ in marked if phones[-1].startswith("#")} == {"TO", "TWO", "TOO"}
    fst = lang.fst("L")
    kaldifst.arcsort(fst, sort_type="ilabel")
    phones = [lang.phone_ids[phone] for phone in ("T_B", "UW_I", "T_E", "SIL", "AH_S")]
    words = [lang.word_ids["TOOT"], lang.word_ids["A"]]
    assert accepts(fst, phones, words) == pytest.approx(3 * math.log(2), abs=1e-5)
    with pytest.raises(UserError, match="'AH_S' has a position"):
        lang.lexicon.positioned()


def test_disambiguation_marks_homophones_and_prefixes() -> None:
    marked, last = disambiguated(entries_of(LEXICON))
    forms = {(word, phones) for word, phones, _ in marked}
    assert last == 3 and len({phones for _, phones in forms}) == len(forms)
    assert ("TOOT", ("T", "UW", "T")) in forms and ("A", ("AH",)) in forms
    assert ("A", ("EY", "#1")) in forms  # begins EIGHT
    assert {phones[-1] for word, phones in forms if word in ("TO", "TWO", "TOO")} == {"#1", "#2", "#3"}


@pytest.mark.parametrize("name", ["L", "L_disambig"])
def test_lexicon_transducer_by_enumeration(lang: Lang, name: str) -> None:
    fst = lang.fst(name)
    kaldifst.arcsort(fst, sort_type="ilabel")
    phone_ids = {line.split()[0]: int(line.split()[1])
                 for line in (lang.directory / "phones.txt").read_text().splitlines()}
    entries = entries_of(LEXICON)
    silence = ["SIL"]
    if name == "L_disambig":
        entries, last = disambiguated(entries)
        silence = ["SIL", f"#{last + 1}"]
    expected: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for length in range(3):
        for said in itertools.product(entries, repeat=length):
            for gaps in itertools.product((False, True), repeat=length + 1):
                phones = silence * gaps[0]
                for (_, form, _), gap in zip(said, gaps[1:], strict=True):
                    phones = [*phones, *form, *(silence if gap else [])]
                cost = sum(e[2] for e in said) - sum(math.log(SILENCE if gap else 1 - SILENCE) for gap in gaps)
                key = (tuple(phone_ids[p] for p in phones), tuple(lang.word_ids[e[0]] for e in said))
                expected[key] = min(cost, expected.get(key, math.inf))
    assert len(expected) > 300
    for (phones, words), cost in expected.items():
        if phones:
            assert accepts(fst, list(phones), list(words)) == pytest.approx(cost, abs=1e-4)
    assert accepts(fst, [phone_ids["T"]], []) == math.inf


def test_lexicon_with_symbols_is_determinizable(lang: Lang) -> None:
    for use_log in (False, True):
        fst = lang.fst("L_disambig")
        stopped = kaldifst.determinize_star(fst, use_log=use_log, max_states=10000)
        assert not stopped and 0 < fst.num_states < 100
        arrays = FstArrays.from_fst(fst)
        labels = np.stack([arrays.sources(), arrays.ilabels], axis=1)
        assert len(np.unique(labels, axis=0)) == arrays.num_arcs  # no two arcs of a state read the same symbol


def test_silence_can_be_left_out(tmp_path: Path) -> None:
    lang = prepare_lang(LEXICON, tmp_path, LangConfig(silence_probability=0.0))
    fst = lang.fst("L")
    kaldifst.arcsort(fst, sort_type="ilabel")
    ids = lang.phone_ids
    assert accepts(fst, [ids["AH"]], [lang.word_ids["A"]]) == pytest.approx(0.0, abs=1e-6)
    assert accepts(fst, [ids["SIL"], ids["AH"]], [lang.word_ids["A"]]) == math.inf
    with pytest.raises(ValueError, match="silence_probability"):
        LangConfig(silence_probability=1.0)


def sound_arpa(words: dict[str, float]) -> str:
    """ARPA with its backoff weights made right: every history's probabilities sum to one."""
    unigrams = {"</s>": 0.2, "<unk>": 0.05, **words}
    assert math.isclose(sum(unigrams.values()), 1.0)
    bigrams = {"<s>": {"A": 0.4, "STRANGER": 0.1}, "A": {"TO": 0.5, "</s>": 0.2}, "TO": {"A": 0.3}}
    trigrams = {("<s>", "A"): {"TO": 0.6}, ("A", "TO"): {"A": 0.7}}

    def log(value: float) -> str:
        return f"{math.log10(value):.7f}"

    def below(history: str, word: str) -> float:
        listed = bigrams[history]
        if word in listed:
            return listed[word]
        rest = (1 - sum(listed.values())) / (1 - sum(unigrams[w] for w in listed))
        return rest * unigrams[word]

    lines = ["\\data\\", f"ngram 1={len(unigrams) + 1}", "ngram 2=5", "ngram 3=2", "", "\\1-grams:"]
    for word, probability in {"<s>": 1e-99, **unigrams}.items():
        tail = ""
        if word in bigrams:
            listed = bigrams[word]
            tail = " " + log((1 - sum(listed.values())) / (1 - sum(unigrams[w] for w in listed)))
        lines.append(f"{log(probability)} {word}{tail}")
    lines += ["", "\\2-grams:"]
    for history, listed in bigrams.items():
        for word, probability in listed.items():
            tail = ""
            if (history, word) in trigrams:
                upper = trigrams[history, word]
                tail = " " + log((1 - sum(upper.values())) / (1 - sum(below(word, w) for w in upper)))
            lines.append(f"{log(probability)} {history} {word}{tail}")
    lines += ["", "\\3-grams:"]
    lines += [f"{log(p)} {' '.join(history)} {word}" for history, listed in trigrams.items()
              for word, p in listed.items()]
    return "\n".join([*lines, "", "\\end\\", ""])


def test_grammar_weights_are_the_models(tmp_path: Path) -> None:
    """Every sentence of up to four words, backing off only where an n-gram is missing."""
    (tmp_path / "lm.arpa").write_text(sound_arpa({"TO": 0.3, "A": 0.25, "TWO": 0.15, "STRANGER": 0.05}))
    lang = prepare_lang(LEXICON, tmp_path / "lang")
    figures = add_grammar(lang, tmp_path / "lm.arpa")
    assert figures.dropped_words == 1 and figures.dropped_ngrams == 2  # STRANGER, <s> STRANGER
    assert figures.ngrams == {1: 6, 2: 4, 3: 2}
    model = ArpaDict(tmp_path / "lm.arpa")
    arrays = FstArrays.read(lang.directory / "G.fst")
    assert set(np.unique(arrays.olabels)) <= {lang.word_ids[w] for w in ("TO", "A", "TWO", "<UNK>")} | {0}
    backoff = arrays.ilabels == lang.word_ids["#0"]
    assert backoff.any() and not arrays.olabels[backoff].any() and not (arrays.ilabels == 0).any()
    for length in range(5):
        for sentence in itertools.product(("TO", "A", "TWO"), repeat=length):
            history, cost = ["<s>"], 0.0
            for word in (*sentence, "</s>"):
                cost -= math.log(10) * model.log10(history, word)
                history.append(word)
            found = grammar_cost(arrays, [lang.word_ids[word] for word in sentence], lang.word_ids["#0"])
            assert found == pytest.approx(cost, abs=1e-3), sentence


def grammar_cost(graph: FstArrays, words: list[int], backoff: int) -> float:
    """Follow G as a failure automaton: the backoff arc only where no arc (or final weight) matches."""
    state, cost = graph.start, 0.0
    for word in [*words, None]:
        while True:
            arcs = range(graph.offsets[state], graph.offsets[state + 1])
            if word is None and np.isfinite(graph.finals[state]):
                return cost + float(graph.finals[state])
            match = [arc for arc in arcs if word is not None and graph.ilabels[arc] == word]
            step = match or [arc for arc in arcs if graph.ilabels[arc] == backoff]
            if not step:
                return math.inf
            cost += float(graph.weights[step[0]])
            state = int(graph.nextstates[step[0]])
            if match:
                break
    raise AssertionError


def test_wrong_models_are_refused(lang: Lang, tmp_path: Path) -> None:
    strange = sound_arpa({"TO": 0.3, "A": 0.25, "TWO": 0.15, "STRANGER": 0.05})
    for old, new in (("TO", "QTO"), ("A", "QA"), ("TWO", "QTWO"), ("<unk>", "QUNK")):
        strange = "\n".join(" ".join(new if field == old else field for field in line.split(" "))
                            for line in strange.split("\n"))
    (tmp_path / "lm.arpa").write_text(strange)
    with pytest.raises(UserError, match="no word of this language model"):
        add_grammar(lang, tmp_path / "lm.arpa")
    with pytest.raises(UserError, match="no such file"):
        add_grammar(lang, tmp_path / "none.arpa")
    (tmp_path / "lm.arpa").write_text(ARPA)
    with pytest.raises(UserError, match="broken language model"):
        add_grammar(lang, tmp_path / "lm.arpa")
    with pytest.raises(UserError, match="add a language model"):
        lang.fst("G")


def test_damaged_directories(lang: Lang, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Lang(tmp_path)
    for name in ("lexiconp.txt", "phones.txt", "words.txt", "lang.json"):
        (tmp_path / name).write_bytes((lang.directory / name).read_bytes())
    (tmp_path / "lang.json").write_text('{"silence_probability": 2}')
    with pytest.raises(UserError, match=r"lang\.json: .*prepare it again"):
        Lang(tmp_path)
    (tmp_path / "words.txt").write_text("<eps> 0\nA 2\n")
    with pytest.raises(UserError, match=r"words\.txt:2"):
        Lang(tmp_path)


def test_arrays_round_trip(lang: Lang, tmp_path: Path) -> None:
    path = lang.directory / "L.fst"
    arrays = FstArrays.read(path)
    fst = lang.fst("L")
    assert (arrays.num_states, arrays.start) == (fst.num_states, fst.start)
    for state in range(fst.num_states):
        found = [(a.ilabel, a.olabel, a.weight.value, a.nextstate) for a in kaldifst.ArcIterator(fst, state)]
        span = slice(arrays.offsets[state], arrays.offsets[state + 1])
        assert found == list(zip(arrays.ilabels[span].tolist(), arrays.olabels[span].tolist(),
                                 arrays.weights[span].tolist(), arrays.nextstates[span].tolist(), strict=True))
        assert arrays.finals[state] == fst.final(state).value
    arrays.write(tmp_path / "again.fst")
    assert (tmp_path / "again.fst").read_bytes()[66:] == path.read_bytes()[66:]
    assert FstArrays.from_fst(arrays.to_fst()).num_arcs == arrays.num_arcs
    (tmp_path / "cut.fst").write_bytes(path.read_bytes()[:-8])
    (tmp_path / "text.fst").write_text("0 1 2\n" * 50)
    (tmp_path / "tiny.fst").write_text("x")
    for name, message in (("cut", "damaged"), ("text", "damaged"), ("tiny", "too short"), ("none", "no such")):
        with pytest.raises(UserError, match=message):
            FstArrays.read(tmp_path / f"{name}.fst")
