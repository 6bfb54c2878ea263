"""What a piece of work costs: CPU seconds and the most memory that this process and its children held at once."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
INTERVAL = 1.0  # seconds between two looks at the memory, at least
SHARE = 0.01  # of a core that looking may take: the kernel goes through all pages of a large process


class Usage:
    """`with Usage() as usage: ...`; then `usage.cpu_seconds` and `usage.peak_bytes`.

    CPU seconds are user and system time of all threads and of all descendants (those that still run: Linux), whatever
    of it fell into the block. Memory is looked at every second, pages that several processes share counted once (Linux:
    Pss); a shorter peak may be missed, and of a large process it is looked at less often. Elsewhere it is the most that
    this process has held since it began.
    """

    def __init__(self) -> None:
        self.cpu_seconds, self.peak_bytes = 0.0, 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Usage:
        self._began = _cpu_seconds()
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.cpu_seconds = _cpu_seconds() - self._began
        self._stop.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            began = time.thread_time()
            self._look_once()
            if self._stop.wait(max(INTERVAL, (time.thread_time() - began) / SHARE)):
                return

    def _look_once(self) -> None:
        self.peak_bytes = max(self.peak_bytes, tree_bytes(os.getpid()) or _lifetime_peak())


def tree_bytes(process: int) -> int:
    """Memory of a process and all its descendants now; 0 where /proc does not tell."""
    return sum(_pss(one) for one in _tree(process))


def directory_bytes(directory: Path) -> int:
    """Size of all files below a directory; what a link leads to belongs to others."""
    total = 0
    for folder, _, names in os.walk(directory):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names
                     if not os.path.islink(os.path.join(folder, name)))
    return total


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    others = list(_tree(os.getpid()))[1:]
    return sum(item.ru_utime + item.ru_stime for item in used) + sum(_cpu_of(process) for process in others)


def _cpu_of(process: int) -> float:
    """Of a living process, with its children that have ended."""
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime


def _lifetime_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _tree(process: int) -> Iterator[int]:
    yield process
    try:
        for thread in (PROC / str(process) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:  # it has ended, or there is no /proc
        return


def _pss(process: int) -> int:
    try:
        text = (PROC / str(process) / "smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
