"""Where log lines go: the terminal, and one file a stage."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("asr_distill")


def to_terminal(level: int = logging.INFO) -> None:
    """Log lines with the time of day to standard error; called once by a command."""
    log.setLevel(level)
    log.propagate = False
    if not any(isinstance(handler, logging.StreamHandler) for handler in log.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Copy log lines to a file (appended) while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is the stage's to report
    level = log.level
    log.setLevel(min(level, logging.INFO) or logging.INFO)  # a file keeps what a quiet terminal does not show
    log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


def message_of(line: str) -> str:
    """A line of such a file without time and level."""
    return line.split(" ", 3)[-1]
