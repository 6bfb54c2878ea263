"""A small grammar: a sentence a line, with alternatives, options and weights; or a list of phrases as Vosk takes it.

    turn the (light | /2/ lamp) [in the kitchen] (on | off)     # /2/: twice as likely as its neighbours
    /3/ stop

Everything that can be said is one of its lines. FILE.json holds a list of strings, a phrase each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.files import read_json
from asr_distill.lang.lexicon import check_word
from asr_distill.lang.text import numbered_lines

_TOKEN = re.compile(r"\s*(?:([()\[\]|])|/([^/\s]*)/|([^\s()\[\]|/]+)|(\S))")
_CLOSES = {"(": ")", "[": "]"}
DEEPEST = 50


@dataclass(frozen=True)
class Said:
    """One word, and FILE:LINE:COLUMN where it stands."""

    word: str
    place: str


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Phrase, ...]


@dataclass(frozen=True)
class Choice:
    """Alternatives with their weights (above 0; they need not sum to one)."""

    alternatives: tuple[tuple[float, Phrase], ...]


Phrase = Said | Sequence | Choice
NOTHING = Sequence(())
NO_UNKNOWN = ("[unk] is not offered: whatever is said is heard as one of the phrases; leave it out, and "
              "give likely other phrases to ignore")


def read_phrases(path: Path) -> Choice:
    """The choice among the file's lines. Raises UserError naming file, line and column of what is wrong."""
    lines = list(_phrases_of_json(path) if path.suffix == ".json" else numbered_lines(path))
    alternatives = [_Line(path, number, text).parsed() for number, text in lines if text.partition("#")[0].strip()]
    if not alternatives:
        raise UserError(f"{path}: no phrases in it")
    return Choice(tuple(alternatives))


def _phrases_of_json(path: Path) -> Iterator[tuple[int, str]]:
    """(number of the phrase, its words)."""
    phrases = read_json(path)
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise UserError(f'{path}: must be a list of phrases, as ["turn on", "turn off"]')
    for number, phrase in enumerate(phrases, 1):
        if phrase.strip().lower() == "[unk]":
            raise UserError(f"{path}: phrase {number}: {NO_UNKNOWN}")
        if strange := re.search(r"[()\[\]|/#]", phrase):
            raise UserError(f"{path}: phrase {number} has the sign '{strange.group()}': phrases of a .json are plain "
                            "words; alternatives and options go into a text file")
        yield number, phrase


class _Line:
    """One line, parsed by recursive descent: choice = alternative {| alternative}, alternative = [/weight/] {item}."""

    def __init__(self, path: Path, number: int, text: str):
        self._path, self._number = path, number
        text = text.partition("#")[0].rstrip()
        self._tokens = list(_TOKEN.finditer(text))
        self._at, self._end, self._depth = 0, len(text), 0

    def parsed(self) -> tuple[float, Phrase]:
        weight, phrase = self._alternative()
        if self._at < len(self._tokens):
            sign = self._sign()
            raise self._error(f"'{sign}' stands outside of brackets: write (a | b)" if sign == "|" else
                              f"'{sign}' closes nothing")
        if phrase == NOTHING:
            raise self._error("a weight without words")
        return weight, phrase

    def _alternative(self) -> tuple[float, Phrase]:
        weight, parts = self._weight(), []
        while self._at < len(self._tokens) and self._sign() not in (")", "]", "|"):
            parts.append(self._item())
        return weight, parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _weight(self) -> float:
        if self._at == len(self._tokens) or self._tokens[self._at].group(2) is None:
            return 1.0
        try:
            weight = float(self._tokens[self._at].group(2))
            if not 1e-9 <= weight <= 1e9:
                raise ValueError
        except ValueError:
            raise self._error(f"'/{self._tokens[self._at].group(2)}/' is not a weight above 0, as /2.5/") from None
        self._at += 1
        return weight

    def _item(self) -> Phrase:
        token = self._tokens[self._at]
        sign, weight, word, strange = token.groups()
        if weight is not None:
            raise self._error("a weight stands at the beginning of an alternative")
        if strange is not None:
            raise self._error(f"'{strange}' belongs to nothing: a weight is written /2.5/")
        if word is not None:
            try:
                check_word(word)
            except ValueError as error:
                raise self._error(str(error)) from None
            said = Said(word.upper(), f"{self._path}:{self._number}:{token.start(3) + 1}")
            self._at += 1
            return said
        return self._bracket(sign)

    def _bracket(self, opened: str) -> Phrase:
        beginning = self._at
        alternatives: list[tuple[float, Phrase]] = []
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} brackets in one another")
        while not alternatives or self._sign() == "|":
            self._at += 1  # past the bracket or the bar
            weight, phrase = self._alternative()
            if self._at == len(self._tokens):
                self._at = beginning
                raise self._error(f"'{opened}' is not closed")
            if phrase == NOTHING:
                raise self._error("an alternative without words: what may be left out is written [a]")
            if self._sign() not in ("|", _CLOSES[opened]):
                raise self._error(f"'{self._sign()}' does not close '{opened}'")
            alternatives.append((weight, phrase))
        self._at += 1
        self._depth -= 1
        if opened == "(":
            return Choice(tuple(alternatives))
        if [phrase.word for _, phrase in alternatives if isinstance(phrase, Said)] == ["UNK"]:
            self._at = beginning
            raise self._error(NO_UNKNOWN)
        return Choice((*alternatives, (1.0, NOTHING)))

    def _sign(self) -> str | None:
        return self._tokens[self._at].group(1)

    def _error(self, message: str) -> UserError:
        at = self._tokens[self._at] if self._at < len(self._tokens) else None
        column = (at.end() - len(at.group().lstrip()) if at else self._end) + 1
        return UserError(f"{self._path}:{self._number}:{column}: {message}")


def words_of(phrase: Phrase) -> dict[str, str]:
    """Every word with the place where it stands first."""
    found: dict[str, str] = {}
    pending = [phrase]
    while pending:
        part = pending.pop()
        if isinstance(part, Said):
            found.setdefault(part.word, part.place)
        elif isinstance(part, Sequence):
            pending += reversed(part.parts)
        else:
            pending += [each for _, each in reversed(part.alternatives)]
    return found
