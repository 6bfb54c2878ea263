"""Settings of the transfer set: what students hear beside, or in place of, the audio that their teachers learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asr_distill.config import LATER
from asr_distill.features.degrade import DegradeConfig


@dataclass(frozen=True)
class TransferSettings:
    """All off: student and baseline are trained on what the teachers are."""

    views: int = field(default=0, metadata=LATER)  # copies in rooms and noise, of seeds degrade.seed, seed + 1, ...
    clean: bool = field(default=True, metadata=LATER)  # the clean audio too, beside its noisy views
    degrade: DegradeConfig = field(default=DegradeConfig(), metadata=LATER)
    untranscribed: Path | None = field(default=None, metadata=LATER)  # folder of FLAC or WAV, for soft targets alone
    max_seconds: float = field(default=20.0, metadata=LATER)  # longer untranscribed recordings are cut into pieces
    hidden: float = field(default=0.0, metadata=LATER)  # share of the training utterances that count as untranscribed
    hear_hidden: bool = field(default=True, metadata=LATER)  # the student is trained on these, on soft targets alone
    noisy_test: bool = field(default=False, metadata=LATER)  # score baseline and student on noisy reported splits too
    test: DegradeConfig = field(default=DegradeConfig(seed=1000), metadata=LATER)  # rooms and noise of those

    def __post_init__(self) -> None:
        if self.views < 0:
            raise ValueError(f"views must be >= 0, not {self.views}")
        if not self.clean and not self.views:
            raise ValueError("clean: false leaves nothing to hear: set views to 1 or more")
        if (self.views and not self.degrade.active) or (self.noisy_test and not self.test.active):
            raise ValueError("degrade and test must leave some utterances in rooms or noise: their shares are all 0")
        if not 0 <= self.hidden < 1:
            raise ValueError(f"hidden must be in [0, 1), not {self.hidden}")
        if self.max_seconds < 1:
            raise ValueError(f"max_seconds must be at least 1, not {self.max_seconds}")
        if self.untranscribed and not self.hear_hidden:
            raise ValueError("hear_hidden: false is for a transfer set without an untranscribed folder")
        seeds = range(self.degrade.seed, self.degrade.seed + self.views)
        if self.noisy_test and self.test.seed in seeds:
            raise ValueError(f"test.seed {self.test.seed} is a view's too: give the noisy test another")
