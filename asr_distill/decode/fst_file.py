"""OpenFst's vector format (arc type `standard`) as NumPy arrays: read, write, and add a cost to every word arc.

kaldifst moves arcs one Python call at a time; a graph of nine million arcs needs arrays. The layout is OpenFst's own
(fst.h, vector-fst.h): a header, then per state its final weight (float32), its number of arcs (int64) and the arcs
(int32 input label, int32 output label, float32 weight, int32 next state), little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import atomic_path

MAGIC = 2125659606
SYMBOL_TABLES = 0x3  # header flags: input and output symbol tables follow
KNOWN_PROPERTIES = 0x3  # expanded, mutable: true of every vector FST; OpenFst computes the others when asked
FIELDS = "<iiQqqq"  # version, flags, properties, start state, number of states, number of arcs
BLOCK = 1 << 18  # states handled at once: bounds the memory of index arrays
REMEDY = "compile the graph again"


@dataclass(frozen=True)
class FstArrays:
    """A weighted transducer; state i's arcs are offsets[i]:offsets[i + 1]. Weights are costs (negated logs)."""

    start: int
    finals: np.ndarray  # float32 (states,), infinity: not final
    offsets: np.ndarray  # int64 (states + 1,)
    ilabels: np.ndarray  # int32 (arcs,), 0: epsilon
    olabels: np.ndarray  # int32 (arcs,), 0: epsilon
    weights: np.ndarray  # float32 (arcs,)
    nextstates: np.ndarray  # int32 (arcs,)

    @property
    def sources(self) -> np.ndarray:
        """The state that every arc leaves, int32 (arcs,)."""
        return np.repeat(np.arange(len(self.finals), dtype=np.int32), np.diff(self.offsets))


@dataclass(frozen=True)
class FstSummary:
    """Size and largest labels of a graph."""

    states: int
    arcs: int
    max_ilabel: int
    max_olabel: int


def read_fst(path: Path) -> FstArrays:
    """Raises UserError where the file is missing, truncated or of another type."""
    start, body, counts = _read_body(path)
    arcs = np.concatenate([body[at[:, None] + np.arange(4)] for at in _arc_positions(counts)] or
                          [np.empty((0, 4), "<i4")])  # (arcs, 4)
    ilabels, olabels, weights, nextstates = np.ascontiguousarray(arcs.T)
    return FstArrays(start, body[_state_positions(counts)].view("<f4"), np.concatenate([[0], np.cumsum(counts)]),
                     ilabels, olabels, weights.view("<f4"), nextstates)


def write_fst(path: Path, fst: FstArrays) -> None:
    """The counterpart of `read_fst`."""
    counts = np.diff(fst.offsets).astype(np.int64)
    body = np.zeros(3 * len(counts) + 4 * len(fst.ilabels), "<i4")
    positions = _state_positions(counts)
    body[positions] = fst.finals.astype("<f4").view("<i4")
    body[positions + 1] = counts
    columns = (fst.ilabels, fst.olabels, fst.weights.astype("<f4").view("<i4"), fst.nextstates)
    done = 0
    for at in _arc_positions(counts):
        for column, values in enumerate(columns):
            body[at + column] = values[done:done + len(at)]
        done += len(at)
    _write(path, fst.start, len(counts), body)


def summarise(path: Path) -> FstSummary:
    """One pass over the file. Raises UserError as `read_fst`."""
    _, body, counts = _read_body(path)
    max_ilabel = max_olabel = 0
    for at in _arc_positions(counts):
        max_ilabel = max(max_ilabel, int(body[at].max(initial=0)))
        max_olabel = max(max_olabel, int(body[at + 1].max(initial=0)))
    return FstSummary(len(counts), int(counts.sum()), max_ilabel, max_olabel)


def add_word_cost(path: Path, out: Path, cost: float) -> None:
    """Write the graph `path` to `out` with `cost` added to every arc that has an output label.

    Every word of a path leaves one output label, so this is exactly Kaldi's `lattice-add-penalty
    --word-ins-penalty`, applied during the search. A positive cost makes for fewer words.
    """
    start, body, counts = _read_body(path)
    weights = body.view("<f4")
    for at in _arc_positions(counts):
        weights[at[body[at + 1] != 0] + 2] += np.float32(cost)
    _write(out, start, len(counts), body)


def _read_body(path: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """(start state, the states' int32 words, arcs per state)."""
    try:
        with open(path, "rb") as file:
            states, start, header = _read_header(path, file.read(256))
        words, odd = divmod(path.stat().st_size - header, 4)
        if odd or words < 3 * states:
            raise IndexError
        body = np.fromfile(path, "<i4", offset=header)
        return start, body, _arc_counts(body, states)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {REMEDY}") from None
    except (struct.error, IndexError):
        raise UserError(f"{path}: truncated; {REMEDY}") from None


def _read_header(path: Path, data: bytes) -> tuple[int, int, int]:
    """(number of states, start state, length of the header)."""
    if struct.unpack_from("<i", data)[0] != MAGIC:
        raise UserError(f"{path}: not an OpenFst file; {REMEDY}")
    position, names = 4, []
    for _ in range(2):
        (length,) = struct.unpack_from("<i", data, position)
        names.append(data[position + 4:position + 4 + length])
        position += 4 + length
    _, flags, _, start, states, _ = struct.unpack_from(FIELDS, data, position)
    if names != [b"vector", b"standard"] or flags & SYMBOL_TABLES or states < 0:
        raise UserError(f"{path}: need an OpenFst file of type vector with standard arcs and no symbol tables, not "
                        f"{b', '.join(names).decode(errors='replace')}; {REMEDY}")
    return states, start, position + struct.calcsize(FIELDS)


def _arc_counts(body: np.ndarray, states: int) -> np.ndarray:
    """Arcs per state, int64 (states,). A walk: a state's place follows from the one before.

    The high word of the 64-bit count is always 0 (no state has 2^31 arcs). Raises IndexError where the walk
    does not end with the file.
    """
    words = body.data
    counts = [0] * states
    position = 1
    for state in range(states):
        counts[state] = count = words[position]
        if count < 0:
            raise IndexError
        position += 3 + 4 * count
    if position != len(words) + 1:
        raise IndexError
    return np.array(counts, np.int64)


def _state_positions(counts: np.ndarray) -> np.ndarray:
    """Where every state begins, in int32 words."""
    return 3 * np.arange(len(counts)) + 4 * (np.cumsum(counts) - counts)


def _arc_positions(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Where every arc begins, in int32 words, some states at a time."""
    arcs = 0
    for first in range(0, len(counts), BLOCK):
        block = counts[first:first + BLOCK]
        states = first + np.repeat(np.arange(len(block)), block)
        yield 3 * (states + 1) + 4 * (arcs + np.arange(len(states)))
        arcs += len(states)


def _write(path: Path, start: int, states: int, body: np.ndarray) -> None:
    names = struct.pack("<ii6si8s", MAGIC, 6, b"vector", 8, b"standard")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(names + struct.pack(FIELDS, 2, 0, KNOWN_PROPERTIES, start, states, 0))
        file.write(body.data)
