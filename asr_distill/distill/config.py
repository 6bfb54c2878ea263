"""Settings of the distillation room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from asr_distill.acoustic.config import PrecisionName
from asr_distill.config import LATER, NO_RESULT


@dataclass(frozen=True)
class SoftTargetConfig:
    """What is kept of the teachers' posteriors."""

    temperature: float = 2.0  # the paper tries 1, 2, 5 and 10
    top_k: int = 20  # greatest probabilities kept per frame; 0 = all
    mean: Literal["arithmetic", "geometric"] = "arithmetic"  # of the teachers' tempered posteriors
    precision: PrecisionName = "float32"  # of the teachers' networks while they are asked
    shard_frames: int = field(default=100_000, metadata=NO_RESULT)  # written at once: what a kill can lose
    weights: tuple[float, ...] = field(default=(), metadata=LATER)  # relative, one a teacher; empty: equal
    teachers: int = field(default=0, metadata=LATER)  # > 0: only the first so many teachers
    chosen: tuple[int, ...] = field(default=(), metadata=LATER)  # only the teachers of these numbers, from 1
    form: Literal["top_k", "compact", "dense"] = field(default="top_k", metadata=LATER)  # see soft_store.py
    max_error: float = field(default=1e-3, metadata=LATER)  # compact: nats of divergence, mean per frame
    max_bytes: int = field(default=64, metadata=LATER)  # compact: of a frame, even where that misses max_error
    pilot_frames: int = field(default=40_000, metadata=LATER)  # compact: that the form is fitted to

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")
        if not self.max_error > 0:
            raise ValueError(f"max_error must be > 0, not {self.max_error}")
        for name, least in (("top_k", 0), ("shard_frames", 1), ("teachers", 0), ("max_bytes", 1), ("pilot_frames", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, not {getattr(self, name)}")
        if self.weights and min(self.weights) <= 0:
            raise ValueError(f"weights must be > 0, not {list(self.weights)}")
        if self.chosen and (self.teachers or min(self.chosen) < 1 or len(set(self.chosen)) < len(self.chosen)):
            raise ValueError(f"chosen must be different numbers of teachers, from 1, and teachers 0 then, not "
                             f"{list(self.chosen)} and {self.teachers}")
        asked = len(self.chosen) or self.teachers
        if self.weights and asked not in (0, len(self.weights)):
            raise ValueError(f"weights must be one for each of {asked} teachers, not {len(self.weights)}")


@dataclass(frozen=True)
class DistillConfig:
    """How the student learns from soft targets. The temperature is the one they were written at."""

    hard_weight: float = 0.5  # of hard-target cross-entropy relative to the soft loss's 1 (paper: 0.5)
    remainder: Literal["lumped", "uniform"] = "lumped"  # where the mass beyond the top k belongs: see losses.py

    def __post_init__(self) -> None:
        if self.hard_weight < 0:
            raise ValueError(f"hard_weight must be >= 0, not {self.hard_weight}")
