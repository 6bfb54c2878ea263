"""N-gram models in ARPA form: a checking reader and a writer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import atomic_path
from asr_distill.lang.ngram_model import BEGIN, END, NgramModel, NgramTable
from asr_distill.lang.text import numbered_lines

_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
_SECTION = re.compile(r"\\(\d+)-grams:")
_BLOCK = 50_000  # lines parsed at once

Lines = list[tuple[int, str]]


class _Ids(dict[str, int]):
    """Word ids under the spelling of the file's unigrams, or under the canonical one."""

    def __missing__(self, word: str) -> int:
        canonical = _canonical(word)
        if canonical == word:
            raise KeyError(word)
        return self[canonical]


def read_arpa(path: Path) -> NgramModel:
    """Plain, .gz or .xz; 10 M n-grams take about half a minute and 1 GB.

    Words are put in upper case (`<unk>` becomes `<UNK>`), but for `<s>` and `</s>`. Raises UserError (with the line,
    where one is wrong) where the file is not a complete ARPA model, has an n-gram twice, or one without the n-gram
    of all its words but the last.
    """
    promised: dict[int, int] = {}
    reader = _Reader(path)
    for order, lines in _sections(path, promised):
        if lines:
            reader.add(order, lines)
        else:
            reader.finish(order)
    seen = {order: size for order, size in enumerate(reader.sizes, 1) if size}
    if seen != {order: count for order, count in promised.items() if count}:
        raise UserError(f"{path}: holds {seen} n-grams per order, its header promises {promised}")
    if not seen:
        raise UserError(f"{path}: an ARPA model without n-grams")
    return NgramModel(reader.words, reader.tables[: len(seen)])


def _sections(path: Path, promised: dict[int, int]) -> Iterator[tuple[int, Lines]]:
    """(order, numbered lines) in blocks, and (order, nothing) where an order ends; the header goes to `promised`."""
    order, number, state = 0, 0, "start"
    lines: Lines = []
    for number, raw in numbered_lines(path):
        line = raw.strip()
        if not line or (state == "start" and line != "\\data\\"):
            continue
        if line[0] != "\\" and state == "ngrams":
            lines.append((number, line))
            if len(lines) == _BLOCK:
                yield order, lines
                lines = []
            continue
        section = _SECTION.fullmatch(line)
        if state == "ngrams" and (section or line == "\\end\\"):
            if lines:
                yield order, lines
            yield order, []
            lines = []
        if line == "\\data\\":
            state = "counts"
        elif line == "\\end\\":
            return
        elif section:
            state, order = "ngrams", int(section.group(1))
        elif state == "counts" and (count := _COUNT.fullmatch(line)):
            promised[int(count.group(1))] = int(count.group(2))
        elif state == "counts":
            raise UserError(f"{path}:{number}: expected 'ngram N=COUNT'")
        else:  # a word that begins with a backslash never stands first
            raise UserError(f"{path}:{number}: not a {order}-gram line of an ARPA model")
    raise UserError(f"{path}: truncated or not an ARPA model (no \\end\\ after line {number})")


class _Reader(NgramModel):
    """The model as far as it is read."""

    def __init__(self, path: Path):
        super().__init__([], [])
        self._path = path
        self._names: list[str] = []
        self._rows = _Ids()
        self._blocks: list[NgramTable] = []

    def add(self, order: int, lines: Lines) -> None:
        try:
            words, rows, log10, backoff = self._parsed(order, lines)
        except (ValueError, KeyError):
            number = next(number for number, line in lines if not self._is_sound(order, (number, line)))
            raise UserError(f"{self._path}:{number}: not a {order}-gram line of an ARPA model") from None
        if order == 1:
            for word in words:
                self._rows[word] = len(self._names)
                self._names.append(_canonical(word))
            self._blocks.append(NgramTable(np.zeros(0, np.int64), log10, backoff))
            return
        prefix = rows[:, 0]
        for column in range(1, order - 1):
            prefix = self.find(column + 1, prefix, rows[:, column])
        if (prefix < 0).any():
            number, line = lines[int(np.argmax(prefix < 0))]
            raise UserError(f"{self._path}:{number}: an n-gram of this model lacks its history as an n-gram: '{line}'")
        self._blocks.append(NgramTable(prefix * len(self.words) + rows[:, -1], log10, backoff))

    def finish(self, order: int) -> None:
        if order != self.order + 1:
            raise UserError(f"{self._path}: its {order}-grams do not stand after its {order - 1}-grams")
        if order == 1:
            self.words = tuple(self._names)
            for row, word in enumerate(self.words):
                if self._rows.setdefault(word, row) != row:
                    raise UserError(f"{self._path}: has the word '{word}' twice (in upper case)")
        blocks, self._blocks = self._blocks or [NgramTable(*[np.zeros(0, np.int64)] * 3)], []
        keys, log10, backoff = (np.concatenate([getattr(block, name) for block in blocks])
                                for name in ("keys", "log10", "backoff"))
        if order == 1:
            keys = np.arange(len(self.words))
        if not np.all(keys[1:] > keys[:-1]):
            ranks = np.argsort(keys, kind="stable")
            keys, log10, backoff = keys[ranks], log10[ranks], backoff[ranks]
            if np.any(keys[1:] == keys[:-1]):
                raise UserError(f"{self._path}: has a {order}-gram twice")
        self.tables.append(NgramTable(keys, log10, backoff))

    def _parsed(self, order: int, lines: Lines) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Words, their ids (lines, order), log10 probabilities and backoff weights.

        Raises ValueError or KeyError where a line is wrong.
        """
        words, log10, backoff = _fields([line for _, line in lines], order)
        ids = [] if order == 1 else list(map(self._rows.__getitem__, words))
        return words, np.array(ids, np.int64).reshape(-1, order), log10, backoff

    def _is_sound(self, order: int, line: tuple[int, str]) -> bool:
        try:
            self._parsed(order, [line])
        except (ValueError, KeyError):
            return False
        return True


def _fields(lines: list[str], order: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words (one after another), log10 probabilities and backoff weights. Raises ValueError for a wrong line."""
    rows = [line.split() for line in lines]
    if not {len(row) for row in rows} <= {order + 1, order + 2}:
        raise ValueError
    log10 = np.array([float(row[0]) for row in rows], np.float32)
    backoff = np.array([float(row[-1]) if len(row) == order + 2 else 0.0 for row in rows], np.float32)
    if not (np.isfinite(log10).all() and np.isfinite(backoff).all() and log10.max() <= 1e-4):
        raise ValueError
    return [word for row in rows for word in row[1 : order + 1]], log10, backoff


def _canonical(word: str) -> str:
    return word if word in (BEGIN, END) else word.upper()


def write_arpa(model: NgramModel, path: Path) -> None:
    """Text that `read_arpa` and every tool of the field read; whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {order}={size}\n" for order, size in enumerate(model.sizes, 1))
        names = np.array(model.words, object)
        for order, table in enumerate(model.tables, 1):
            file.write(f"\n\\{order}-grams:\n")
            for rows, ids in model.blocks(order):
                numbers = zip(table.log10[rows].tolist(), table.backoff[rows].tolist(), strict=True)
                file.writelines(f"{log10:.7g}\t{' '.join(words)}\t{backoff:.7g}\n" if backoff else
                                f"{log10:.7g}\t{' '.join(words)}\n"
                                for (log10, backoff), words in zip(numbers, names[ids].tolist(), strict=True))
        file.write("\n\\end\\\n")
