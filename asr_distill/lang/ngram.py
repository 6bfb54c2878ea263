"""N-gram language models from text: interpolated modified Kneser-Ney (Chen and Goodman 1998), entropy pruning.

Counting and smoothing are array arithmetic over n-gram ids; pruning (Stolcke 1998) is kaldingram's.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import atomic_path
from asr_distill.lang.arpa import BEGIN, END, NEVER, Arpa, check_model, perplexity
from asr_distill.lang.lexicon import UNKNOWN_WORD
from asr_distill.lang.text import numbered_lines

_SAMPLE = 2000  # sentences of the text on which the finished model is tried


@dataclass(frozen=True)
class NgramConfig:
    """Settings of the language model."""

    order: int = 3
    vocabulary: int = 0  # keep this many most frequent words; 0: all
    prune: float = 0.0  # drop n-grams whose loss raises perplexity relatively by less than this; 0: keep all

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 5:
            raise ValueError(f"order must be within 1 .. 5, not {self.order}")
        if self.vocabulary < 0:
            raise ValueError(f"vocabulary must not be negative, not {self.vocabulary}")
        if not 0 <= self.prune < 1:
            raise ValueError(f"prune must be within [0, 1), not {self.prune}")


@dataclass
class _Order:
    """The distinct n-grams of one order; ids are positions in these arrays."""

    words: np.ndarray  # (ngrams,) last word
    prefix: np.ndarray  # (ngrams,) id of the n-gram without its last word, one order below
    suffix: np.ndarray  # (ngrams,) id of the n-gram without its first word
    begins: np.ndarray  # (ngrams,) bool: the first word is <s>
    counts: np.ndarray  # (ngrams,)
    probability: np.ndarray  # (ngrams,)
    backoff: np.ndarray | None = None  # of this order's n-grams as histories; 0 where they never are


def train_arpa(text: Path, out: Path, config: NgramConfig = NgramConfig(), *,
               words: Collection[str] | None = None) -> dict[str, Any]:
    """Train on `text` (one sentence a line, plain, .gz or .xz; put in upper case) and write an ARPA file.

    The vocabulary is `words` where given, else the most frequent ones; all others count as `<UNK>`. Returns
    figures: sentences, words, unknown_rate, vocabulary, ngrams per order, perplexity (on the first lines of
    the text). Raises UserError where the text is empty, or the finished model is broken.
    """
    frequencies: Counter[str] = Counter()
    for sentence in sentences_of(text):
        frequencies.update(sentence)
    if not frequencies:
        raise UserError(f"{text}: no words to train a language model on")
    frequencies.pop(UNKNOWN_WORD, None)
    chosen = [word for word, _ in frequencies.most_common(config.vocabulary or None)] if words is None \
        else sorted(set(words) - {BEGIN, END, UNKNOWN_WORD})
    vocabulary = [BEGIN, END, UNKNOWN_WORD, *chosen]
    ids = {word: index for index, word in enumerate(vocabulary)}
    stream = np.fromiter(itertools.chain.from_iterable(
        (0, *(ids.get(word, 2) for word in sentence), 1) for sentence in sentences_of(text)), np.int32)
    orders = _counted(stream, len(vocabulary), config.order)
    _smooth(orders)
    with atomic_path(out) as temporary:
        _write(orders, vocabulary, temporary)
        if config.prune:
            _prune(temporary, config.prune)
        figures = _tried(temporary, text, out)
    total, sentences = int((stream > 1).sum()), int((stream == 0).sum())
    return {"sentences": sentences, "words": total, "unknown_rate": float((stream == 2).sum()) / total,
            "vocabulary": len(chosen), **figures}


def sentences_of(text: Path) -> Iterator[list[str]]:
    """Words of every line that is not empty. Raises UserError for a word that is a symbol of the model."""
    for number, line in numbered_lines(text):
        sentence = line.upper().split()
        if "<S>" in sentence or "</S>" in sentence:
            raise UserError(f"{text}:{number}: {BEGIN} and {END} are put in by the program; take them out")
        if sentence:
            yield sentence


def _counted(stream: np.ndarray, vocabulary: int, order: int) -> list[_Order]:
    """Distinct n-grams of all orders, with Kneser-Ney's counts below the highest."""
    everything = np.arange(vocabulary)
    orders = [_Order(everything, np.zeros(vocabulary, np.int64), np.zeros(vocabulary, np.int64), everything == 0,
                     np.bincount(stream, minlength=vocabulary), np.zeros(vocabulary))]
    ids = stream.astype(np.int64)  # (positions,) id of the n-gram that ends here, -1: none
    for _ in range(1, order):
        positions = np.flatnonzero((ids[:-1] >= 0) & (stream[1:] != 0)) + 1
        keys, first, inverse, counts = np.unique(ids[positions - 1] * vocabulary + stream[positions],
                                                 return_index=True, return_inverse=True, return_counts=True)
        prefix = keys // vocabulary
        orders.append(_Order(keys % vocabulary, prefix, ids[positions[first]], orders[-1].begins[prefix], counts,
                             np.zeros(len(keys))))
        ids = np.full(len(stream), -1, np.int64)
        ids[positions] = inverse
    for lower, higher in itertools.pairwise(orders):
        # How many different words precede it; nothing precedes <s>.
        different = np.bincount(higher.suffix, minlength=len(lower.words))
        lower.counts = np.where(lower.begins, lower.counts, different)
    orders[0].counts = np.where(orders[0].begins, 0, orders[0].counts)
    return orders


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discount of every count: D1, D2, D3+ by Chen and Goodman's estimate, 0.5, 1, 1.5 where it fails."""
    n1, n2, n3, n4 = (float((counts == value).sum()) for value in (1, 2, 3, 4))
    table = np.array([0.0, 0.5, 1.0, 1.5])
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        estimate = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if np.all(estimate[1:] > 0) and np.all(estimate[1:] < [1, 2, 3]):
            table = estimate
    return table[np.minimum(counts, 3)]


def _smooth(orders: list[_Order]) -> None:
    """Fill in probabilities and backoff weights: what the discounts free goes to the order below."""
    lower: np.ndarray = np.full(1, 1.0 / (len(orders[0].words) - 1))  # uniform, <s> never follows
    for below, current in zip([None, *orders], orders, strict=False):
        size = 1 if below is None else len(below.words)
        total = np.maximum(np.bincount(current.prefix, weights=current.counts, minlength=size), 1e-300)
        discount = _discounts(current.counts)
        free = np.bincount(current.prefix, weights=discount, minlength=size) / total
        kept = (current.counts - discount) / total[current.prefix]
        current.probability = lower = kept + free[current.prefix] * lower[current.suffix]
        if below is not None:
            below.backoff = free


def _write(orders: list[_Order], vocabulary: list[str], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(order.words)}\n" for n, order in enumerate(orders, 1))
        names: list[str] = [""]
        for n, order in enumerate(orders, 1):
            last = [vocabulary[word] for word in order.words]
            names = last if n == 1 else [f"{names[p]} {word}" for p, word in zip(order.prefix, last, strict=True)]
            logs = np.log10(order.probability)
            if n == 1:
                logs[0] = NEVER
            weights = np.zeros(len(names)) if order.backoff is None else order.backoff
            backoffs = np.log10(np.where(weights > 0, weights, 1.0))
            file.write(f"\n\\{n}-grams:\n")
            file.writelines(f"{log:.7f}\t{name}\t{backoff:.7f}\n" if backoff else f"{log:.7f}\t{name}\n"
                            for log, name, backoff in zip(logs, names, backoffs, strict=True))
        file.write("\n\\end\\\n")


def _prune(path: Path, threshold: float) -> None:
    """In place, by kaldingram in a process of its own (it takes much memory and talks much)."""
    with tempfile.TemporaryDirectory() as folder:
        pruned = Path(folder) / "pruned.arpa"
        run = subprocess.run([sys.executable, "-m", "kaldingram.cli", "prune", "--threshold", str(threshold),
                              "--lm", str(path), "--write-lm", str(pruned)],
                             env={**os.environ, "TQDM_DISABLE": "1"}, capture_output=True, text=True)
        if run.returncode or not pruned.is_file():
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"pruning the language model failed: {last}")
        path.write_bytes(pruned.read_bytes())


def _tried(path: Path, text: Path, name: Path) -> dict[str, Any]:
    """Figures of a finished model; refuses one that is far worse on its own text than picking words by lot."""
    model = Arpa.read(path)
    check_model(model, str(name))
    result = perplexity(model, itertools.islice(sentences_of(text), _SAMPLE)).perplexity
    if result > 10 * len(model.words):
        raise UserError(f"{name}: broken language model: perplexity {result:.4g} on its own text, "
                        f"with {len(model.words)} words")
    sizes = Counter(len(ngram) for ngram in model.ngrams)
    return {"ngrams": [sizes[n] for n in range(1, model.order + 1)], "perplexity": result}
