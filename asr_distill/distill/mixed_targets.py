"""What all soft targets have in common as targets of the trainer: hard pdf-ids mixed in."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from asr_distill.acoustic.losses import RowLoss, mean_over_rows
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.losses import mixed_rows

Self = TypeVar("Self", bound="MixedTargets")


class MixedTargets:
    """A soft loss at `temperature`, mixed with hard pdf-ids where config.hard_weight > 0.

    pdf_ids (num_frames,) may be None where the hard weight is 0; a frame whose pdf-id is -1 (nobody has transcribed it)
    has its soft target alone. num_pdfs: the teachers' (acoustic.targets.OverPdfs). Raises ValueError for a hard weight
    without pdf-ids.
    """

    def __init__(self, temperature: float, config: DistillConfig, pdf_ids: torch.Tensor | None, num_pdfs: int):
        if config.hard_weight and pdf_ids is None:
            raise ValueError("hard_weight > 0 needs pdf_ids")
        self.temperature, self.config, self.num_pdfs = temperature, config, num_pdfs
        self.pdf_ids = pdf_ids.long() if pdf_ids is not None else None

    def to(self: Self, device: torch.device) -> Self:
        """The same targets for logits on `device`."""
        moved = copy.copy(self)
        moved.pdf_ids = self.pdf_ids.to(device) if self.pdf_ids is not None else None
        return moved

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        """The soft loss of frames int64 (batch,) for logits of this type."""
        raise NotImplementedError

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Mean mixed loss: logits (batch, pdfs), frames int64 (batch,)."""
        rows = self.soft_loss(frames, logits.dtype)
        if self.pdf_ids is not None:
            rows = mixed_rows(rows, self.pdf_ids[frames], self.config.hard_weight)
        return mean_over_rows(logits, rows)
