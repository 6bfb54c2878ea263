"""What soft targets on disk have in common as targets of the trainer: rows by frame, and a home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from asr_distill.acoustic.data import home_for
from asr_distill.distill.config import DistillConfig
from asr_distill.distill.mixed_targets import MixedTargets
from asr_distill.errors import UserError

Self = TypeVar("Self", bound="StoredTargets")


class StoredTargets(MixedTargets):
    """Arrays with one row a frame; pdf_ids: see MixedTargets.

    rows int64 (num_frames,): of each frame the row of the soft targets that is its own (features.views: a noisy copy
    has the clean one's); default: frame and row are the same. Raises UserError where pdf-ids, rows and soft targets are
    not of as many frames.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], temperature: float, config: DistillConfig,
                 pdf_ids: torch.Tensor | None, num_pdfs: int, rows: np.ndarray | None = None):
        super().__init__(temperature, config, pdf_ids, num_pdfs)
        frames = len(next(iter(arrays.values())))
        if rows is not None and len(rows) and not 0 <= rows.min() <= rows.max() < frames:
            raise UserError(f"soft targets have {frames} frames but row {rows.max()} is asked for: write the soft "
                            "targets of this store again")
        if pdf_ids is not None and len(pdf_ids) != (frames if rows is None else len(rows)):
            raise UserError(f"soft targets have {frames if rows is None else len(rows)} frames but the alignment has "
                            f"{len(pdf_ids)}: write the soft targets of this store again")
        self.files = dict(arrays)
        self.arrays = {name: _mapped(array) for name, array in arrays.items()}
        self.rows = torch.from_numpy(rows) if rows is not None else None
        self.device = torch.device("cpu")

    def __getstate__(self) -> dict[str, Any]:
        """For another process: memory maps go by name, and are opened there."""
        return self.__dict__ | {"arrays": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.arrays = {name: _mapped(array) for name, array in self.files.items()}

    def to(self: Self, device: torch.device) -> Self:
        """Copies the arrays to `device` where they fit; else they stay in memory maps and batches are copied."""
        moved = super().to(device)
        home = home_for(sum(tensor.nbytes for tensor in self.arrays.values()), device)
        moved.arrays = {name: tensor.to(home) for name, tensor in self.arrays.items()}
        moved.rows = self.rows.to(home) if self.rows is not None else None
        moved.device = device
        return moved

    def rows_of(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """The arrays' rows of frames int64 (batch,), on `device`."""
        home = next(iter(self.arrays.values())).device
        at = frames.to(home)
        if self.rows is not None:
            at = self.rows[at]
        return {name: tensor[at].to(self.device) for name, tensor in self.arrays.items()}


def _mapped(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array; over a memory map it reads from disk as it is used."""
    if isinstance(array, np.memmap) and array.filename and not array.flags.writeable:
        # copy-on-write: torch accepts no read-only memory, and the file stays untouched
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return torch.from_numpy(array)
