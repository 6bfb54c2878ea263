"""Compact soft targets on disk.

DIR/codes.npy uint8 (frames, bytes): a frame's codes, bit by bit; the codec's own files (codec.py); soft_targets.json,
written last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.distill.compact.codec import Codec
from asr_distill.distill.forms import sound
from asr_distill.files import read_array, read_json


@dataclass(frozen=True)
class CompactStore:
    """Open compact targets: codes are a memory map, readable by row."""

    codes: np.ndarray  # uint8 (num_frames, bytes)
    codec: Codec  # on the CPU
    temperature: float
    num_pdfs: int
    facts: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> CompactStore:
        """Raises UserError where the directory is incomplete or its files do not belong together."""
        facts = read_json(directory / "soft_targets.json")
        codes = read_array(directory / "codes.npy", memory_map=True)
        codec = Codec.load(directory, torch.device("cpu"))
        with sound(directory):
            if codes.shape != (facts["num_frames"], codec.num_bytes) or codes.dtype != np.uint8 or \
                    len(codec.basis.mean) != facts["num_pdfs"]:
                raise ValueError("arrays and soft_targets.json differ")
            return CompactStore(codes, codec, float(facts["temperature"]), int(facts["num_pdfs"]), facts)

    def posteriors(self, frames: slice) -> torch.Tensor:
        """Posteriors at the store's temperature, float32 (frames, pdfs)."""
        return self.codec.decode(torch.from_numpy(np.array(self.codes[frames]))).exp_()
