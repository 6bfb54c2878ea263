"""Pronunciations of new words: trained on a slice of CMUdict, scored on another."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from asr_distill.lang.g2p import G2p, G2pConfig, covering, training_entries
from asr_distill.lang.lexicon import Lexicon, Pronunciation

pytest.importorskip("phonetisaurus")


@pytest.fixture(scope="module")
def halves() -> tuple[Lexicon, Lexicon]:
    lexicon = Lexicon.from_cmudict()
    words = [word for word in lexicon.words if word.replace("'", "").isalpha()]
    random.Random(0).shuffle(words)
    return lexicon.restricted(words[:3000]), lexicon.restricted(words[3000:3300])


@pytest.fixture(scope="module")
def g2p(halves: tuple[Lexicon, Lexicon], tmp_path_factory: pytest.TempPathFactory) -> G2p:
    return G2p.cached(halves[0], tmp_path_factory.mktemp("cache"), G2pConfig(order=4))


def test_learns_spelling(g2p: G2p, halves: tuple[Lexicon, Lexicon]) -> None:
    _, unseen = halves
    words = [word for word in unseen.words if word != "<UNK>" and g2p.letters.issuperset(word)]
    guesses = g2p.pronounce(words)
    known = set(halves[0].phones()) - {"SPN"}
    assert set(guesses) == set(words) and all(known.issuperset(phones) for phones in guesses.values())
    right = sum(guesses[word] in {p.phones for p in unseen.pronunciations(word)} for word in words)
    assert right / len(words) > 0.3  # 0.74 when trained on all of CMUdict


def test_weird_words(g2p: G2p) -> None:
    found = g2p.pronounce(["X", "O'BRIEN", "'TIS", "DOGS'", "WELL-KNOWN", "well", "WELL"])
    assert list(found) == ["X", "O'BRIEN", "'TIS", "DOGS'", "WELL-KNOWN", "well", "WELL"]
    assert all(found.values()) and found["well"] == found["WELL"] == ("W", "EH", "L")
    assert g2p.pronounce([]) == {}
    for word in ("R2D2", "A_B", "A|B", "", "'", "-", "É", "TWO WORDS"):
        with pytest.raises(UserError, match="cannot pronounce '"):
            g2p.pronounce(["HELLO", word])


def test_cache_depends_on_lexicon_and_settings(tmp_path: Path) -> None:
    lexicon = Lexicon({word: [Pronunciation(tuple(word))] for word in ("AB", "BA", "ABBA", "BAB")})
    first = G2p.cached(lexicon, tmp_path, G2pConfig(order=2))
    made = first.model.stat().st_mtime_ns
    assert G2p.cached(lexicon, tmp_path, G2pConfig(order=2)).model.stat().st_mtime_ns == made
    assert first.pronounce(["BABA"]) == {"BABA": tuple("BABA")}
    other = G2p.cached(lexicon, tmp_path, G2pConfig(order=3))
    assert other.directory != first.directory
    first.model.unlink()
    with pytest.raises(UserError, match="trained again"):
        G2p.cached(lexicon, tmp_path, G2pConfig(order=2))


def test_lexicon_of_exactly_the_words(tmp_path: Path) -> None:
    lexicon = Lexicon({word: [Pronunciation(tuple(word))] for word in ("AB", "BA", "ABBA", "BAB")})
    covered, guessed = covering(lexicon, ["AB", "AB"], tmp_path)
    assert covered.words == ("AB", "<UNK>") and guessed == [] and not list(tmp_path.iterdir())
    covered, guessed = covering(lexicon, ["BABA", "AB"], tmp_path, G2pConfig(order=2))
    assert set(covered.words) == {"AB", "BABA", "<UNK>"} and guessed == ["BABA"]
    assert covered.pronunciations("BABA") == (Pronunciation(tuple("BABA")),)


def test_noises_signs_and_small_lexicons(tmp_path: Path) -> None:
    lexicon = Lexicon({"A.B": [Pronunciation(("EY", "B"))], "7": [Pronunciation(("S",))]})
    assert training_entries(lexicon) == []
    with pytest.raises(UserError, match="too few"):
        G2p.train(lexicon, tmp_path / "g2p")
    for settings in ({"order": 0}, {"passes": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            G2pConfig(**settings)
