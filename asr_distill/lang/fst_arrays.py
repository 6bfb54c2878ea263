"""OpenFst vector files as numpy arrays: whole-graph arithmetic without a Python loop over arcs.

The binary form (OpenFst's vector-fst.h): a header, then for every state its final weight (float32), its
number of arcs (int64) and the arcs (int32 input label, int32 output label, float32 weight, int32 next state).
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from asr_distill.errors import UserError
from asr_distill.files import atomic_path
from asr_distill.kaldi import kaldifst

_MAGIC = 2125659606
_HEADER = struct.Struct("<i i6s i8s i i Q q q q")
_PLAIN = 3  # properties: expanded and mutable; everything else is for OpenFst to find out


@dataclass
class FstArrays:
    """A tropical-semiring FST; arcs are sorted by source state."""

    start: int
    finals: np.ndarray  # (states,) float32, inf where not final
    offsets: np.ndarray  # (states + 1,) int64: arcs of state s are offsets[s]:offsets[s + 1]
    ilabels: np.ndarray  # (arcs,) int32
    olabels: np.ndarray  # (arcs,) int32
    weights: np.ndarray  # (arcs,) float32
    nextstates: np.ndarray  # (arcs,) int32

    @property
    def num_states(self) -> int:
        return len(self.finals)

    @property
    def num_arcs(self) -> int:
        return len(self.ilabels)

    def sources(self) -> np.ndarray:
        """Source state of every arc, (arcs,) int32."""
        return np.repeat(np.arange(self.num_states, dtype=np.int32), np.diff(self.offsets))

    @classmethod
    def from_arcs(cls, start: int, finals: np.ndarray, sources: np.ndarray, ilabels: np.ndarray,
                  olabels: np.ndarray, weights: np.ndarray, nextstates: np.ndarray) -> FstArrays:
        """From arcs in any order; those of one state keep their order."""
        order = np.argsort(sources, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=len(finals)))])
        return cls(start, finals.astype(np.float32), offsets.astype(np.int64),
                   ilabels[order].astype(np.int32, copy=False), olabels[order].astype(np.int32, copy=False),
                   weights[order].astype(np.float32, copy=False), nextstates[order].astype(np.int32, copy=False))

    @classmethod
    def read(cls, path: Path) -> FstArrays:
        """Raises UserError where the file is missing, truncated or not a standard vector FST."""
        try:
            with open(path, "rb") as file:
                magic, _, kind, _, arc, _, flags, _, start, states, _ = _HEADER.unpack(file.read(_HEADER.size))
                body = np.fromfile(file, np.int32)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except struct.error:
            raise UserError(f"{path}: too short for a graph; make it again") from None
        try:
            if (magic, kind, arc, flags) != (_MAGIC, b"vector", b"standard", 0):
                raise ValueError
            heads = _heads(body, states)
            if len(heads) != states:
                raise ValueError
        except ValueError:
            raise UserError(f"{path}: damaged, or not a standard OpenFst vector file") from None
        offsets = np.concatenate([[0], np.cumsum(body[heads + 1].astype(np.int64))])
        arcs = body[_arc_words(len(body), heads)].reshape(-1, 4)
        ilabels, olabels, weights, nextstates = (np.ascontiguousarray(column) for column in arcs.T)
        return cls(start, body[heads].view(np.float32), offsets, ilabels, olabels,
                   weights.view(np.float32), nextstates)

    def write(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            self._write(temporary)

    def _write(self, path: Path) -> None:
        heads = 3 * np.arange(self.num_states) + 4 * self.offsets[:-1]
        body = np.zeros(3 * self.num_states + 4 * self.num_arcs, np.int32)
        body[heads] = self.finals.view(np.int32)
        body[heads + 1] = np.diff(self.offsets)
        columns = (self.ilabels, self.olabels, self.weights.view(np.int32), self.nextstates)
        body[_arc_words(len(body), heads)] = np.stack(columns, axis=1).ravel()
        with open(path, "wb") as file:
            file.write(_HEADER.pack(_MAGIC, 6, b"vector", 8, b"standard", 2, 0, _PLAIN, self.start,
                                    self.num_states, self.num_arcs))
            file.write(body.data)

    @classmethod
    def from_fst(cls, fst: kaldifst.StdVectorFst) -> FstArrays:
        """Through a temporary file: the wheels hand out no arrays."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fst"
            if not fst.write(str(path)):
                raise UserError(f"{folder}: cannot write a graph there (is the disk full?)")
            return cls.read(path)

    def to_fst(self) -> kaldifst.StdVectorFst:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fst"
            self._write(path)
            return kaldifst.StdVectorFst.read(str(path))


@njit(nogil=True, cache=True)
def _heads(body: np.ndarray, states: int) -> np.ndarray:
    """Where each state's record begins in the body, counted in 4-byte words; empty where the body is damaged."""
    heads = np.empty(states, np.int64)
    position = 0
    for state in range(states):
        heads[state] = position
        if position + 1 >= len(body) or body[position + 1] < 0:
            return heads[:0]
        position += 3 + 4 * np.int64(body[position + 1])
    return heads if position == len(body) else heads[:0]


def _arc_words(length: int, heads: np.ndarray) -> np.ndarray:
    """Mask of the body's words that belong to arcs, (length,) bool."""
    mask = np.ones(length, bool)
    for word in range(3):
        mask[heads + word] = False
    return mask
