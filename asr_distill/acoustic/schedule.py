"""Learning rate by update: warm-up, then cosine, constant, or halving when held-out accuracy stops rising."""

from __future__ import annotations

import math

from asr_distill.acoustic.config import TrainerConfig


def learning_rate(config: TrainerConfig, update: int, total: int, newbob_scale: float = 1.0) -> float:
    """The rate of `update` (from 0) of `total`."""
    warmup = min(config.warmup_updates, total)
    if update < warmup:
        return config.learning_rate * (update + 1) / warmup
    if config.schedule == "cosine":
        progress = (update - warmup) / max(1, total - warmup)
        height = 0.5 * (1 + math.cos(math.pi * progress))  # 1 to 0
        return config.learning_rate * (config.final_rate + (1 - config.final_rate) * height)
    return config.learning_rate * (newbob_scale if config.schedule == "newbob" else 1.0)


def newbob_scale(config: TrainerConfig, scale: float, gain: float) -> float:
    """The new scale after an evaluation whose held-out frame accuracy rose by `gain` (a fraction of 1)."""
    return scale * config.newbob_factor if gain < config.newbob_gain else scale
