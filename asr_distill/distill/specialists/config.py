"""Settings of the specialists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Columns = Literal["confusions", "covariance"]
Dustbin = Literal["sum", "unit"]


@dataclass(frozen=True)
class SetConfig:
    """Which senones each specialist tells apart.

    With `per_class` m a senone may be in the sets of its m nearest clusters, so that its frames are covered by none to
    m specialists. It is in none where each of these clusters has `max_size` nearer ones, or where it is `rare`.
    """

    specialists: int = 20
    per_class: int = 1  # clusters whose sets a senone may be in (m)
    min_size: int = 2  # senones of a set; a smaller cluster takes its nearest others too, beyond their `per_class`
    max_size: int = 0  # 0 = no limit
    rare: float = 0.01  # a senone whose mean posterior is below this share of 1 / pdfs is left out
    columns: Columns = "confusions"  # that are clustered: see clusters.columns_of; `covariance` is the paper's
    passes: int = 20  # of the on-line k-means over the columns
    frames: int = 300_000  # about so many are asked of the generalist for the covariance; 0 = all
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("specialists", "per_class", "min_size", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        for name in ("rare", "frames", "max_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, not {getattr(self, name)}")
        if self.rare >= 1:
            raise ValueError(f"rare must be in [0, 1), not {self.rare}")
        if self.max_size and self.max_size < self.min_size:
            raise ValueError(f"max_size must be 0 or >= min_size ({self.min_size}), not {self.max_size}")
        if self.per_class > self.specialists:
            raise ValueError(f"per_class must be <= specialists ({self.specialists}), not {self.per_class}")


@dataclass(frozen=True)
class SpecialistConfig:
    """The sets, what each specialist is trained on, and when it is asked."""

    sets: SetConfig = SetConfig()
    dustbin: Dustbin = "sum"  # see specialist.py; `unit` is the paper's
    special_share: float = 0.5  # of a specialist's training frames that are of its set
    active_top: int = 1  # asked on frames where one of the generalist's so many best senones is in its set (paper: 1)

    def __post_init__(self) -> None:
        if self.active_top < 1:
            raise ValueError(f"active_top must be >= 1, not {self.active_top}")
        if not 0 < self.special_share < 1:
            raise ValueError(f"special_share must be in (0, 1), not {self.special_share}")
