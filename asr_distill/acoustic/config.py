"""Settings of the acoustic room: the network, its data and its trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from asr_distill.config import NO_RESULT

PrecisionName = Literal["auto", "bfloat16", "float32"]


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a frame classifier. The paper's: 8 layers x 2560 ReLU over 20 + 1 + 5 frames."""

    kind: Literal["feed_forward"] = "feed_forward"
    layers: int = 8  # hidden layers
    width: int = 2560  # units per hidden layer
    left: int = 20  # frames of context before the classified one
    right: int = 5  # frames after it
    dropout: float = 0.0  # share of hidden units silenced in training
    norm: Literal["none", "batch", "layer"] = "none"  # between affine and ReLU

    def __post_init__(self) -> None:
        if self.layers < 0 or self.width < 1:
            raise ValueError(f"layers must be >= 0 and width >= 1, not {self.layers} and {self.width}")
        if self.left < 0 or self.right < 0:
            raise ValueError(f"left and right must be >= 0 frames, not {self.left} and {self.right}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class DataConfig:
    """What is trained on. The same `seed` for all models of an experiment: they must see the same split."""

    heldout_fraction: float = 0.05  # share of the aligned utterances kept for early stopping
    train_fraction: float = 1.0  # share of the remaining utterances that is trained on
    seed: int = 0
    left: int = 20  # room for the widest context of any network on this data
    right: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.heldout_fraction < 1:
            raise ValueError(f"heldout_fraction must be in [0, 1), not {self.heldout_fraction}")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"train_fraction must be in (0, 1], not {self.train_fraction}")
        if self.left < 0 or self.right < 0:
            raise ValueError(f"left and right must be >= 0 frames, not {self.left} and {self.right}")


@dataclass(frozen=True)
class TrainerConfig:
    """One run of the trainer; teachers, baseline and student differ in nothing here but by wish.

    schedule `cosine` falls from learning_rate to final_rate * learning_rate over the whole run; `newbob` multiplies
    the rate by newbob_factor after every evaluation whose held-out frame accuracy rose by less than newbob_gain.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9  # sgd only (Nesterov where > 0)
    beta2: float = 0.98  # adamw only
    weight_decay: float = 0.0  # on weight matrices only
    schedule: Literal["cosine", "newbob", "constant"] = "cosine"
    warmup_updates: int = 200  # the rate rises linearly over these
    final_rate: float = 0.01
    newbob_gain: float = 0.005
    newbob_factor: float = 0.5
    gradient_clip: float = 5.0  # greatest global norm; 0 = off
    batch: int = 2048  # frames per update
    epochs: int = 10
    max_updates: int = 0  # > 0: exactly so many updates in place of epochs
    evaluate_updates: int = 0  # held-out evaluation every so many updates; 0 = every epoch
    patience: int = 0  # stop after so many evaluations without a better one; 0 = off
    precision: PrecisionName = "auto"
    checkpoint_seconds: float = field(default=60.0, metadata=NO_RESULT)
    checkpoint_updates: int = field(default=0, metadata=NO_RESULT)  # > 0: a checkpoint every so many updates too
    tensorboard: bool = field(default=True, metadata=NO_RESULT)  # scalars under work/tensorboard

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch", "epochs", "checkpoint_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, not {getattr(self, name)}")
        for name in ("weight_decay", "warmup_updates", "gradient_clip", "max_updates", "evaluate_updates",
                     "patience", "checkpoint_updates", "newbob_gain"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, not {getattr(self, name)}")
        for name in ("momentum", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("final_rate", "newbob_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
