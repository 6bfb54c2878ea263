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
    """Every frame's posterior of all pdfs, from its codes; what else: see StoredTargets.

    Codes become scores in the precision of the network's logits, and posteriors in that of the loss.
    """

    def __init__(self, store: CompactStore, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
                 rows: np.ndarray | None = None):
        super().__init__({"codes": store.codes}, store.temperature, config, pdf_ids, store.num_pdfs, rows)
        self.codec = store.codec
        self.vectors: dict[torch.dtype, torch.Tensor] = {}  # folded, by type

    def to(self, device: torch.device) -> CompactTargets:
        moved = super().to(device)
        moved.vectors = {}
        return moved

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        if dtype not in self.vectors:
            self.vectors[dtype] = self.codec.folded(dtype).to(self.device)
        levels = self.codec.quantiser.wide_levels(self.rows_of(frames)["codes"], dtype)  # (batch, columns)
        return family_cross_entropy_rows(levels, self.vectors[dtype], self.temperature)
