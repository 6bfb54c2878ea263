"""Probabilities of many sentences at once under an n-gram model, perplexity, and a check that a model is sound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import file_digest
from asr_distill.lang.arpa import read_arpa
from asr_distill.lang.ngram_model import BEGIN, END, NgramModel, is_saved, model_facts

Sentences = Iterable[Sequence[str]]
UNKNOWN_LOG = -23.0  # natural log of an unknown word's probability where the model has no <UNK> (1e-10)


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


class NgramScorer:
    """Scores sentences under a model in memory, in a folder of arrays (`NgramModel.save`), or in an ARPA file."""

    def __init__(self, source: NgramModel | Path, cache: Path | None = None, *, unknown_log: float = UNKNOWN_LOG):
        """An ARPA file's arrays are kept in the folder `cache`, where given, and found there the next time.

        `unknown_log`: natural log of the probability of a word that the model lacks, if it has no `<UNK>`. Raises
        UserError where the model cannot be read, or lacks `<s>` or `</s>`.
        """
        self.model = source if isinstance(source, NgramModel) else _read(source, cache)
        if not {BEGIN, END} <= self.model.ids.keys():
            raise UserError(f"{'the language model' if isinstance(source, NgramModel) else source}: the language "
                            f"model lacks {BEGIN} or {END}")
        self.unknown_log = unknown_log

    def score(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Natural log of P(words and sentence's end), float64 (sentences,), with backoff; words in upper case."""
        if not len(sentences):
            return np.zeros(0)
        stream, begins = self._stream(sentences)
        log10 = self.model.log10(stream, begins)
        log10[begins] = 0.0
        log10[stream < 0] = self.unknown_log / math.log(10)
        return math.log(10) * np.add.reduceat(log10, np.flatnonzero(begins))

    def perplexity(self, sentences: Sentences) -> Perplexity:
        """SRILM's way: unknown words stand in histories as `<UNK>` and are not scored; each sentence's end is."""
        stream, begins = self._stream(sentences)
        unknown = (stream < 0) | (stream == self.model.unknown)
        log10 = self.model.log10(stream, begins)
        count = int(begins.sum())
        return Perplexity(count, len(stream) - 2 * count, int(unknown.sum()), float(log10[~(unknown | begins)].sum()))

    def _stream(self, sentences: Sentences) -> tuple[np.ndarray, np.ndarray]:
        """Word ids of all sentences end to end, each between `<s>` and `</s>`; where they begin."""
        ids, unknown = self.model.ids, self.model.unknown
        stream = np.fromiter(itertools.chain.from_iterable(
            (-2, *(ids.get(word, unknown) for word in sentence), ids[END]) for sentence in sentences), np.int64)
        begins = stream == -2
        stream[begins] = ids[BEGIN]
        return stream, begins


def _read(source: Path, cache: Path | None) -> NgramModel:
    if source.is_dir():
        return NgramModel.load(source)
    if cache is None:
        return read_arpa(source)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    digest = file_digest(source)
    if is_saved(cache) and model_facts(cache).get("source") == digest:
        return NgramModel.load(cache)
    model = read_arpa(source)
    model.save(cache, {"source": digest})
    return model


def check_model(model: NgramModel, name: str, *, sample: int = 50, tolerance: float = 0.01) -> None:
    """Refuse a broken model: raises UserError where the probabilities after some history do not sum to one."""
    if not {BEGIN, END} <= model.ids.keys():
        raise UserError(f"{name}: the language model lacks {BEGIN} or {END}")
    followers = np.delete(np.arange(len(model.words)), model.ids[BEGIN])
    histories: list[np.ndarray] = [np.zeros(0, np.int64)]
    for order in range(2, model.order + 1):
        prefixes = np.unique(model.tables[order - 1].keys // len(model.words))
        chosen = set(prefixes[:: max(1, len(prefixes) // sample)].tolist())
        for rows, ids in model.blocks(order - 1):
            histories += [ids[row - rows.start] for row in sorted(chosen) if rows.start <= row < rows.stop]
    for history in histories:
        ngrams = np.empty((len(followers), len(history) + 1), np.int64)
        ngrams[:, :-1], ngrams[:, -1] = history, followers
        total = float(np.sum(10 ** model.last_log10(ngrams)))
        if abs(total - 1.0) > tolerance:
            words = " ".join(model.words[i] for i in history)
            raise UserError(f"{name}: broken language model: the probabilities of all words after '{words}' sum to "
                            f"{total:.4g}, not 1")
