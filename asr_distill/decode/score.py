"""Word error rate with a bootstrap interval, and the test whether two systems differ.

Interval: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP 2004):
utterances are drawn with replacement; where speakers are given, whole speakers are, for a speaker's errors go together.
Test: matched pairs on segments (Gillick and Cox, ICASSP 1989; MAPSSWE of NIST's sctk), and the paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import kaldialign
import numpy as np

from asr_distill.decode.decoder import Hypothesis
from asr_distill.decode.segments import mapsswe
from asr_distill.decode.transcripts import check_same_utterances
from asr_distill.errors import UserError

RESAMPLES = 10_000
SEED = 20151
CONFIDENCE = 0.95

Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Score:
    """Word error rates in percent; wer_low to wer_high is the 95 % bootstrap interval."""

    wer: float
    wer_low: float
    wer_high: float
    substitutions: int
    insertions: int
    deletions: int
    words: int  # of the references
    utterances: int
    wrong_utterances: int


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances; differences are b - a, in percent points.

    p is two-sided, of the matched-pairs test over `segments` segments with errors (it takes segments as
    independent); p_bootstrap is two-sided, of the paired bootstrap over utterances or (where given) speakers.
    """

    wer_a: float
    wer_b: float
    wer_difference: float
    difference_low: float
    difference_high: float
    p: float
    p_bootstrap: float
    segments: int


def score(references: Texts, hypotheses: Texts | Iterable[Hypothesis], *, speakers: Mapping[str, str] | None = None,
          resamples: int = RESAMPLES, seed: int = SEED) -> Score:
    """Raises UserError where the two sides have other utterances, or the references no words."""
    hypotheses = texts_of(hypotheses)
    check_same_utterances(references, hypotheses)
    counts = error_counts(references, hypotheses)  # (utterances, 3)
    words = word_counts(references)
    errors, total = resample(np.stack([counts.sum(1), words], 1), _blocks(references, speakers), resamples, seed).T
    low, high = _interval(100 * errors / np.maximum(total, 1))
    substitutions, insertions, deletions = (int(count) for count in counts.sum(0))
    return Score(100 * int(counts.sum()) / int(words.sum()), low, high, substitutions, insertions, deletions,
                 int(words.sum()), len(words), int(counts.any(1).sum()))


def compare(references: Texts, hypotheses_a: Texts | Iterable[Hypothesis], hypotheses_b: Texts | Iterable[Hypothesis],
            *, speakers: Mapping[str, str] | None = None, resamples: int = RESAMPLES, seed: int = SEED) -> Comparison:
    """Raises UserError as `score`."""
    hypotheses_a, hypotheses_b = texts_of(hypotheses_a), texts_of(hypotheses_b)
    check_same_utterances(references, hypotheses_a)
    check_same_utterances(references, hypotheses_b)
    words = word_counts(references)
    a = error_counts(references, hypotheses_a).sum(1)
    b = error_counts(references, hypotheses_b).sum(1)
    difference, total = resample(np.stack([b - a, words], 1), _blocks(references, speakers), resamples, seed).T
    low, high = _interval(100 * difference / np.maximum(total, 1))
    # Adding one keeps p above 0: it is never surer than the resamples allow.
    tail = (1 + min((difference <= 0).sum(), (difference >= 0).sum())) / (1 + resamples)
    p, segments = mapsswe(references, hypotheses_a, hypotheses_b)
    wer_a, wer_b, difference_ab = (100 * int(errors.sum()) / int(words.sum()) for errors in (a, b, b - a))
    return Comparison(wer_a, wer_b, difference_ab, low, high, p, min(1.0, float(2 * tail)), segments)


def texts_of(hypotheses: Texts | Iterable[Hypothesis]) -> Texts:
    """Words by utterance id."""
    if isinstance(hypotheses, Mapping):
        return hypotheses
    return {hypothesis.id: hypothesis.words for hypothesis in hypotheses}


def error_counts(references: Texts, hypotheses: Texts) -> np.ndarray:
    """Substitutions, insertions, deletions of the least-cost alignment, int64 (utterances, 3)."""
    counts = []
    for id, reference in references.items():
        edits = kaldialign.edit_distance(list(reference), list(hypotheses[id]))
        counts.append((edits["sub"], edits["ins"], edits["del"]))
    return np.array(counts, np.int64).reshape(-1, 3)


def word_counts(references: Texts) -> np.ndarray:
    """Words per reference, int64 (utterances,). Raises UserError where there are none at all."""
    words = np.array([len(reference) for reference in references.values()], np.int64)
    if words.sum() == 0:
        raise UserError("the references hold no words: no word error rate can be computed")
    return words


def resample(values: np.ndarray, blocks: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of `values` (items, columns) over blocks drawn with replacement, float64 (resamples, columns).

    `blocks` (items,) gives each item's block, numbered from 0; as many blocks are drawn as there are.
    """
    number = int(blocks.max()) + 1
    sums = np.stack([np.bincount(blocks, column, number) for column in values.T], 1)  # (blocks, columns)
    random = np.random.default_rng(seed)
    drawn = np.empty((resamples, values.shape[1]))
    step = max(1, (1 << 22) // number)  # 4 M draws at once: bounded memory
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        drawn[first:first + count] = sums[random.integers(number, size=(count, number))].sum(1)
    return drawn


def _blocks(references: Texts, speakers: Mapping[str, str] | None) -> np.ndarray:
    """The bootstrap's block of every utterance: itself, or its speaker."""
    if speakers is None:
        return np.arange(len(references))
    unknown = [id for id in references if id not in speakers]
    if unknown:
        raise UserError(f"no speaker is known for {len(unknown)} utterances, for example {unknown[0]}")
    return np.unique([speakers[id] for id in references], return_inverse=True)[1]


def _interval(rates: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)
