"""The gate: an export that recognises worse than the recogniser it was made from is refused, with the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asr_distill.decode.score import Comparison, Score, compare, score

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class GateConfig:
    """margin: how many percent points of word error rate an export may lose."""

    margin: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 100:
            raise ValueError(f"margin must lie in [0, 100] percent points, not {self.margin}")


@dataclass(frozen=True)
class Verdict:
    """`refused` where the export is worse by more than the margin and, by the paired test (matched pairs, two-sided at
    0.05), worse at all; `unsure` where it is worse by more than the margin but the utterances are too few to tell.
    """

    score: Score
    comparison: Comparison  # a: the recogniser, b: the export
    margin: float

    @property
    def refused(self) -> bool:
        return self.comparison.wer_difference > self.margin and self.comparison.p < SIGNIFICANT

    @property
    def unsure(self) -> bool:
        return self.comparison.wer_difference > self.margin and not self.refused

    def line(self) -> str:
        found = self.comparison
        return (f"WER {found.wer_b:.2f} % against the recogniser's {found.wer_a:.2f} %: {found.wer_difference:+.2f} "
                f"points ({found.difference_low:+.2f} to {found.difference_high:+.2f}, p = {found.p:.2g}, "
                f"{self.score.words:,} words in {self.score.utterances:,} utterances; margin {self.margin:g})")

    def figures(self) -> dict[str, Any]:
        return {"score": dataclasses.asdict(self.score), "comparison": dataclasses.asdict(self.comparison),
                "margin": self.margin}


def judge(references: Mapping[str, Sequence[str]], recogniser: Mapping[str, Sequence[str]],
          export: Mapping[str, Sequence[str]], config: GateConfig) -> Verdict:
    """Words of the recogniser and of the export on the same utterances, as Comparison's a and b."""
    return Verdict(score(references, export), compare(references, recogniser, export), config.margin)
