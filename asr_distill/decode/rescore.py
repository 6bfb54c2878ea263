"""Second pass: the n best of the search, weighed anew with a larger language model (Kaldi's lmrescore).

The search's graph holds a small model; its log-probability is taken off every word sequence and the large model's put
in its place. Which weights suit is found on a tuning part, over a whole grid at once: nothing is searched again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import kaldialign
import numpy as np

from asr_distill.decode.decoder import Hypothesis
from asr_distill.decode.journal import JOURNAL, NBEST, read_hypotheses, read_nbest, write_hypotheses
from asr_distill.errors import UserError
from asr_distill.files import read_json, write_json

CHUNK = 50_000  # sentences scored at once

References = Mapping[str, Sequence[str]]


class SentenceScorer(Protocol):
    """A language model, for example lang.ngram_scorer.NgramScorer."""

    def score(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Natural log of P(words and sentence's end), float64 (sentences,)."""


@dataclass(frozen=True)
class Weights:
    """cost = graph cost + lm_weight * (large model's cost - small one's) + acoustic_scale * acoustic cost
    + insertion_penalty * words. lm_weight 1 puts the large model in the small one's place.
    """

    acoustic_scale: float
    insertion_penalty: float = 0.0
    lm_weight: float = 1.0


@dataclass(frozen=True)
class RescoreConfig:
    """The grid of weights."""

    acoustic_scales: tuple[float, ...] = (0.04, 0.05, 0.056, 0.063, 0.071, 0.08, 0.09, 0.1, 0.112, 0.125, 0.14, 0.16)
    insertion_penalties: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
    lm_weights: tuple[float, ...] = (0.8, 0.9, 1.0)

    def __post_init__(self) -> None:
        for values in (self.acoustic_scales, self.insertion_penalties, self.lm_weights):
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"the values of a grid must rise and not be empty, not {values}")
        if self.acoustic_scales[0] <= 0 or self.lm_weights[0] < 0:
            raise ValueError("acoustic_scales must be above 0, lm_weights not below")


@dataclass(frozen=True)
class Alternatives:
    """The word sequences of one utterance; costs float64 (sequences,), without insertion penalty, unscaled."""

    first: Hypothesis  # of the search
    words: tuple[tuple[str, ...], ...]
    graph_costs: np.ndarray
    acoustic_costs: np.ndarray
    lm_changes: np.ndarray  # the large model's cost less the small one's

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(words) for words in self.words])

    def best(self, weights: Weights) -> int:
        """Place of the cheapest sequence."""
        return int(np.argmin(self.graph_costs + weights.lm_weight * self.lm_changes
                             + weights.acoustic_scale * self.acoustic_costs
                             + weights.insertion_penalty * self.lengths))


def read_alternatives(work: Path, small: SentenceScorer, large: SentenceScorer) -> list[Alternatives]:
    """What `decode_store` kept in `work` with `SearchConfig.nbest`, scored by both models; in the journal's order.

    Raises UserError where there are no n best, or not those of every utterance.
    """
    hypotheses, lists = read_hypotheses(work / JOURNAL), read_nbest(work / NBEST)
    missing = [hypothesis.id for hypothesis in hypotheses if hypothesis.id not in lists]
    if missing or not hypotheses:
        raise UserError(f"{work / NBEST}: no alternatives of {missing[0] if missing else 'any utterance'}; decode with "
                        "nbest above 0")
    penalty = read_json(work / "search.json")["search"]["insertion_penalty"]
    paths = [path for hypothesis in hypotheses for path in lists[hypothesis.id]]
    changes = iter(lm_changes([path.words for path in paths], small, large))
    found = []
    for hypothesis in hypotheses:
        own = lists[hypothesis.id]
        found.append(Alternatives(
            hypothesis, tuple(path.words for path in own),
            np.array([path.graph_cost - penalty * len(path.words) for path in own]),
            np.array([path.acoustic_cost for path in own]),
            np.fromiter(itertools.islice(changes, len(own)), np.float64)))
    return found


def lm_changes(sentences: Sequence[Sequence[str]], small: SentenceScorer, large: SentenceScorer) -> np.ndarray:
    """Cost under `large` less cost under `small`, float64 (sentences,)."""
    parts = [sentences[at:at + CHUNK] for at in range(0, len(sentences), CHUNK)]
    return np.concatenate([np.zeros(0), *(small.score(part) - large.score(part) for part in parts)])


def rescored(lists: Sequence[Alternatives], weights: Weights) -> list[Hypothesis]:
    """The cheapest of each utterance's alternatives. An utterance that has none keeps its first hypothesis.

    graph_cost then holds the change of language model and the insertion penalty.
    """
    hypotheses = []
    for utterance in lists:
        if not utterance.words:
            hypotheses.append(utterance.first)
            continue
        best = utterance.best(weights)
        words = utterance.words[best]
        graph = float(utterance.graph_costs[best] + weights.lm_weight * utterance.lm_changes[best]
                      + weights.insertion_penalty * len(words))
        acoustic = float(utterance.acoustic_costs[best])
        hypotheses.append(replace(utterance.first, words=words, graph_cost=graph, acoustic_cost=acoustic,
                                  cost=graph + weights.acoustic_scale * acoustic))
    return hypotheses


def rescore_store(work: Path, small: SentenceScorer, large: SentenceScorer, weights: Weights, *,
                  out: Path) -> list[Hypothesis]:
    """Rescore what `decode_store` left in `work`; out/hypotheses.jsonl and out/figures.json hold the result.

    In figures.json `rtf` holds the first pass and the rescoring, which is also told apart as `rescore_seconds`.
    Raises UserError as `read_alternatives`.
    """
    started = time.perf_counter()
    hypotheses = rescored(read_alternatives(work, small, large), weights)
    seconds = time.perf_counter() - started
    figures: dict[str, Any] = read_json(work / "figures.json")
    audio = figures["audio_seconds"]
    write_hypotheses(out / JOURNAL, hypotheses)
    write_json(out / "figures.json", figures | {
        "words": sum(len(hypothesis.words) for hypothesis in hypotheses), "rescore_seconds": seconds,
        "rtf": figures["rtf"] + (seconds / audio if audio else 0.0), "weights": asdict(weights)})
    return hypotheses


def tune_weights(lists: Sequence[Alternatives], references: References,
                 config: RescoreConfig = RescoreConfig()) -> tuple[Weights, dict[str, Any]]:
    """The weights of the grid with the fewest word errors, for a tuning part whose error rate is never reported.

    Figures: "best" (with its wer), "oracle_wer", "first_wer" (of the search itself), and "at_edge": whether the best
    acoustic scale is the grid's first or last. Raises UserError where an utterance has no reference.
    """
    errors, words = sequence_errors(lists, references)
    grid = [Weights(*point) for point in itertools.product(config.acoustic_scales, config.insertion_penalties,
                                                           config.lm_weights)]
    wrong = [sum(int(own[utterance.best(weights)]) for utterance, own in zip(lists, errors, strict=True) if len(own))
             for weights in grid]
    best = int(np.argmin(wrong))
    edges = (config.acoustic_scales[0], config.acoustic_scales[-1])
    lost = sum(len(references[utterance.first.id]) for utterance in lists if not utterance.words)
    return grid[best], {
        "best": asdict(grid[best]) | {"wer": 100 * (wrong[best] + lost) / words}, "points": len(grid),
        "oracle_wer": 100 * (sum(int(own.min()) for own in errors if len(own)) + lost) / words,
        "first_wer": 100 * sum(_errors(references[utterance.first.id], utterance.first.words)
                               for utterance in lists) / words,
        "at_edge": grid[best].acoustic_scale in edges}


def oracle_wer(lists: Sequence[Alternatives], references: References) -> float:
    """Word error rate in percent of the best choice from every list. Raises UserError as `tune_weights`."""
    errors, words = sequence_errors(lists, references)
    return 100 * sum(int(own.min()) if len(own) else len(references[utterance.first.id])
                     for utterance, own in zip(lists, errors, strict=True)) / words


def sequence_errors(lists: Sequence[Alternatives], references: References) -> tuple[list[np.ndarray], int]:
    """Word errors of every sequence, by utterance, int64 (sequences,); words of the references."""
    unknown = [utterance.first.id for utterance in lists if utterance.first.id not in references]
    if unknown:
        raise UserError(f"rescoring: no reference for {len(unknown)} utterances, for example {unknown[0]}")
    words = sum(len(references[utterance.first.id]) for utterance in lists)
    if not words:
        raise UserError("rescoring: the references hold no words")
    return [np.array([_errors(references[utterance.first.id], heard) for heard in utterance.words], np.int64)
            for utterance in lists], words


def _errors(reference: Sequence[str], words: Sequence[str]) -> int:
    return int(kaldialign.edit_distance(list(reference), list(words))["total"])
