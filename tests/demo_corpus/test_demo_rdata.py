"""R's serialization, against bytes built by hand from the R Internals manual."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from local.demo_corpus.rdata import Reader, decompress, read_lazy_database

V2 = b"X\n" + struct.pack(">iii", 2, 0x30500, 0x20300)
V3 = b"X\n" + struct.pack(">iii", 3, 0x30500, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
NIL = struct.pack(">i", 254)


def text(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">ii", 9, -1)
    data = value.encode()
    return struct.pack(">ii", 0x40009, len(data)) + data


def strings(*values: str | None, flags: int = 16) -> bytes:
    return struct.pack(">ii", flags, len(values)) + b"".join(map(text, values))


def symbol(name: str) -> bytes:
    return struct.pack(">i", 1) + text(name)


def integers(*values: int, flags: int = 13) -> bytes:
    return struct.pack(f">ii{len(values)}i", flags, len(values), *values)


def named_list(**items: bytes) -> bytes:
    """list(...) with attribute names = its keys."""
    names = struct.pack(">i", 0x402) + symbol("names") + strings(*items) + NIL
    return struct.pack(">ii", 0x213, len(items)) + b"".join(items.values()) + names


@pytest.mark.parametrize("header", [V2, V3])
def test_vectors(header: bytes) -> None:
    assert Reader(header + strings("one", "zwölf", None, "")).item() == ["one", "zwölf", None, ""]
    assert Reader(header + integers(1, -2)).item() == [1, -2]
    assert Reader(header + struct.pack(">ii2d", 14, 2, 0.5, -3.0)).item() == [0.5, -3.0]
    assert Reader(header + named_list(a=strings("x"), b=integers(7))).item() == {"a": ["x"], "b": [7]}


def test_a_symbol_met_again_is_a_reference() -> None:
    reference = struct.pack(">i", (1 << 8) | 255)
    second = struct.pack(">i", 0x402) + reference + integers(2) + NIL
    data = struct.pack(">ii", 19, 2) + struct.pack(">i", 0x402) + symbol("k") + integers(1) + NIL + second
    assert Reader(V2 + data).item() == [{"k": [1]}, {"k": [2]}]


def test_a_long_pairlist_needs_no_deep_stack() -> None:
    cells = b"".join(struct.pack(">i", 2) + integers(i) for i in range(5000))
    assert Reader(V2 + cells + NIL).item()[4999] == [4999]


def test_a_compact_sequence() -> None:
    kind = struct.pack(">i", 2) + symbol("compact_intseq") + struct.pack(">i", 2) + symbol("base") + NIL
    state = struct.pack(">ii3d", 14, 3, 4.0, 10.0, 1.0)
    assert Reader(V3 + struct.pack(">i", 238) + kind + state + NIL).item() == [10, 11, 12, 13]


@pytest.mark.parametrize("data", [b"A\n", V2, V2 + strings("abc")[:-1], V2 + struct.pack(">i", 3), V2 + NIL[:2],
                                  b"X\n" + struct.pack(">iii", 4, 0, 0)])
def test_damage_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        Reader(data).item()


def chunk(data: bytes, kind: str) -> bytes:
    raw = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    body = {"zlib": lambda: zlib.compress(data), "2": lambda: b"2" + bz2.compress(data), "0": lambda: b"0" + data,
            "Z": lambda: b"Z" + lzma.compress(data, lzma.FORMAT_RAW, filters=raw)}[kind]()
    return struct.pack(">I", len(data)) + body


@pytest.mark.parametrize("kind", ["zlib", "2", "Z", "0"])
def test_chunks(kind: str) -> None:
    data = bytes(range(256)) * 20
    assert decompress(chunk(data, kind)) == data


def write_database(stem: Path, **objects: bytes) -> None:
    chunks, places = b"", {}
    for name, item in objects.items():
        packed = chunk(V3 + item, "Z")
        places[name] = integers(len(chunks), len(packed))
        chunks += packed
    stem.with_suffix(".rdb").write_bytes(chunks)
    index = V3 + named_list(variables=named_list(**places), compressed=integers(3))
    stem.with_suffix(".rdx").write_bytes(gzip.compress(index))


def test_lazy_database(tmp_path: Path) -> None:
    write_database(tmp_path / "Rdata", emma=strings("EMMA", "", "By"), other=strings("x"))
    assert read_lazy_database(tmp_path / "Rdata") == {"emma": ["EMMA", "", "By"], "other": ["x"]}


@pytest.mark.parametrize("suffix", [".rdx", ".rdb"])
def test_a_missing_or_cut_file_names_itself(tmp_path: Path, suffix: str) -> None:
    write_database(tmp_path / "Rdata", emma=strings("EMMA", "by Jane Austen", "VOLUME I"))
    file = tmp_path / f"Rdata{suffix}"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"Rdata\.rdb: not a readable R"):
        read_lazy_database(tmp_path / "Rdata")
    file.unlink()
    with pytest.raises(UserError, match=f"Rdata\\{suffix}: no such file"):
        read_lazy_database(tmp_path / "Rdata")
