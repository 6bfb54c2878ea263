"""Kaldi's binary files: tokens, numbers, vectors and matrices as its io-funcs and matrix classes write them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr_distill.files import atomic_path

HEADER = b"\0B"


class KaldiWriter:
    """Collects what one file holds; `save` writes it."""

    def __init__(self) -> None:
        self._out = io.BytesIO()

    def token(self, *tokens: str) -> None:
        for token in tokens:
            self._out.write(token.encode() + b" ")

    def text(self, text: str) -> None:
        """As it stands (the configuration lines of an nnet3 network)."""
        self._out.write(text.encode())

    def integer(self, *values: int) -> None:
        for value in values:
            self._out.write(b"\x04" + struct.pack("<i", value))

    def real(self, value: float) -> None:
        self._out.write(b"\x04" + struct.pack("<f", value))

    def integers(self, values: Sequence[int]) -> None:
        """A std::vector<int32>."""
        self._out.write(b"\x04" + struct.pack("<i", len(values)) + np.asarray(values, "<i4").tobytes())

    def vector(self, values: np.ndarray) -> None:
        self.token("FV")
        self.integer(len(values))
        self._out.write(np.asarray(values, "<f4").tobytes())

    def matrix(self, values: np.ndarray) -> None:
        """float32 (rows, columns)."""
        self.token("FM")
        self.integer(*values.shape)
        self._out.write(np.asarray(values, "<f4").tobytes())

    def matrix64(self, values: np.ndarray) -> None:
        """float64 (rows, columns)."""
        self.token("DM")
        self.integer(*values.shape)
        self._out.write(np.asarray(values, "<f8").tobytes())

    def matrix16(self, values: np.ndarray) -> None:
        """Kaldi's CompressedMatrix, 16-bit steps over the matrix's range: half the bytes, read wherever a matrix is."""
        low = float(values.min(initial=0.0))
        span = max(float(values.max(initial=0.0)) - low, 1e-10)
        steps = np.rint((values.astype(np.float64) - low) / span * 65535)
        self.token("CM2")
        self._out.write(struct.pack("<ffii", low, span, *values.shape))
        self._out.write(steps.clip(0, 65535).astype("<u2").tobytes())

    def save(self, path: Path, *, header: bool = True) -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes((HEADER if header else b"") + self._out.getvalue())
