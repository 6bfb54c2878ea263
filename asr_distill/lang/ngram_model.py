"""A backoff n-gram model as sorted arrays: probabilities of millions of words at once, 16 bytes an n-gram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json, read_text, write_array, write_json, write_text
from asr_distill.lang.lexicon import UNKNOWN_WORD

BEGIN, END = "<s>", "</s>"
NEVER = -99.0  # ARPA's log10 of zero

_BLOCK = 1 << 20  # n-grams worked on at once
_HEAD, _WORDS = "ngrams.json", "words.txt"


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of one order, sorted by key; an n-gram's row is its position. Logarithms have base 10, as in ARPA."""

    keys: np.ndarray  # int64 (N,): row of all words but the last, in the order below, * vocabulary + last word
    log10: np.ndarray  # float32 (N,): of P(last word | words before)
    backoff: np.ndarray  # float32 (N,): log10 of the weight of shorter histories after this n-gram; 0 where none is

    def __len__(self) -> int:
        return len(self.keys)


class NgramModel:
    """Word ids are rows of the unigram table; -1 is a word that the model lacks."""

    def __init__(self, words: Sequence[str], tables: Sequence[NgramTable]):
        self.words, self.tables = tuple(words), list(tables)

    @property
    def order(self) -> int:
        return len(self.tables)

    @property
    def sizes(self) -> list[int]:
        """How many n-grams of each order."""
        return [len(table) for table in self.tables]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @property
    def unknown(self) -> int:
        """Id of `<UNK>`, -1 where the model has none."""
        return self.ids.get(UNKNOWN_WORD, -1)

    def find(self, order: int, prefix: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Rows of the n-grams `prefix` (rows in the order below) + `words`; -1 where there is none."""
        if order == 1:
            return words.astype(np.int64)
        keys = self.tables[order - 1].keys
        if not len(keys):
            return np.full(len(words), -1, np.int64)
        wanted = np.where((prefix < 0) | (words < 0), -1, prefix * len(self.words) + words)
        ranks = np.argsort(wanted)  # in order, neighbours are found in cache: five times faster
        rows = np.empty(len(wanted), np.int64)
        rows[ranks] = np.minimum(np.searchsorted(keys, wanted[ranks]), len(keys) - 1)
        return np.where(keys[rows] == wanted, rows, -1)

    def log10(self, stream: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """log10 P(word | words before it), float64 (words,), for sentences laid end to end.

        stream: word ids (words,); begins: bool (words,), where a sentence begins. 0 for a word that the model lacks.
        """
        rows = stream.astype(np.int64)
        total = np.where(rows >= 0, self.tables[0].log10[rows], 0.0).astype(np.float64)
        for order in range(2, self.order + 1):
            history = np.concatenate([[-1], rows[:-1]])
            history[begins] = -1
            rows = self.find(order, history, stream)
            weight = np.where(history >= 0, self.tables[order - 2].backoff[history], 0.0)
            found = np.flatnonzero(rows >= 0)
            total += weight
            total[found] = self.tables[order - 1].log10[rows[found]]
        return np.where(stream >= 0, total, 0.0)

    def last_log10(self, ngrams: np.ndarray) -> np.ndarray:
        """log10 P(last word | the others), float64 (N,), of word ids (N, n)."""
        count, length = ngrams.shape
        begins = np.zeros((count, length), bool)
        begins[:, 0] = True
        return self.log10(ngrams.ravel(), begins.ravel()).reshape(count, length)[:, -1]

    def blocks(self, order: int) -> Iterator[tuple[slice, np.ndarray]]:
        """(rows, word ids int64 (rows, order)) of all n-grams of an order, some at a time."""
        for begin in range(0, len(self.tables[order - 1]), _BLOCK):
            rows = self.tables[order - 1].keys[begin : begin + _BLOCK]
            columns = []
            for lower in range(order - 1, 0, -1):
                rows, last = np.divmod(rows, len(self.words))
                columns.append(last)
                rows = self.tables[lower - 1].keys[rows]
            columns.append(rows)
            yield slice(begin, begin + len(rows)), np.stack(columns[::-1], axis=1)

    def save(self, directory: Path, facts: dict[str, Any] | None = None) -> None:
        """Arrays and words; ngrams.json last, with `facts`."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _HEAD).unlink(missing_ok=True)
        write_text(directory / _WORDS, "".join(f"{word}\n" for word in self.words))
        for order, table in enumerate(self.tables, 1):
            for name in ("keys", "log10", "backoff"):
                write_array(directory / f"{name}{order}.npy", getattr(table, name))
        write_json(directory / _HEAD, {"ngrams": self.sizes, **(facts or {})})

    @classmethod
    def load(cls, directory: Path) -> NgramModel:
        """Raises UserError where a file is missing or they do not belong together."""
        sizes = model_facts(directory)["ngrams"]
        tables = [NgramTable(*(read_array(directory / f"{name}{order}.npy") for name in ("keys", "log10", "backoff")))
                  for order in range(1, len(sizes) + 1)]
        model = cls(read_text(directory / _WORDS).splitlines(), tables)
        arrays = [[len(table.keys), len(table.log10), len(table.backoff)] for table in tables]
        if arrays != [[size] * 3 for size in sizes] or len(model.words) != sizes[0]:
            raise UserError(f"{directory}: damaged language model (sizes differ from {_HEAD}); make it again")
        return model


def is_saved(directory: Path) -> bool:
    """Whether `NgramModel.save` has finished there."""
    return (directory / _HEAD).is_file()


def model_facts(directory: Path) -> dict[str, Any]:
    """What `save` wrote into ngrams.json. Raises UserError where it is missing or not of this form."""
    facts = read_json(directory / _HEAD)
    if not isinstance(facts, dict) or not isinstance(facts.get("ngrams"), list):
        raise UserError(f"{directory / _HEAD}: not a language model of this program; make it again")
    return facts
