"""Settings of the acoustic room: the network, its data and its trainer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from asr_distill.config import LATER, NO_RESULT

PrecisionName = Literal["auto", "bfloat16", "float32"]


# Which settings a kind of network has beside layers, width, dropout and norm.
KIND_SETTINGS = {
    "feed_forward": {"left", "right", "input_dropout"},
    "tdnn": {"stride", "splices", "skip", "final", "bottleneck", "front_left", "front_right"},
    "conv_tdnn": {"stride", "splices", "skip", "final", "bottleneck", "channels"},
    "attention": {"stride", "splices", "skip", "final", "heads", "reach", "front_left", "front_right"},
}


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a frame classifier. The paper's: 8 layers x 2560 ReLU over 20 + 1 + 5 frames.

    feed_forward splices left + 1 + right frames; the other kinds' context follows from their layers.
    tdnn: a front over a few frames, `layers` time-delay layers, a head of `final` units a frame, and the output.
    conv_tdnn: the same behind 2-D convolutions. attention: the same with self-attention before each layer.
    """

    kind: Literal["feed_forward", "tdnn", "conv_tdnn", "attention"] = "feed_forward"
    layers: int = 8  # hidden layers
    width: int = 2560  # units per hidden layer
    left: int = 20  # frames of context before the classified one
    right: int = 5  # frames after it
    dropout: float = 0.0  # share of hidden units silenced in training
    norm: Literal["none", "batch", "layer"] = "none"  # between affine and ReLU
    stride: int = 1  # hidden layers work on every so many-th frame; logits come at every frame all the same
    splices: tuple[tuple[int, ...], ...] = ()  # offsets of each layer, in strides; empty: -1, 0, 1 everywhere
    skip: float = 0.0  # so much of its input is added to a layer's output
    final: int = 256  # units per frame before the output layer
    bottleneck: int = 0  # > 0: layers in two factors, the first kept semi-orthogonal (TDNN-F)
    channels: tuple[int, ...] = (32, 64, 64)  # of the convolutions; all but the first halve the mel axis
    heads: int = 8  # attention; they share the width
    reach: int = 4  # strides that a step attends to, before and after
    front_left: int = field(default=2, metadata=LATER)  # frames that the front reads before a grid step's own
    front_right: int = field(default=2, metadata=LATER)  # frames after them; 0 for a streaming network
    input_dropout: float = field(default=0.0, metadata=LATER)  # share of the network's inputs silenced in training

    def __post_init__(self) -> None:
        if self.layers < 0 or self.width < 1:
            raise ValueError(f"layers must be >= 0 and width >= 1, not {self.layers} and {self.width}")
        if self.left < 0 or self.right < 0:
            raise ValueError(f"left and right must be >= 0 frames, not {self.left} and {self.right}")
        for name in ("dropout", "input_dropout", "skip"):
            if not 0 <= getattr(self, name) < 1 + (name == "skip"):
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name, least in (("stride", 1), ("final", 1), ("bottleneck", 0), ("heads", 1), ("reach", 0),
                            ("front_left", 0), ("front_right", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, not {getattr(self, name)}")
        if self.splices and len(self.splices) != self.layers:
            raise ValueError(f"splices must be one list of offsets a layer ({self.layers}), not {len(self.splices)}")
        for offsets in self.splices:
            if 0 not in offsets or tuple(sorted(set(offsets))) != tuple(offsets):
                raise ValueError(f"splices must be rising offsets with 0 among them, not {list(offsets)}")
        if self.bottleneck >= self.width:
            raise ValueError(f"bottleneck must be below width ({self.width}), not {self.bottleneck}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must be one number >= 1 for each convolution, not {list(self.channels)}")
        if self.kind == "attention" and self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        strange = set().union(*KIND_SETTINGS.values()) - KIND_SETTINGS[self.kind]
        for entry in fields(self):
            if entry.name in strange and getattr(self, entry.name) != entry.default:
                raise ValueError(f"{entry.name} is no setting of a network of kind {self.kind}")

    def layer_offsets(self) -> tuple[tuple[int, ...], ...]:
        """The splice offsets of each time-delay layer, in strides."""
        return self.splices or ((-1, 0, 1),) * self.layers


@dataclass(frozen=True)
class DataConfig:
    """What is trained on. The same `seed` for all models of an experiment: they must see the same split."""

    heldout_fraction: float = 0.05  # share of the aligned utterances kept for early stopping
    train_fraction: float = 1.0  # share of the remaining utterances that is trained on
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.heldout_fraction < 1:
            raise ValueError(f"heldout_fraction must be in [0, 1), not {self.heldout_fraction}")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"train_fraction must be in (0, 1], not {self.train_fraction}")


@dataclass(frozen=True)
class AugmentConfig:
    """In each sample (a window or a chunk with its context): SpecAugment, so many masks of 0 to so many places; and
    the frequencies of another vocal tract.

    Images (data.TrainingData.of_vectors) are shifted in place of that.
    """

    time_masks: int = 0
    time_width: int = 10  # frames
    mel_masks: int = 0  # log-mel features only
    mel_width: int = 8  # mel bands
    # log-mel features only: vocal tract length perturbation, frequencies times 1 - mel_warp to 1 + mel_warp
    mel_warp: float = field(default=0.0, metadata=LATER)
    shift: int = field(default=0, metadata=LATER)  # images only: by up to so many pixels, up or down, left or right

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) < 0:
                raise ValueError(f"{entry.name} must be >= 0, not {getattr(self, entry.name)}")
        if self.mel_warp > 0.5:
            raise ValueError(f"mel_warp must be at most 0.5, not {self.mel_warp}")


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
    max_norm: float = field(default=0.0, metadata=LATER)  # greatest length of a unit's incoming weights; 0 = off
    batch: int = 2048  # frames per update, of all processes together
    # In so many pieces is a process's part of a batch gone through, for less memory. The update is that of the whole
    # batch; but batch normalisation (NetworkConfig.norm) has the statistics of a piece.
    accumulate: int = field(default=1, metadata=LATER)
    chunk: int = 1  # contiguous frames that one sample is made of; a multiple of the network's stride
    augment: AugmentConfig = AugmentConfig()
    average: int = 0  # > 0: the result is an exponential average of the weights over so many updates
    epochs: int = 10
    max_updates: int = 0  # > 0: exactly so many updates in place of epochs
    evaluate_updates: int = 0  # held-out evaluation every so many updates; 0 = every epoch
    patience: int = 0  # stop after so many evaluations without a better one; 0 = off
    precision: PrecisionName = "auto"
    checkpoint_seconds: float = field(default=60.0, metadata=NO_RESULT)
    checkpoint_updates: int = field(default=0, metadata=NO_RESULT)  # > 0: a checkpoint every so many updates too
    tensorboard: bool = field(default=True, metadata=NO_RESULT)  # scalars under work/tensorboard

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch", "accumulate", "chunk", "epochs", "checkpoint_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, not {getattr(self, name)}")
        for name in ("weight_decay", "warmup_updates", "gradient_clip", "max_updates", "evaluate_updates",
                     "patience", "checkpoint_updates", "average", "newbob_gain", "max_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, not {getattr(self, name)}")
        for name in ("momentum", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("final_rate", "newbob_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
