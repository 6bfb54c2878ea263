"""Soft targets for the trainer: gathered by frame index from device memory.

A student and its baseline (the same shape on HardTargets) are trained by the same trainer, with the same data, seed,
batch and number of updates: only the targets differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from asr_distill.acoustic.losses import RowLoss
from asr_distill.distill.compact.store import CompactStore
from asr_distill.distill.compact.targets import CompactTargets
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.dense_targets import StoredDenseTargets
from asr_distill.distill.losses import top_k_cross_entropy_rows
from asr_distill.distill.soft_store import DenseStore, SoftStore, open_soft_targets
from asr_distill.distill.stored_targets import StoredTargets


class SoftTargets(StoredTargets):
    """Top-k posteriors of the teachers per frame; what else: see StoredTargets."""

    def __init__(self, store: SoftStore, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
                 rows: np.ndarray | None = None):
        ids = store.ids.view(np.int16) if store.ids.dtype == np.uint16 else store.ids
        super().__init__({"ids": ids, "probabilities": store.probabilities, "remainder": store.remainder},
                         store.temperature, config, pdf_ids, store.num_pdfs, rows)

    @staticmethod
    def open(directory: Path, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
             rows: np.ndarray | None = None) -> StoredTargets:
        """From a directory of write_soft_targets, of any form. Raises UserError where it is incomplete."""
        store = open_soft_targets(directory)
        if isinstance(store, CompactStore):
            return CompactTargets(store, config, pdf_ids, rows=rows)
        if isinstance(store, DenseStore):
            return StoredDenseTargets(store.log_posteriors, store.temperature, config, pdf_ids, rows=rows)
        return SoftTargets(store, config, pdf_ids, rows=rows)

    def gather(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids int64 (batch, k), probabilities float16 (batch, k), remainder float16 (batch,) of frames (batch,)."""
        found = self.rows_of(frames)
        ids = found["ids"].long()
        if found["ids"].dtype == torch.int16:
            ids &= 0xFFFF  # uint16 on disk: torch indexes no unsigned numbers
        return ids, found["probabilities"], found["remainder"]

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        return top_k_cross_entropy_rows(*self.gather(frames), self.temperature, self.config.remainder)
