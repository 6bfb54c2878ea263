"""What workers say of long jobs in log files of their own, told by the process that waits for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asr_distill.logs import log, message_of

EVERY = 15.0  # seconds
_TAIL = 4096  # bytes


@contextmanager
def followed(files: Sequence[Path], every: float = EVERY) -> Iterator[None]:
    """While the block runs: of every log file (logs.to_file) that has grown its newest line, now and then."""
    sizes = {file: _size(file) for file in files}
    done = threading.Event()

    def look() -> None:
        while not done.wait(every):
            for file, before in sizes.items():
                sizes[file] = _size(file)
                if sizes[file] > before:
                    log.info("%s", message_of(_last_line(file)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _last_line(file: Path) -> str:
    with open(file, "rb") as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL))
        lines = opened.read().decode("utf-8", "replace").splitlines()
    return lines[-1] if lines else ""
