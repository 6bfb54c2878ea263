"""Reads R's data files without R: the XDR serialization and the lazy-load database of a package.

Format: "R Internals", section Serialization Formats. Only what data sets of text and numbers need: vectors, lists,
pairlists, attributes, compact sequences. Nothing in the file is executed.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError

# Types of R objects (the low 8 bits of an item's flags).
SYMBOL, PAIRLIST, CHARSXP, LOGICAL, INTEGER, REAL, STRING, LIST = 1, 2, 9, 10, 13, 14, 16, 19
ALTREP, NIL, REFERENCE = 238, 254, 255
EMPTY_SINGLETONS = (242, 251, 252, 253, 241)  # empty, missing, base namespace, global and base environment
HAS_ATTRIBUTES, HAS_TAG = 0x200, 0x400
STRUCTURE_ERRORS = (struct.error, IndexError, UnicodeDecodeError, zlib.error, lzma.LZMAError, OSError, ValueError)


class Reader:
    """One serialized object. A vector comes as a list, a list with names as a dict."""

    def __init__(self, data: bytes):
        if data[:2] != b"X\n":
            raise ValueError("not R's XDR serialization")
        self.data, self.position = data, 2
        self.references: list[Any] = []
        version, _, _ = self.integer(), self.integer(), self.integer()
        if version == 3:
            self.take(self.integer())  # the native encoding's name
        elif version != 2:
            raise ValueError(f"serialization version {version}, only 2 and 3 are known")

    def take(self, count: int) -> bytes:
        if count < 0 or self.position + count > len(self.data):
            raise ValueError("truncated")
        self.position += count
        return self.data[self.position - count:self.position]

    def integer(self) -> int:
        return struct.unpack(">i", self.take(4))[0]

    def numbers(self, code: str, size: int) -> list[Any]:
        count = self.integer()
        return list(struct.unpack(f">{count}{code}", self.take(size * count)))

    def item(self) -> Any:
        flags = self.integer()
        kind = flags & 0xFF
        if kind == NIL or kind in EMPTY_SINGLETONS:
            return None
        if kind == REFERENCE:
            return self.references[(flags >> 8 or self.integer()) - 1]
        if kind == SYMBOL:
            self.references.append(self.item())
            return self.references[-1]
        if kind == CHARSXP:
            length = self.integer()
            return None if length == -1 else self.take(length).decode("utf-8")
        if kind == PAIRLIST:
            return self.pairlist(flags)
        if kind == ALTREP:
            return self.alternative()
        value = self.vector(kind)
        attributes = self.item() if flags & HAS_ATTRIBUTES else None
        names = (attributes or {}).get("names")
        return dict(zip(names, value, strict=True)) if names and kind == LIST else value

    def vector(self, kind: int) -> list[Any]:
        if kind in (STRING, LIST):
            return [self.item() for _ in range(self.integer())]
        if kind in (LOGICAL, INTEGER):
            return self.numbers("i", 4)
        if kind == REAL:
            return self.numbers("d", 8)
        raise ValueError(f"R object of type {kind} at byte {self.position}")

    def pairlist(self, flags: int) -> dict[Any, Any]:
        """The cells of a pairlist as a dict by tag: iterative, for they are chained."""
        cells: dict[Any, Any] = {}
        while flags & 0xFF == PAIRLIST:
            if flags & HAS_ATTRIBUTES:
                self.item()
            tag = self.item() if flags & HAS_TAG else len(cells)
            cells[tag] = self.item()
            flags = self.integer()
        if flags & 0xFF != NIL:
            raise ValueError(f"pairlist ends in an object of type {flags & 0xFF}")
        return cells

    def alternative(self) -> list[Any]:
        """A vector in a compact form: (class, state, attributes)."""
        name = next(iter(self.item().values()))
        state = self.item()
        self.item()
        if name in ("compact_intseq", "compact_realseq"):
            length, first, step = state
            return [first + step * i for i in range(int(length))]
        if name.startswith("wrap_"):
            return next(iter(state.values())) if isinstance(state, dict) else state[0]
        raise ValueError(f"R vector in the unknown form {name}")


def decompress(chunk: bytes) -> bytes:
    """One chunk of a lazy-load database: big-endian length, then bzip2 ('2'), raw LZMA2 ('Z'), plain ('0') or zlib."""
    (length,) = struct.unpack(">I", chunk[:4])
    kind, body = chunk[4:5], chunk[5:]
    if kind == b"2":
        data = bz2.decompress(body)
    elif kind == b"Z":
        data = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}]).decompress(body)
    elif kind == b"0":
        data = body
    else:
        data = zlib.decompress(chunk[4:])
    if len(data) != length:
        raise ValueError(f"{len(data)} bytes where {length} were promised")
    return data


def read_lazy_database(stem: Path) -> dict[str, Any]:
    """All objects of `stem`.rdx (index) and `stem`.rdb (chunks), by name. Raises UserError for files it cannot read."""
    index_file, chunk_file = stem.with_suffix(".rdx"), stem.with_suffix(".rdb")
    for path in (index_file, chunk_file):
        if not path.is_file():
            raise UserError(f"{path}: no such file; delete {stem.parent} and run the same command again")
    try:
        index = Reader(zlib.decompress(index_file.read_bytes(), 32 + zlib.MAX_WBITS)).item()  # gzip or zlib
        chunks = chunk_file.read_bytes()
        return {name: Reader(decompress(chunks[offset:offset + length])).item()
                for name, (offset, length) in index["variables"].items()}
    except (*STRUCTURE_ERRORS, KeyError, TypeError) as error:
        raise UserError(f"{chunk_file}: not a readable R lazy-load database ({error}); delete {stem.parent} and run "
                        f"the same command again") from None
