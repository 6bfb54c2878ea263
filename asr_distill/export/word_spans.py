"""Where words lie in an utterance: aligned, or evenly where that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asr_distill.errors import UserError
from asr_distill.hmm.align import AlignConfig, align_words
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang

Span = tuple[float, float]  # start, end


def word_spans(log_likelihoods: torch.Tensor, words: Sequence[str], hmm: HmmModel, lang: Lang,
               config: AlignConfig) -> list[Span]:
    """(start, end) of each word in frames, from log-likelihoods (frames, pdfs).

    A search that ended in the middle of a word has heard too few frames for the whole of it: then all words lie evenly.
    """
    spans = aligned_spans(log_likelihoods, words, hmm, lang, config)
    return evenly(words, float(len(log_likelihoods))) if spans is None else spans


def aligned_spans(log_likelihoods: torch.Tensor, words: Sequence[str], hmm: HmmModel, lang: Lang,
                  config: AlignConfig) -> list[Span] | None:
    """As word_spans; None where the words need more frames than there are."""
    try:
        return [(float(span.start_frame), float(span.end_frame))
                for span in align_words(log_likelihoods, words, hmm, lang, config)]
    except UserError:
        return None


def evenly(words: Sequence[str], length: float) -> list[Span]:
    """(start, end) of each word, as long as its letters (and the gap after it) are of the whole text."""
    letters = sum(len(word) + 1 for word in words)
    spans, at = [], 0
    for word in words:
        spans.append((length * at / letters, length * (at + len(word) + 1) / letters))
        at += len(word) + 1
    return spans
