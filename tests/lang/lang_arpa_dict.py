"""An ARPA model in dictionaries, word by word: the reference for the arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from asr_distill.lang.text import open_text


class ArpaDict:
    """Logarithms have base 10."""

    def __init__(self, path: Path):
        self.ngrams: dict[tuple[str, ...], float] = {}
        self.backoffs: dict[tuple[str, ...], float] = {}
        self.order = 0
        with open_text(path) as file:
            for line in file:
                fields = line.split()
                if line.startswith("\\") and line.strip().endswith("-grams:"):
                    self.order = int(line[1 : line.index("-")])
                elif self.order and fields and not line.startswith("\\"):
                    words = tuple(w if w in ("<s>", "</s>") else w.upper() for w in fields[1 : self.order + 1])
                    self.ngrams[words] = float(fields[0])
                    if len(fields) == self.order + 2:
                        self.backoffs[words] = float(fields[-1])

    @property
    def words(self) -> list[str]:
        """Unigrams, without `<s>`."""
        return [ngram[0] for ngram in self.ngrams if len(ngram) == 1 and ngram[0] != "<s>"]

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

    def score(self, sentence: Sequence[str], unknown_log: float) -> float:
        """Natural log of the sentence's probability."""
        history, total = ["<s>"], 0.0
        for word in (*sentence, "</s>"):
            known = word if (word,) in self.ngrams else "<UNK>"
            total += math.log(10) * self.log10(history, known) if (known,) in self.ngrams else unknown_log
            history.append(known)
        return total
