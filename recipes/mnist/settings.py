"""Settings of the recipe mnist."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from asr_distill.acoustic.config import AugmentConfig, NetworkConfig, TrainerConfig
from asr_distill.config import NO_RESULT
from asr_distill.distill.config import DistillConfig


def _network(width: int, dropout: float = 0.0, input_dropout: float = 0.0) -> NetworkConfig:
    """Two hidden layers on one image: no context."""
    return NetworkConfig(layers=2, width=width, left=0, right=0, dropout=dropout, input_dropout=input_dropout)


@dataclass(frozen=True)
class DataSettings:
    """Where the images come from."""

    dir: Path | None = None  # a folder with MNIST's four idx files; without it they are downloaded
    download_dir: str = field(default="data", metadata=NO_RESULT)
    base_url: str = field(default="", metadata=NO_RESULT)  # another mirror than local.mnist.BASE_URL


@dataclass(frozen=True)
class RunSettings:
    """What is common to all networks."""

    seeds: tuple[int, ...] = (1, 2, 3)  # of each network; a student learns from the large net of its own seed
    heldout: int = 0  # the last so many training images are kept from all training and scored: to choose settings
    workers: int = field(default=0, metadata=NO_RESULT)  # networks trained at once; 0: about one a core, one on a GPU

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be a list of different numbers")
        if self.heldout < 0 or self.workers < 0:
            raise ValueError(f"heldout and workers must be >= 0, not {self.heldout} and {self.workers}")


@dataclass(frozen=True)
class NetSettings:
    """A network on the digits' labels."""

    network: NetworkConfig
    trainer: TrainerConfig


@dataclass(frozen=True)
class SoftSettings:
    """At which temperatures the large net's posteriors are described; networks may be trained at any."""

    temperatures: tuple[float, ...] = (1.0, 2.5, 4.0, 8.0, 20.0)


@dataclass(frozen=True)
class DistilSettings:
    """A network of the small net's shape on the large net's posteriors."""

    temperature: float = 20.0
    loss: DistillConfig = DistillConfig(hard_weight=0.0)
    trainer: TrainerConfig = TrainerConfig()

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")


@dataclass(frozen=True)
class SweepGroup:
    """One shape, distilled at each temperature."""

    network: NetworkConfig = _network(300)
    trainer: TrainerConfig = TrainerConfig()
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 20.0)

    def __post_init__(self) -> None:
        if not self.temperatures or min(self.temperatures) <= 0 or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures must be different numbers > 0, not {list(self.temperatures)}")


@dataclass(frozen=True)
class SweepSettings:
    loss: DistillConfig = DistillConfig(hard_weight=0.0)
    groups: dict[str, SweepGroup] = field(default_factory=lambda: {"wide": SweepGroup()})

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("groups must hold at least one shape of network")
        for name in self.groups:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"groups: a name is made of letters, digits, _ and -, not '{name}'")


@dataclass(frozen=True)
class PartialSettings:
    """A transfer set of some digits alone, and the bias by which the others are put right."""

    digits: tuple[int, ...] = (0, 1, 2, 4, 5, 6, 7, 8, 9)  # that the transfer set shows
    corrected: tuple[int, ...] = (3,)  # whose biases are moved, all by one number
    heldout: int = 5000  # training images kept from the transfer set (all digits): the bias is chosen on these
    temperature: float = 20.0
    loss: DistillConfig = DistillConfig(hard_weight=0.0)
    trainer: TrainerConfig = TrainerConfig()

    def __post_init__(self) -> None:
        for name in ("digits", "corrected"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given) or not set(given) <= set(range(10)):
                raise ValueError(f"{name} must be different digits from 0 to 9, not {list(given)}")
        if len(self.corrected) == 10:
            raise ValueError("corrected must leave a digit out: moving all biases alike changes nothing")
        if self.heldout < 1:
            raise ValueError(f"heldout must be at least 1, not {self.heldout}: the bias needs images to be chosen on")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")


@dataclass(frozen=True)
class MnistSettings:
    data: DataSettings = DataSettings()
    runs: RunSettings = RunSettings()
    large: NetSettings = NetSettings(_network(1200, dropout=0.5, input_dropout=0.2),
                                     TrainerConfig(max_norm=3.0, augment=AugmentConfig(shift=2)))
    soft: SoftSettings = SoftSettings()
    small: NetSettings = NetSettings(_network(800), TrainerConfig())
    distilled: DistilSettings = DistilSettings()
    sweep: SweepSettings = field(default_factory=SweepSettings)
    without_3s: PartialSettings = PartialSettings()
    only_7s_8s: PartialSettings = PartialSettings(digits=(7, 8), corrected=(7, 8))
