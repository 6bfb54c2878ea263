"""What a piece of work costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from asr_distill import usage as usage_module
from asr_distill.usage import Usage, directory_bytes, tree_bytes

needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="/proc tells no memory here")


def test_cpu_seconds_are_those_of_the_process() -> None:
    with Usage() as usage:
        before = time.process_time()
        while time.process_time() - before < 0.3:
            sum(range(1000))
    assert 0.29 <= usage.cpu_seconds <= 0.3 + 5


def test_children_that_ended_count() -> None:
    work = "import time\nwhile time.process_time() < 0.5: sum(range(1000))"
    with Usage() as usage:
        subprocess.run([sys.executable, "-S", "-c", work], check=True, stdin=subprocess.DEVNULL, timeout=120)
    assert usage.cpu_seconds >= 0.5


@needs_proc
def test_children_that_still_run_count() -> None:
    work = ("import sys, time\nsys.stdin.readline()\nbefore = time.process_time()\n"
            "while time.process_time() < before + 0.5: sum(range(1000))\nprint('done', flush=True)\nsys.stdin.read()")
    with subprocess.Popen([sys.executable, "-S", "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        with Usage() as usage:
            child.stdin.write(b"go\n")
            child.stdin.flush()
            child.stdout.readline()
        child.stdin.close()
    assert usage.cpu_seconds >= 0.45


@needs_proc
def test_peak_holds_what_was_freed_again() -> None:
    with Usage() as usage:
        block = np.ones(30_000_000)  # 240 MB
        usage._look_once()
        del block
        after = tree_bytes(os.getpid())
    assert usage.peak_bytes > after + 200e6


def test_looks_that_cost_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "INTERVAL", 0.01)
    looks = {"cheap": 0, "dear": 0}

    def look(kind: str) -> None:
        looks[kind] += 1
        before = time.thread_time()
        while kind == "dear" and time.thread_time() - before < 0.05:
            sum(range(1000))

    for kind in looks:
        monkeypatch.setattr(Usage, "_look_once", lambda _, kind=kind: look(kind))
        with Usage():
            deadline = time.monotonic() + 60
            while looks["cheap"] < 10 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5)
    assert looks["cheap"] >= 10 and looks["dear"] == 1  # the next is five seconds away


@needs_proc
def test_memory_of_children_counts() -> None:
    hold = "import sys\nblock = bytearray(b'x' * 100_000_000)\nprint('here', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        own = tree_bytes(child.pid)
        tree = tree_bytes(os.getpid())
        child.stdin.close()
    assert own > 100e6 and tree > own
    assert tree_bytes(child.pid) == 0  # it is gone


def test_directory_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(b"x" * 7)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert directory_bytes(tmp_path) == 17
