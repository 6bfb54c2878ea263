"""Compact soft targets for the trainer: rows of bytes become whole posteriors a cache-sized block at a time."""

from __future__ import annotations

import numpy as np
import torch

from asr_distill.acoustic.losses import RowLoss
from asr_distill.distill.compact.store import CompactStore
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.losses import family_cross_entropy_rows
from asr_distill.distill.stored_targets import StoredTargets


class CompactTargets(StoredTargets):
    """Every frame's posterior of all pdfs, from its codes; what else: see StoredTargets."""

    def __init__(self, store: CompactStore, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
                 rows: np.ndarray | None = None):
        super().__init__({"codes": store.codes}, store.temperature, config, pdf_ids, rows)
        self.quantiser = store.codec.quantiser
        self.mean, self.vectors = store.codec.folded()

    def to(self, device: torch.device) -> CompactTargets:
        moved = super().to(device)
        moved.mean, moved.vectors = self.mean.to(device), self.vectors.to(device)
        return moved

    def soft_loss(self, frames: torch.Tensor) -> RowLoss:
        levels = self.quantiser.unpack(self.rows_of(frames)["codes"])  # (batch, rank)
        return family_cross_entropy_rows(levels, self.mean, self.vectors, self.temperature)
