"""Words in sentencepiece units: every word spelled, L of exactly these spellings, the same model each time."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece

from asr_distill.config import load_settings
from asr_distill.errors import UserError
from asr_distill.kaldi import kaldifst
from asr_distill.lang.build import LangSettings, build_lang
from asr_distill.lang.lang import Lang, LangConfig, prepare_lang, with_counts, with_lexicon
from asr_distill.lang.lexicon import Lexicon
from asr_distill.lang.new_words import NewWord, positioned, pronounce
from asr_distill.lang.pieces import FACTS_FILE, MODEL_FILE, PieceConfig, Pieces, letters_of
from asr_distill.lang.pronprobs import BEGIN_SAID, END_SAID, PronunciationConfig, PronunciationCounts

STEMS = ["SING", "RING", "THING", "WALK", "TALK", "STALK", "REST", "TEST", "BASIL", "SILO"]
SPOKEN = {stem + end: 3 + number for number, stem in enumerate(STEMS) for end in ("", "ING", "ED", "S")} | {"THE": 60}
SMALL = PieceConfig(vocab_size=40, min_begins=5)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    return Pieces.train(SPOKEN, {}, SMALL, tmp_path_factory.mktemp("pieces"))


def joined(phones: tuple[str, ...]) -> str:
    """The letters that phones spell, by their names alone."""
    names = [phone[1:-1] if phone.startswith("|") else phone for phone in phones]
    assert not any("▁" in name for name in names[1:])
    return "".join(names).removeprefix("▁")


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_every_word_of_known_letters_is_spelled(model: str, tmp_path: Path) -> None:
    pieces = Pieces.train(SPOKEN, {}, PieceConfig(model=model, vocab_size=40), tmp_path)  # type: ignore[arg-type]
    for word in [*SPOKEN, "GNAT", "A", "SSS", "OWLET", "LLANWALTEISLTHEDBORK"]:
        (spelling,) = pieces.spell(word)
        assert joined(spelling.phones) == word
        assert all(len(name) <= SMALL.max_letters + 2 for name in spelling.phones)
    assert len(pieces.spell("THE")[0].phones) < 3  # the commonest word is no row of letters
    assert len({phone for word in SPOKEN for phone in pieces.spell(word)[0].phones}) <= 40


def test_a_letter_that_begins_few_words_has_one_form(pieces: Pieces) -> None:
    assert pieces.spell("TEST")[0].phones[0].startswith("▁T")
    assert pieces.spell("ED")[0].phones[0][0] == "E"  # no word of the transcripts begins with E


def test_the_same_words_give_the_same_model_in_any_order(pieces: Pieces, tmp_path: Path) -> None:
    again = Pieces.train(dict(reversed(SPOKEN.items())), {}, SMALL, tmp_path)
    assert (tmp_path / MODEL_FILE).read_bytes() and again.digest == pieces.digest
    assert Pieces(tmp_path).spell("STALKING") == pieces.spell("STALKING")
    other = Pieces.train(SPOKEN, {}, PieceConfig(vocab_size=30), tmp_path / "other")
    assert other.digest != pieces.digest


def test_a_word_of_other_letters_is_an_error_that_names_them(pieces: Pieces) -> None:
    assert not pieces.spells("ÉTÉ") and pieces.spells("SETTEE")
    with pytest.raises(UserError, match="cannot spell 'ÉTÉ': no training transcript has 'É'"):
        pieces.spell("ÉTÉ")


def test_several_segmentations_are_those_of_highest_probability(tmp_path: Path) -> None:
    """Against all ways to cut the word into pieces of the model."""
    pieces = Pieces.train(SPOKEN, {}, PieceConfig(vocab_size=40, segmentations=4), tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / MODEL_FILE))
    scores = {model.id_to_piece(index): model.get_score(index) for index in range(1, model.vocab_size())}

    def cuts(rest: str) -> list[tuple[str, ...]]:
        return [(rest[:end], *more) for end in range(1, len(rest) + 1) if rest[:end] in scores
                for more in cuts(rest[end:])] if rest else [()]

    word = "RESTING"
    every = sorted((sum(scores[piece] for piece in cut) for cut in cuts(chr(0xF0000 + ord("R")) + word[1:])),
                   reverse=True)
    found = pieces.spell(word)
    assert len(found) == 4 and len({p.phones for p in found}) == 4 and all(joined(p.phones) == word for p in found)
    for pronunciation, score in zip(found, every, strict=False):
        assert math.log(pronunciation.probability) == pytest.approx(score - every[0], abs=1e-3)


def test_names_that_would_be_misread_are_set_apart(tmp_path: Path) -> None:
    """A piece SIL is not silence, 1 no stress, #A no symbol of an FST."""
    spoken = {"BASIL": 50, "SILSIL": 50, "A1": 30, "B2": 30, "A#A": 30, "12": 30, "X_B": 20, "Y_B": 20}
    pieces = Pieces.train(spoken, {}, PieceConfig(vocab_size=24), tmp_path)
    lang = prepare_lang(pieces.lexicon(spoken), tmp_path / "lang", LangConfig(silence_probability=0.5))
    assert lang.phones[:2] == ("SIL", "SPN")
    for word in spoken:
        (spelling,) = lang.lexicon.pronunciations(word)
        assert joined(spelling.phones) == word and "SIL" not in spelling.phones
    assert len(lang.disambig) and not any(phone.startswith("#") for phone in lang.phones)
    letters = letters_of(lang.phones)
    assert letters is not None and letters["SIL"] == "" and set("12#") <= {letters[p] for p in lang.phones}
    assert letters_of(("SIL", "SPN", "AH0_B")) is None


def test_l_accepts_exactly_the_words_spelled(pieces: Pieces, tmp_path: Path) -> None:
    words = ["THE", "REST", "RESTS", "SING", "A", "TALKING"]
    lang = prepare_lang(pieces.lexicon(words), tmp_path, LangConfig(silence_probability=0.0))
    spelled = {word: tuple(lang.phone_ids[p] for p in pieces.spell(word)[0].phones) for word in words}
    spelled["<UNK>"] = (lang.phone_ids["SPN"],)
    longest = 6
    expected: Counter[tuple[tuple[int, ...], tuple[str, ...]]] = Counter()

    def extend(phones: tuple[int, ...], said: tuple[str, ...]) -> None:
        expected[phones, said] += 1
        for word, more in spelled.items():
            if len(phones) + len(more) <= longest:
                extend(phones + more, (*said, word))

    extend((), ())
    fst, found = lang.fst("L"), Counter()  # type: ignore[var-annotated]

    def walk(state: int, phones: tuple[int, ...], said: tuple[str, ...]) -> None:
        if fst.final(state).value != math.inf:
            found[phones, said] += 1
        for arc in kaldifst.ArcIterator(fst, state):
            more = (*phones, arc.ilabel) if arc.ilabel else phones
            if len(more) <= longest:
                walk(arc.nextstate, more, (*said, lang.words[arc.olabel]) if arc.olabel else said)

    walk(fst.start, (), ())
    assert found == expected


SENTENCES = ["THE SINGING", "THE TEST RESTED", "SING THE THING", "WALK THE WALK", "TALKED THE ÉTÉ"] * 4


def _settings(folder: Path, *more: str) -> LangSettings:
    (folder / "text").write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    return load_settings(LangSettings, (), [f"text={folder / 'text'}", "units=sentencepiece", "pieces.vocab_size=30",
                                            *more])


TRANSCRIPTS = {"train": [tuple(word for word, count in SPOKEN.items() for _ in range(count)), ("THE", "TAR")],
               "dev": [("THE", "ÉTÉ", "SANG")]}


def test_a_language_directory_without_a_lexicon(tmp_path: Path) -> None:
    figures = build_lang(_settings(tmp_path), TRANSCRIPTS, "train", tmp_path / "lang")
    lang = Lang(tmp_path / "lang")
    assert set(lang.lexicon.words) == {*SPOKEN, "TAR", "WALK", "TALKED", "<UNK>"}
    assert figures["unspelled"] == 1 and figures["pieces"] == len(lang.phones) - 2  # SIL and SPN are none
    assert figures["pieces_digest"] == Pieces(tmp_path / "lang").digest
    assert 1 < figures["pieces_per_word"] < 5 and figures["splits"]["dev"]["perplexity"] > 1
    assert lang.fst("G").num_states > 1
    (tmp_path / "lang" / MODEL_FILE).write_bytes(b"another")
    with pytest.raises(UserError, match="digest"):
        Pieces(tmp_path / "lang")
    (tmp_path / "lang" / MODEL_FILE).unlink()
    with pytest.raises(UserError, match="no such file"):
        Pieces(tmp_path / "lang")


def test_the_text_has_its_share(tmp_path: Path) -> None:
    """WALK is common in the text alone: with a share of it the word becomes one piece."""
    spoken = {word: count for word, count in SPOKEN.items() if "ALK" not in word} | {"TACK": 5, "LAW": 5}
    alone = Pieces.train(spoken, {"WALK": 1000, "ÉTÉ": 9}, SMALL, tmp_path / "alone")
    shared = Pieces.train(spoken, {"WALK": 1000, "ÉTÉ": 9}, PieceConfig(vocab_size=40, min_begins=5, text_share=0.5),
                          tmp_path / "shared")
    assert len(alone.spell("WALK")[0].phones) > 2 >= len(shared.spell("WALK")[0].phones)
    assert not shared.spells("É")


def test_new_words_are_spelled_by_the_pieces_that_went_along(tmp_path: Path) -> None:
    """Through probabilities from counts and other words to an exported recogniser: the same pieces."""
    build_lang(_settings(tmp_path), TRANSCRIPTS, "train", tmp_path / "lang")
    lang = Lang(tmp_path / "lang")
    (the,) = lang.lexicon.pronunciations("THE")
    said = ("THE", the.phones)
    counts = PronunciationCounts(Counter({(BEGIN_SAID, True, said): 5, (said, False, END_SAID): 5}), 5)
    counted = with_counts(lang, counts, tmp_path / "counted", PronunciationConfig())
    assert {MODEL_FILE, FACTS_FILE} <= set(counted.alignment_files)
    assert counted.pieces is not None and lang.pieces is not None and counted.pieces.digest == lang.pieces.digest
    words = [NewWord("RESTINGS", "words:1"), NewWord("THE", "words:2"), NewWord("TED", "words:3", (("S",),))]
    made = pronounce(words, counted.lexicon, pieces=counted.pieces)
    assert made.origin == {"RESTINGS": "pieces", "TED": "file"} and joined(made.entries["RESTINGS"][0]) == "RESTINGS"
    longer = counted.lexicon.extended({"RESTINGS": lang.pieces.spell("RESTINGS")})
    again = with_lexicon(counted, longer, tmp_path / "again")
    assert again.pieces is not None and again.phones == lang.phones
    strange = {"STING": [p.phones for p in lang.pieces.spell("STING")]}  # of pieces that stand in no word
    with pytest.raises(UserError, match=r"words:9: 'STING' would need the phone .* none of it"):
        positioned({word: tuple(ways) for word, ways in strange.items()}, lang.phones, {"STING": "words:9"},
                   position_dependent=False)
    with pytest.raises(UserError, match="words:1: cannot spell 'ÉTÉ'"):
        pronounce([NewWord("ÉTÉ", "words:1")], counted.lexicon, pieces=counted.pieces)
    with pytest.raises(UserError, match="names of letters"):
        pronounce(words, counted.lexicon, spell=True, pieces=counted.pieces)
    phones = prepare_lang(Lexicon({}), tmp_path / "phones")
    assert phones.pieces is None and MODEL_FILE not in phones.alignment_files


@pytest.mark.parametrize(("change", "message"), [
    ("pieces.vocab_size=8", r"lang.pieces: 8 pieces cannot be learned .* change lang.pieces.vocab_size"),
    ("silence.position_dependent=true", "position_dependent=false"),
    ("pieces.model=words", "one of unigram, bpe"),
    ("units=sentencepieces", "did you mean 'sentencepiece'"),
    ("pieces.text_share=1.0", r"text_share must be within \[0, 1\)")])
def test_wrong_settings_are_one_message(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        build_lang(_settings(tmp_path, change), TRANSCRIPTS, "train", tmp_path / "lang")


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="segmentations above 1 need model unigram"):
        _settings(tmp_path, "pieces.model=bpe", "pieces.segmentations=2")
    settings = LangSettings(arpa=tmp_path / "lm.arpa", units="sentencepiece", pieces=PieceConfig(text_share=0.3))
    (tmp_path / "lm.arpa").write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-1 THE\n\n\\end\\\n")
    with pytest.raises(UserError, match=r"text_share needs a text"):
        build_lang(settings, TRANSCRIPTS, "train", tmp_path / "lang")


def test_a_broken_transcript_word_is_left_to_the_unknown_word(tmp_path: Path) -> None:
    transcripts = {"train": [*TRANSCRIPTS["train"], ("<UNK>", "THE")]}
    build_lang(_settings(tmp_path), transcripts, "train", tmp_path / "lang")
    assert isinstance(Lang(tmp_path / "lang").lexicon, Lexicon)
    assert Lang(tmp_path / "lang").lexicon.pronunciations("<UNK>")[0].phones == ("SPN",)
