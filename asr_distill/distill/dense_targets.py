"""Whole posteriors as targets: in memory for few classes, where a shorter form would save nothing, and from disk."""

from __future__ import annotations

import numpy as np
import torch

from asr_distill.acoustic.losses import RowLoss
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.losses import soft_cross_entropy_rows
from asr_distill.distill.mixed_targets import MixedTargets
from asr_distill.distill.stored_targets import StoredTargets


class DenseTargets(MixedTargets):
    """A teacher's softmax(logits / temperature) of every frame; pdf_ids: see MixedTargets.

    logits (num_frames, pdfs). Raises ValueError where these and pdf_ids are not of as many frames.
    """

    def __init__(self, logits: torch.Tensor, temperature: float, config: DistillConfig,
                 pdf_ids: torch.Tensor | None):
        super().__init__(temperature, config, pdf_ids, logits.shape[1])
        if pdf_ids is not None and len(pdf_ids) != len(logits):
            raise ValueError(f"logits of {len(logits)} frames but {len(pdf_ids)} pdf-ids")
        self.probabilities = torch.softmax(logits.float() / temperature, 1)  # (num_frames, pdfs)

    def to(self, device: torch.device) -> DenseTargets:
        moved = super().to(device)
        moved.probabilities = self.probabilities.to(device)
        return moved

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        return soft_cross_entropy_rows(self.probabilities[frames], self.temperature)


class StoredDenseTargets(StoredTargets):
    """Log-posteriors (num_frames, pdfs) on disk, made at `temperature`; what else: see StoredTargets."""

    def __init__(self, log_posteriors: np.ndarray, temperature: float, config: DistillConfig,
                 pdf_ids: torch.Tensor | None, *, rows: np.ndarray | None = None):
        pdfs = log_posteriors.shape[1]
        super().__init__({"log_posteriors": log_posteriors}, temperature, config, pdf_ids, pdfs, rows)

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        stored = self.rows_of(frames)["log_posteriors"].float()
        return soft_cross_entropy_rows(torch.softmax(stored, 1), self.temperature)
