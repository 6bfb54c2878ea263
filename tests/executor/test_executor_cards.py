"""GPUs dealt out among workers (by what they see; no GPU is needed), and what workers' log files say of long jobs."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import executor_jobs
import pytest

from asr_distill.executor import ExecutorSettings, open_executor
from asr_distill.executor.cards import VISIBLE, take_card, visible_cards
from asr_distill.executor.follow import followed


@pytest.mark.parametrize("kind", ["processes", pytest.param("dask", marks=pytest.mark.slow)])
def test_each_worker_sees_one_card(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "dask":
        pytest.importorskip("distributed")
    monkeypatch.setenv(VISIBLE, "3, 5")
    executor = open_executor(ExecutorSettings(kind, 2))  # type: ignore[arg-type]
    assert executor is not None
    with executor:
        seen = dict(found for _, found in executor.run(executor_jobs.card, range(8)))
        assert sorted(seen.values()) == ["3", "5"] and os.getpid() not in seen
        lost = next(pid for pid, card in seen.items() if card == "3")
        os.kill(lost, signal.SIGKILL)  # whoever takes its place takes its card
        again: dict[int, str] = {}
        deadline = time.monotonic() + 120
        while set(again.values()) != {"3", "5"} and time.monotonic() < deadline:
            again |= dict(found for _, found in executor.run(executor_jobs.card, range(8)))
        assert lost not in again and sorted(again.values()) == ["3", "5"]
    assert os.environ[VISIBLE] == "3, 5"


def test_one_card_or_none_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("", "7"):
        monkeypatch.setenv(VISIBLE, said)
        take_card(visible_cards(), 1)
        assert os.environ[VISIBLE] == said
    monkeypatch.setenv(VISIBLE, "GPU-aa,GPU-bb,GPU-cc")
    take_card(visible_cards(), 4)
    assert os.environ[VISIBLE] == "GPU-bb"


def test_newest_lines_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("asr_distill")
    monkeypatch.setattr(log, "propagate", True)
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("2026-12-01 10:00:00,000 INFO of an earlier run\n")
    with caplog.at_level(logging.INFO, "asr_distill"), followed([old, new, tmp_path / "none"], every=0.05):
        new.write_text("2026-12-01 10:00:00,000 INFO teacher1: 1 of 3\n2026-12-01 10:00:01,000 INFO teacher1: 2 of 3\n")
        deadline = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages == ["teacher1: 2 of 3"]
