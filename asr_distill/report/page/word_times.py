"""Where words are spoken in an utterance: by forced alignment where the exported student is there, else a guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from asr_distill.export import word_spans
from asr_distill.export.bundle import Bundle
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import AlignConfig
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang


@dataclass(frozen=True)
class Times:
    """A span a word; `aligned` False: evenly by letters, for want of anything better."""

    spans: list[word_spans.Span]  # seconds from the utterance's start
    aligned: bool


class WordTimer:
    """Aligns with the recogniser that the recipe exported. Raises UserError where it is damaged."""

    def __init__(self, recogniser: Path, store: FrameStore):
        bundle = Bundle.load(recogniser, check_graph=False)  # the search graph is not used
        self.model, self.store = OnnxModel(recogniser), store
        self.hmm, self.lang = HmmModel.load(recogniser), Lang(recogniser)
        self.config = AlignConfig(acoustic_scale=bundle.search.acoustic_scale)
        self.shift = bundle.features.frame_shift_ms / 1000

    def times(self, utterance: str, texts: Sequence[Sequence[str]]) -> list[Times]:
        """Of several texts of one utterance."""
        index = self.store.index_of(utterance)
        seconds = self.store.utterances[index].seconds
        log_likelihoods = self.model.log_likelihoods(self.store.features(index, "cpu"))  # (frames, pdfs)
        return [self._times(log_likelihoods, words, seconds) for words in texts]

    def _times(self, log_likelihoods: torch.Tensor, words: Sequence[str], seconds: float) -> Times:
        if not words:
            return Times([], True)
        spans = word_spans.aligned_spans(log_likelihoods, words, self.hmm, self.lang, self.config)
        if spans is None:
            return evenly(words, seconds)
        return Times([(begin * self.shift, end * self.shift) for begin, end in spans], True)


def evenly(words: Sequence[str], seconds: float) -> Times:
    """Each word as long as its letters are of the whole text."""
    return Times(word_spans.evenly(words, seconds), False)
