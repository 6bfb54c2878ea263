"""Executors of every kind; Dask's where it is installed (it is among the extras of `make test`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr_distill.executor import Executor, ExecutorSettings, Threads, open_executor

# the toy worlds of other rooms; workers are given this path too
sys.path += [str(Path(__file__).resolve().parents[1] / room) for room in ("hmm", "decode", "acoustic", "distill")]


@pytest.fixture(scope="module", params=["serial", "threads", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One for all tests of a file: starting workers takes seconds."""
    if request.param == "dask":
        pytest.importorskip("distributed")
    if request.param == "threads":
        opened: Executor | None = Threads(2)
    else:
        opened = open_executor(ExecutorSettings(request.param, 0 if request.param == "serial" else 2))
    assert opened is not None
    with opened:
        yield opened


@pytest.fixture(params=["processes", "dask"])
def several(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Two workers of its own, which a test may kill."""
    if request.param == "dask":
        pytest.importorskip("distributed")
    opened = open_executor(ExecutorSettings(request.param, 2))
    assert opened is not None
    with opened:
        yield opened
