"""Settings of the distillation room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from asr_distill.acoustic.config import PrecisionName
from asr_distill.config import NO_RESULT


@dataclass(frozen=True)
class SoftTargetConfig:
    """What is kept of the teachers' posteriors."""

    temperature: float = 2.0  # the paper tries 1, 2, 5 and 10
    top_k: int = 20  # greatest probabilities kept per frame; 0 = all
    mean: Literal["arithmetic", "geometric"] = "arithmetic"  # of the teachers' tempered posteriors
    precision: PrecisionName = "float32"  # of the teachers' networks while they are asked
    shard_frames: int = field(default=100_000, metadata=NO_RESULT)  # written at once: what a kill can lose

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, not {self.top_k}")
        if self.shard_frames < 1:
            raise ValueError(f"shard_frames must be >= 1, not {self.shard_frames}")


@dataclass(frozen=True)
class DistillConfig:
    """How the student learns from soft targets. The temperature is the one they were written at."""

    hard_weight: float = 0.5  # of hard-target cross-entropy relative to the soft loss's 1 (paper: 0.5)
    remainder: Literal["lumped", "uniform"] = "lumped"  # where the mass beyond the top k belongs: see losses.py

    def __post_init__(self) -> None:
        if self.hard_weight < 0:
            raise ValueError(f"hard_weight must be >= 0, not {self.hard_weight}")
