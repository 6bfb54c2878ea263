"""N-gram models in ARPA form: a checking reader, exact probabilities, perplexity."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.lang.lexicon import UNKNOWN_WORD
from asr_distill.lang.text import numbered_lines

BEGIN, END = "<s>", "</s>"
NEVER = -99.0  # ARPA's log10 of zero

Ngram = tuple[str, ...]
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
_SECTION = re.compile(r"\\(\d+)-grams:")


def arpa_ngrams(path: Path) -> Iterator[tuple[Ngram, float, float]]:
    """(words, log10 probability, log10 backoff weight) of every n-gram, lower orders first.

    Words are put in upper case (`<unk>` becomes `<UNK>`), but for `<s>` and `</s>`. Plain, .gz or .xz. Raises
    UserError with the line where the file is not a complete ARPA model.
    """
    promised: dict[int, int] = {}
    seen: dict[int, int] = {}
    order, number, state = 0, 0, "start"
    for number, raw in numbered_lines(path):
        line = raw.strip()
        if not line or (state == "start" and line != "\\data\\"):
            continue
        if line == "\\data\\":
            state = "counts"
        elif line == "\\end\\":
            state = "end"
            break
        elif section := _SECTION.fullmatch(line):
            state, order = "ngrams", int(section.group(1))
        elif state == "counts":
            if not (count := _COUNT.fullmatch(line)):
                raise UserError(f"{path}:{number}: expected 'ngram N=COUNT'")
            promised[int(count.group(1))] = int(count.group(2))
        else:
            fields = line.split()
            try:
                if len(fields) not in (order + 1, order + 2):
                    raise ValueError
                probability = float(fields[0])
                backoff = float(fields[-1]) if len(fields) == order + 2 else 0.0
                if not (probability <= 1e-4 and math.isfinite(probability) and math.isfinite(backoff)):
                    raise ValueError
            except ValueError:
                raise UserError(f"{path}:{number}: not a {order}-gram line of an ARPA model") from None
            seen[order] = seen.get(order, 0) + 1
            yield tuple(map(_canonical, fields[1:order + 1])), probability, backoff
    if state != "end":
        raise UserError(f"{path}: truncated or not an ARPA model (no \\end\\ after line {number})")
    if seen != {n: count for n, count in promised.items() if count}:
        raise UserError(f"{path}: holds {seen} n-grams per order, its header promises {promised}")


def _canonical(word: str) -> str:
    return word if word in (BEGIN, END) else word.upper()


@dataclass
class Arpa:
    """An n-gram model in memory. Logarithms have base 10, as in the file."""

    order: int = 0
    ngrams: dict[Ngram, float] = field(default_factory=dict)
    backoffs: dict[Ngram, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Arpa:
        """Raises UserError where the file is not a complete ARPA model."""
        model = cls()
        for ngram, probability, backoff in arpa_ngrams(path):
            model.ngrams[ngram] = probability
            if backoff:
                model.backoffs[ngram] = backoff
            model.order = max(model.order, len(ngram))
        return model

    @property
    def words(self) -> list[str]:
        """Unigrams, without `<s>`."""
        return [ngram[0] for ngram in self.ngrams if len(ngram) == 1 and ngram[0] != BEGIN]

    def log10(self, history: Sequence[str], word: str) -> float:
        """log10 P(word | history), with backoff. Raises KeyError where the model lacks the word."""
        ngram = (*history[max(0, len(history) - self.order + 1):], word)
        total = 0.0
        while (probability := self.ngrams.get(ngram)) is None:
            if len(ngram) == 1:
                raise KeyError(word)
            total += self.backoffs.get(ngram[:-1], 0.0)
            ngram = ngram[1:]
        return total + probability

    def total_probability(self, history: Ngram, followers: dict[Ngram, list[str]]) -> float:
        """Sum of P(word | history) over all words (one in a sound model), given the words listed per history."""
        listed = followers.get(history, [])
        total = math.fsum(10 ** self.log10(history, word) for word in listed)
        if history:
            shorter = history[1:]
            lower = math.fsum(10 ** self.log10(shorter, word) for word in listed)
            rest = self.total_probability(shorter, followers) - lower
            total += 10 ** self.backoffs.get(history, 0.0) * rest
        return total


@dataclass(frozen=True)
class Perplexity:
    """Of a model on text. Words that the model lacks are counted, and left out of the perplexity."""

    sentences: int
    words: int
    unknown: int
    log10: float  # of all that is known, ends of sentences included

    @property
    def perplexity(self) -> float:
        tokens = self.words - self.unknown + self.sentences
        return 10 ** (-self.log10 / tokens) if tokens else math.inf

    @property
    def unknown_rate(self) -> float:
        return self.unknown / self.words if self.words else 0.0


def perplexity(model: Arpa, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """SRILM's way: unknown words stand in histories as `<UNK>` and are not scored; each sentence's end is."""
    count = words = unknown = 0
    total = 0.0
    for sentence in sentences:
        history = [BEGIN]
        for word in (*sentence, END):
            known = (word,) in model.ngrams and word != UNKNOWN_WORD
            if known:
                total += model.log10(history, word)
            else:
                unknown += 1
            history.append(word if known else UNKNOWN_WORD)
        count += 1
        words += len(sentence)
    return Perplexity(count, words, unknown, total)


def check_model(model: Arpa, name: str, *, sample: int = 50, tolerance: float = 0.01) -> None:
    """Refuse a broken model: raises UserError where the probabilities after some history do not sum to one."""
    if not {(BEGIN,), (END,)} <= model.ngrams.keys():
        raise UserError(f"{name}: the language model lacks {BEGIN} or {END}")
    followers: dict[Ngram, list[str]] = {}
    for ngram in model.ngrams:
        if ngram[-1] != BEGIN:
            followers.setdefault(ngram[:-1], []).append(ngram[-1])
    histories = list(followers)
    for history in [(), *histories[:: max(1, len(histories) // sample)]]:
        total = model.total_probability(history, followers)
        if abs(total - 1.0) > tolerance:
            raise UserError(f"{name}: broken language model: the probabilities of all words after "
                            f"'{' '.join(history)}' sum to {total:.4g}, not 1")
