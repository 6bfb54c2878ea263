"""Soft targets for the trainer: gathered by frame index from device memory.

A student and its baseline (the same shape on HardTargets) are trained by the same trainer, with the same data, seed,
batch and number of updates: only the targets differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from asr_distill.acoustic.data import home_for
from asr_distill.acoustic.losses import mean_over_rows
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.losses import mixed_rows, top_k_cross_entropy_rows
from asr_distill.distill.soft_store import SoftStore
from asr_distill.errors import UserError


class SoftTargets:
    """Top-k posteriors of the teachers per frame, mixed with hard pdf-ids where config.hard_weight > 0.

    pdf_ids (num_frames,) may be None where the hard weight is 0; a frame whose pdf-id is -1 (nobody has transcribed it)
    has its soft target alone. rows int64 (num_frames,): of each frame the row of the soft targets that is its own
    (features.views: a noisy copy has the clean one's); default: frame and row are the same. Raises UserError where
    pdf-ids, rows and soft targets are not of as many frames.
    """

    def __init__(self, store: SoftStore, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
                 rows: np.ndarray | None = None):
        if config.hard_weight and pdf_ids is None:
            raise ValueError("hard_weight > 0 needs pdf_ids")
        frames = len(store.remainder)
        if rows is not None and len(rows) and not 0 <= rows.min() <= rows.max() < frames:
            raise UserError(f"soft targets have {frames} frames but row {rows.max()} is asked for: write the soft "
                            "targets of this store again")
        if pdf_ids is not None and len(pdf_ids) != (frames if rows is None else len(rows)):
            raise UserError(f"soft targets have {frames if rows is None else len(rows)} frames but the alignment has "
                            f"{len(pdf_ids)}: write the soft targets of this store again")
        self.config, self.temperature, self.num_pdfs = config, store.temperature, store.num_pdfs
        ids = store.ids.view(np.int16) if store.ids.dtype == np.uint16 else store.ids
        self.ids, self.probabilities, self.remainder = map(_mapped, (ids, store.probabilities, store.remainder))
        self.pdf_ids = pdf_ids.long() if pdf_ids is not None else None
        self.rows = torch.from_numpy(rows) if rows is not None else None
        self.device = torch.device("cpu")

    @staticmethod
    def open(directory: Path, config: DistillConfig, pdf_ids: torch.Tensor | None, *,
             rows: np.ndarray | None = None) -> SoftTargets:
        """From a directory of write_soft_targets. Raises UserError where it is incomplete."""
        return SoftTargets(SoftStore.open(directory), config, pdf_ids, rows=rows)

    def to(self, device: torch.device) -> SoftTargets:
        """Copies the arrays to `device` where they fit; else they stay in memory maps and batches are copied."""
        moved = object.__new__(SoftTargets)
        moved.__dict__.update(self.__dict__)
        size = sum(tensor.nbytes for tensor in (self.ids, self.probabilities, self.remainder))
        home = home_for(size, device)
        moved.ids, moved.probabilities, moved.remainder = (
            tensor.to(home) for tensor in (self.ids, self.probabilities, self.remainder))
        moved.pdf_ids = self.pdf_ids.to(device) if self.pdf_ids is not None else None
        moved.rows = self.rows.to(home) if self.rows is not None else None
        moved.device = device
        return moved

    def gather(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids int64 (batch, k), probabilities float16 (batch, k), remainder float16 (batch,) of frames (batch,)."""
        rows = frames.to(self.ids.device)
        if self.rows is not None:
            rows = self.rows[rows]
        ids = self.ids[rows].to(self.device).long()
        if self.ids.dtype == torch.int16:
            ids &= 0xFFFF  # uint16 on disk: torch indexes no unsigned numbers
        return ids, self.probabilities[rows].to(self.device), self.remainder[rows].to(self.device)

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Mean mixed loss: logits (batch, pdfs), frames int64 (batch,)."""
        ids, probabilities, remainder = self.gather(frames)
        rows = top_k_cross_entropy_rows(ids, probabilities, remainder, self.temperature, self.config.remainder)
        if self.pdf_ids is not None:
            rows = mixed_rows(rows, self.pdf_ids[frames], self.config.hard_weight)
        return mean_over_rows(logits, rows)


def _mapped(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array; over a memory map it reads from disk as it is used."""
    if isinstance(array, np.memmap) and array.filename and not array.flags.writeable:
        # copy-on-write: torch accepts no read-only memory, and the file stays untouched
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return torch.from_numpy(array)
