"""Dropout (Hinton et al. 2012) with masks of random bytes: torch's own draws a number a unit, on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from asr_distill.acoustic.sampling import Place

_STEPS = 256  # values of a byte: rates are kept to 1/256


class Dropout(nn.Dropout):  # so that whoever looks for dropout finds it: the trainer seeds each update's masks
    """Silences a share of units in training and scales the others, so that the mean stays; eval mode: nothing.

    The share is `rate` rounded to 1/256. On a 2-core CPU torch's nn.Dropout took half of a training step at width
    1024; this takes a quarter of its time (benchmarks/trainer.py prints both). Draws from torch's default generator.
    """

    place: tuple[int, int] | None = None  # of a part of a batch: its first row, and all rows of the batch

    def __init__(self, rate: float):
        super().__init__(rate)
        self.silenced = min(round(rate * _STEPS), _STEPS - 1)

    def stand(self, place: Place | None) -> None:
        """What comes is that part of a batch: the masks are drawn for the whole, so that they are the same whatever
        the parts, and this part's are taken. None: it is the whole."""
        self.place = (place.first_row, place.rows) if place else None

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """units of any shape -> the same shape."""
        if not self.training or not self.silenced:
            return units
        first, rows = self.place or (0, len(units))
        count = rows * units[0].numel() if len(units) else 0
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=units.device).random_(-2**63, None)
        masks = words.view(torch.uint8)[:count].view(-1, *units.shape[1:])  # (rows of the whole batch, ...)
        kept = masks[first:first + len(units)] >= self.silenced
        return units * kept.to(units.dtype).mul_(_STEPS / (_STEPS - self.silenced))

    def extra_repr(self) -> str:
        return f"{self.silenced}/{_STEPS}"


class SequenceDropout(Dropout):
    """Dropout that silences a unit for a whole sequence: masks cost nothing (Kaldi's GeneralDropoutComponent)."""

    def stand(self, place: Place | None) -> None:
        self.place = (place.first_sample, place.samples) if place else None

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """units (time, batch, width) -> the same shape."""
        if not self.training or not self.silenced:
            return units
        return units * super().forward(units.new_ones(units.shape[1:]))
