"""N-gram language models from text: interpolated modified Kneser-Ney (Chen and Goodman 1998), entropy pruning.

Counting and smoothing are array arithmetic over n-gram ids.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.errors import UserError
from asr_distill.lang.arpa import write_arpa
from asr_distill.lang.lexicon import UNKNOWN_WORD
from asr_distill.lang.ngram_model import BEGIN, END, NEVER, NgramModel, NgramTable
from asr_distill.lang.ngram_scorer import NgramScorer, check_model
from asr_distill.lang.prune import pruned
from asr_distill.lang.text import numbered_lines

_SAMPLE = 2000  # sentences of the text on which the finished model is tried


@dataclass(frozen=True)
class NgramConfig:
    """Settings of the language model."""

    order: int = 3
    vocabulary: int = 0  # keep this many most frequent words; 0: all
    words: Path | None = None  # only words of this file (the first on each line: a lexicon serves)
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
    seen: np.ndarray  # (ngrams,) how often
    counts: np.ndarray  # (ngrams,) what is smoothed: in lower orders, how many different words stand before it
    probability: np.ndarray  # (ngrams,)
    backoff: np.ndarray | None = None  # of this order's n-grams as histories; 0 where they never are


@dataclass(frozen=True)
class TrainedNgrams:
    """A model, and what pruning it needs of the text."""

    model: NgramModel
    histories: list[np.ndarray]  # per order below the highest: share of all words that follow each n-gram
    figures: dict[str, Any]  # sentences, words, unknown_rate, vocabulary

    def pruned(self, threshold: float) -> NgramModel:
        """A smaller model: see prune.py."""
        return pruned(self.model, threshold, self.histories)


def train_arpa(text: Path, out: Path, config: NgramConfig = NgramConfig(), *,
               words: Collection[str] | None = None) -> dict[str, Any]:
    """Train, prune and write an ARPA file; see `train`.

    Returns figures: sentences, words, unknown_rate, vocabulary, ngrams per order, perplexity (on the first lines of
    the text). Raises UserError where the text is empty, or the finished model is broken.
    """
    trained = train(text, config, words=words)
    model = trained.pruned(config.prune) if config.prune else trained.model
    figures = tried(model, text, str(out))
    write_arpa(model, out)
    return trained.figures | figures


def train(text: Path, config: NgramConfig, *, words: Collection[str] | None = None) -> TrainedNgrams:
    """Train on `text` (one sentence a line, plain, .gz or .xz; put in upper case), without pruning.

    The vocabulary is the most frequent words, of `words` (or the file `config.words`) where given; a word of that
    list that the text lacks is kept too, where `config.vocabulary` leaves room. All others count as `<UNK>`.
    15 M words, order 3: 10 M n-grams, a minute on one core, 2 GB. Raises UserError where the text is empty.
    """
    frequencies: Counter[str] = Counter()
    for sentence in sentences_of(text):
        frequencies.update(sentence)
    if not frequencies:
        raise UserError(f"{text}: no words to train a language model on")
    allowed = set(words) if words is not None else _listed(config.words) if config.words else frequencies.keys()
    chosen = sorted(allowed - {BEGIN, END, UNKNOWN_WORD}, key=lambda word: (-frequencies[word], word))
    chosen = chosen[: config.vocabulary or None]
    vocabulary = [BEGIN, END, UNKNOWN_WORD, *chosen]
    ids = {word: index for index, word in enumerate(vocabulary)}
    stream = np.fromiter(itertools.chain.from_iterable(
        (0, *(ids.get(word, 2) for word in sentence), 1) for sentence in sentences_of(text)), np.int32)
    orders = _counted(stream, len(vocabulary), config.order)
    _smooth(orders)
    total, sentences = int((stream > 1).sum()), int((stream == 0).sum())
    figures = {"sentences": sentences, "words": total, "unknown_rate": float((stream == 2).sum()) / total,
               "vocabulary": len(chosen)}
    shares = [np.bincount(higher.prefix, higher.seen, len(lower.words)) / (total + sentences)
              for lower, higher in itertools.pairwise(orders)]
    return TrainedNgrams(NgramModel(vocabulary, [_table(order, len(vocabulary)) for order in orders]), shares, figures)


def _listed(path: Path) -> set[str]:
    found = {line.split()[0].upper() for _, line in numbered_lines(path) if line.strip()}
    if not found:
        raise UserError(f"{path}: a list of words without words")
    return found


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
    counts = np.bincount(stream, minlength=vocabulary)
    orders = [_Order(everything, np.zeros(vocabulary, np.int64), np.zeros(vocabulary, np.int64), everything == 0,
                     counts, counts, np.zeros(vocabulary))]
    ids = stream.astype(np.int64)  # (positions,) id of the n-gram that ends here, -1: none
    for _ in range(1, order):
        positions = np.flatnonzero((ids[:-1] >= 0) & (stream[1:] != 0)) + 1
        keys, first, inverse, counts = np.unique(ids[positions - 1] * vocabulary + stream[positions],
                                                 return_index=True, return_inverse=True, return_counts=True)
        prefix = keys // vocabulary
        orders.append(_Order(keys % vocabulary, prefix, ids[positions[first]], orders[-1].begins[prefix], counts,
                             counts, np.zeros(len(keys))))
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
    orders[0].probability[0] = 0.0  # nothing precedes <s>


def _table(order: _Order, vocabulary: int) -> NgramTable:
    log10 = np.log10(np.maximum(order.probability, 10**NEVER))
    weights = np.zeros(len(log10)) if order.backoff is None else order.backoff
    backoff = np.log10(np.where(weights > 0, weights, 1.0))
    return NgramTable(order.prefix * vocabulary + order.words, log10.astype(np.float32), backoff.astype(np.float32))


def tried(model: NgramModel, text: Path, name: str) -> dict[str, Any]:
    """Figures of a finished model; refuses one that is far worse on its own text than picking words by lot."""
    check_model(model, name)
    result = NgramScorer(model).perplexity(itertools.islice(sentences_of(text), _SAMPLE)).perplexity
    if not math.isfinite(result) or result > 10 * len(model.words):
        raise UserError(f"{name}: broken language model: perplexity {result:.4g} on its own text, "
                        f"with {len(model.words)} words")
    return {"ngrams": model.sizes, "perplexity": result}
