"""A second, larger language model: for rescoring what a search with the small one found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError
from asr_distill.lang.build import Transcripts, fits
from asr_distill.lang.ngram import NgramConfig, train, tried
from asr_distill.lang.ngram_scorer import NgramScorer, check_model


@dataclass(frozen=True)
class LargeLmSettings:
    """The larger model: given, or trained on text; neither: nothing is rescored."""

    arpa: Path | None = None
    text: Path | None = None  # one sentence a line
    ngram: NgramConfig = NgramConfig()

    def __post_init__(self) -> None:
        if self.arpa and self.text:
            raise ValueError("arpa and text: give one of them")

    @property
    def wanted(self) -> bool:
        return bool(self.arpa or self.text)


def build_large(settings: LargeLmSettings, transcripts: Transcripts, out: Path) -> dict[str, Any]:
    """Write the model to `out` (NgramScorer(out) opens it). Figures: n-grams, and as `fits` for every split.

    Raises UserError where the model or the text is broken, or neither is given.
    """
    figures: dict[str, Any] = {}
    if settings.arpa:
        model = NgramScorer(settings.arpa).model
        check_model(model, str(settings.arpa))
    elif settings.text:
        trained = train(settings.text, settings.ngram)
        model = trained.pruned(settings.ngram.prune) if settings.ngram.prune else trained.model
        figures |= trained.figures | tried(model, settings.text, "the large language model")
    else:
        raise UserError("a large language model is needed: give --set large_lm.arpa=FILE or large_lm.text=FILE")
    model.save(out)
    return figures | {"ngrams": model.sizes, "splits": fits(NgramScorer(model), transcripts)}
