"""Whole posteriors as targets: in memory for few classes, where a shorter form would save nothing, and from disk."""

from __future__ import annotations

import numpy as np
import torch

from asr_distill.acoustic.losses import RowLoss, mean_over_rows
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.losses import mixed_rows, soft_cross_entropy_rows
from asr_distill.distill.stored_targets import StoredTargets


class DenseTargets:
    """A teacher's softmax(logits / temperature) of every frame, mixed with hard pdf-ids where config.hard_weight > 0.

    logits (num_frames, pdfs); pdf_ids (num_frames,) may be None where the hard weight is 0. Raises ValueError where
    the two are not of as many frames, or a hard weight has no pdf-ids.
    """

    def __init__(self, logits: torch.Tensor, temperature: float, config: DistillConfig,
                 pdf_ids: torch.Tensor | None):
        if config.hard_weight and pdf_ids is None:
            raise ValueError("hard_weight > 0 needs pdf_ids")
        if pdf_ids is not None and len(pdf_ids) != len(logits):
            raise ValueError(f"logits of {len(logits)} frames but {len(pdf_ids)} pdf-ids")
        self.config, self.temperature = config, temperature
        self.probabilities = torch.softmax(logits.float() / temperature, 1)  # (num_frames, pdfs)
        self.pdf_ids = pdf_ids.long() if pdf_ids is not None else None

    def to(self, device: torch.device) -> DenseTargets:
        moved = object.__new__(DenseTargets)
        moved.config, moved.temperature = self.config, self.temperature
        moved.probabilities = self.probabilities.to(device)
        moved.pdf_ids = self.pdf_ids.to(device) if self.pdf_ids is not None else None
        return moved

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Mean mixed loss: logits (batch, pdfs), frames int64 (batch,)."""
        rows: RowLoss = soft_cross_entropy_rows(self.probabilities[frames], self.temperature)
        if self.pdf_ids is not None:
            rows = mixed_rows(rows, self.pdf_ids[frames], self.config.hard_weight)
        return mean_over_rows(logits, rows)


class StoredDenseTargets(StoredTargets):
    """Log-posteriors (num_frames, pdfs) on disk, made at `temperature`; what else: see StoredTargets."""

    def __init__(self, log_posteriors: np.ndarray, temperature: float, config: DistillConfig,
                 pdf_ids: torch.Tensor | None, *, rows: np.ndarray | None = None):
        super().__init__({"log_posteriors": log_posteriors}, temperature, config, pdf_ids, rows)

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        stored = self.rows_of(frames)["log_posteriors"].float()
        return soft_cross_entropy_rows(torch.softmax(stored, 1), self.temperature)
