"""Run a recipe as a person does: a process of its own, killed when a test says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
NOT_RESULTS = ("rtf",)  # differs from run to run


def command(exp: Path, *extra: str, recipe: str = "mini_librispeech") -> list[str]:
    return [sys.executable, str(ROOT / "recipes" / recipe / "run.py"), "--exp-dir", str(exp), "--device", "cpu", *extra]


def tone_settings(tones: Path) -> list[str]:
    """For experiments on the corpus of tones in that folder."""
    return ["--conf", str(TINY), "--set", f"corpus.dir={tones / 'LibriSpeech'}",
            "--set", f"lang.lexicon={tones / 'lexicon.txt'}", "--set", f"lang.text={tones / 'lm.txt'}"]


def environment(threads: str = "1") -> dict[str, str]:
    return os.environ | ({"OMP_NUM_THREADS": threads} if threads else {})


def run(exp: Path, *extra: str, recipe: str = "mini_librispeech", check: bool = True, threads: str = "1",
        ) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(exp, *extra, recipe=recipe), capture_output=True, text=True, check=False,
                          env=environment(threads))
    if check and done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done


def kill_when(exp: Path, arrived: Callable[[], bool], extra: Sequence[str], seconds: float = 300.0,
              recipe: str = "mini_librispeech") -> None:
    """Start the recipe and kill -9 it as soon as `arrived()`; fails where it ends or hangs before."""
    process = subprocess.Popen(command(exp, *extra, recipe=recipe), stderr=subprocess.PIPE, text=True,
                               env=environment())
    deadline = time.monotonic() + seconds
    try:
        while not arrived():
            assert process.poll() is None, f"ended before it could be killed:\n{process.communicate()[1][-3000:]}"
            assert time.monotonic() < deadline, "never came to where it should be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def results(exp: Path) -> dict[str, Any]:
    return json.loads((exp / "RESULTS.json").read_text())


def measured(exp: Path) -> dict[str, Any]:
    """Everything that must not depend on when and how fast it was measured."""
    found = results(exp)
    systems = [system | {"splits": {split: {key: value for key, value in scores.items() if key not in NOT_RESULTS}
                                    for split, scores in system["splits"].items()}} for system in found["systems"]]
    return {"systems": systems, "comparisons": found["comparisons"], "data": found["data"]}
