"""A language directory from what a user brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_distill.errors import UserError
from asr_distill.lang.build import SMALL, LangSettings, build_lang
from asr_distill.lang.lang import Lang
from asr_distill.lang.large import LargeLmSettings, build_large
from asr_distill.lang.ngram import NgramConfig, train_arpa
from asr_distill.lang.ngram_scorer import NgramScorer

SENTENCES = ["THE CAT SAT", "THE DOG SAT", "A CAT AND A DOG", "THE CAT AND THE DOG SAT", "DOG CAT THE A"] * 4


def _text(folder: Path, extra: str = "") -> Path:
    path = folder / "text"
    path.write_text("".join(f"{sentence}\n" for sentence in SENTENCES) + extra)
    return path


def test_cmudict_and_text(tmp_path: Path) -> None:
    spoken = {"train": [("THE", "CAT")], "dev": [("THE", "ZEBRA", "SAT")]}
    figures = build_lang(LangSettings(text=_text(tmp_path)), spoken, "train", tmp_path / "lang")
    lang = Lang(tmp_path / "lang")
    assert {"THE", "CAT", "SAT", "DOG", "A", "AND"} <= set(lang.words)
    assert figures["guessed"] == 0 and figures["trained"]["sentences"] == 20
    assert figures["splits"]["dev"]["unknown_rate"] == pytest.approx(100 / 3)
    assert 1 < figures["splits"]["train"]["perplexity"] < 10
    assert lang.fst("G").num_states > 1


def test_a_lexicon_file_drops_lm_words_without_pronunciation(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon"
    lexicon.write_text("THE\tDH AH0\nCAT\tK AE1 T\nSAT\tS AE1 T\n")
    figures = build_lang(LangSettings(lexicon=lexicon, text=_text(tmp_path)), {"train": [("THE", "CAT")]}, "train",
                         tmp_path / "lang")
    assert set(Lang(tmp_path / "lang").lexicon.words) == {"THE", "CAT", "SAT", "<UNK>"}
    assert figures["grammar"]["dropped_words"] >= 3


def test_lm_words_outside_cmudict_can_be_dropped(tmp_path: Path) -> None:
    settings = LangSettings(text=_text(tmp_path, "THE QWXZRT SAT\n"), guess_lm_words=False)
    build_lang(settings, {"train": [("THE", "CAT")]}, "train", tmp_path / "lang")
    assert "QWXZRT" not in Lang(tmp_path / "lang").lexicon


LEXICON = "THE\tDH AH0\nCAT\tK AE1 T\nSAT\tS AE1 T\nDOG\tD AO1 G\n"


def test_the_small_model_stays_for_rescoring(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon"
    lexicon.write_text(LEXICON)
    settings = LangSettings(lexicon=lexicon, text=_text(tmp_path), ngram=NgramConfig(prune=0.02))
    spoken = {"train": [("THE", "CAT")], "dev": [("THE", "ZEBRA", "SAT")]}
    figures = build_lang(settings, spoken, "train", tmp_path / "lang")
    expected = NgramScorer(tmp_path / "lang" / "lm.arpa").perplexity(spoken["dev"]).perplexity
    assert NgramScorer(tmp_path / "lang" / SMALL).perplexity(spoken["dev"]).perplexity == pytest.approx(expected)
    assert figures["splits"]["dev"]["perplexity"] == pytest.approx(expected)


def test_a_large_model_trained_on_text(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon"
    lexicon.write_text(LEXICON)
    spoken = {"dev": [("THE", "ZEBRA", "SAT")]}
    settings = LargeLmSettings(text=_text(tmp_path), ngram=NgramConfig(words=lexicon))
    figures = build_large(settings, spoken, tmp_path / "large")
    large = NgramScorer(tmp_path / "large")
    assert set(large.model.words) == {"<s>", "</s>", "<UNK>", "THE", "CAT", "SAT", "DOG"}
    assert figures["ngrams"] == large.model.sizes and figures["sentences"] == 20
    assert figures["splits"]["dev"]["unknown_rate"] == pytest.approx(100 / 3)
    assert figures["splits"]["dev"]["perplexity"] == large.perplexity(spoken["dev"]).perplexity


def test_a_large_model_that_is_given(tmp_path: Path) -> None:
    train_arpa(_text(tmp_path), tmp_path / "large.arpa", NgramConfig(order=4))
    build_large(LargeLmSettings(arpa=tmp_path / "large.arpa"), {}, tmp_path / "large")
    assert NgramScorer(tmp_path / "large").model.order == 4
    with pytest.raises(ValueError, match="one of them"):
        LargeLmSettings(arpa=tmp_path / "large.arpa", text=tmp_path / "text")
    with pytest.raises(UserError, match=r"large_lm\.text=FILE"):
        build_large(LargeLmSettings(), {}, tmp_path / "none")


def test_neither_arpa_nor_text_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lang\.arpa=FILE .* lang\.text=FILE"):
        build_lang(LangSettings(), {"train": [("THE",)]}, "train", tmp_path / "lang")
