"""Text files, plain or compressed, line by line."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from asr_distill.errors import UserError


def open_text(path: Path) -> TextIO:
    """Open UTF-8 text for reading (a byte order mark before it is left out); .gz and .xz are unpacked on the way.

    Raises UserError where missing.
    """
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".xz":
            return lzma.open(path, "rt", encoding="utf-8-sig")
        return open(path, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a text file") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end). Raises UserError where missing, damaged or not UTF-8."""
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text after line {number}") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged after line {number} ({error})") from None
