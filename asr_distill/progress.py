"""Progress with rate and time left, for people (a live line) and for logs (a line now and then)."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time

log = logging.getLogger("asr_distill")


class Progress:
    """Counts work done. `with Progress("features", total, "utterances") as p: p.update(n)`.

    On a terminal one line is redrawn; elsewhere a line is logged at most every `every` seconds.
    """

    def __init__(self, label: str, total: float, unit: str = "items", *, done: float = 0, every: float = 15.0):
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self.start_done = done
        self.note = ""
        self.start = self.shown = time.monotonic()
        # a worker's terminal is its parent's, who has a line of its own there
        self.live = sys.stderr.isatty() and multiprocessing.parent_process() is None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[K")
        if self.done > self.start_done:
            log.info("%s", self.line(final=True))

    def update(self, count: float = 1, note: str | None = None) -> None:
        self.done += count
        if note is not None:
            self.note = note
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.live else self.every):
            self.shown = now
            if self.live:
                sys.stderr.write("\r\x1b[K" + self.line())
                sys.stderr.flush()
            else:
                log.info("%s", self.line())

    def line(self, final: bool = False) -> str:
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = (self.done - self.start_done) / seconds
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        tail = f"{clock(seconds)} in all" if final else f"ETA {clock(left)}"
        note = f", {self.note}" if self.note else ""
        return f"{self.label}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, {rate:,.1f}/s, {tail}{note}"


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` under an hour; `?` where unknown."""
    if seconds == float("inf"):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
