"""Independent jobs over processes."""

from __future__ import annotations

import os

import pytest

from asr_distill.errors import UserError
from asr_distill.executor import run_jobs

_offset = 0


def _set_offset(value: int) -> None:
    global _offset
    _offset = value


def _shifted_square(value: int) -> int:
    if value < 0:
        raise UserError(f"job {value}: negative")
    return value * value + _offset


def _die(value: int) -> int:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_once_with_initialised_workers(workers: int) -> None:
    done = dict(run_jobs(_shifted_square, range(20), workers=workers, initializer=_set_offset, initargs=(7,)))
    assert done == {n: n * n + 7 for n in range(20)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_jobs_error_reaches_the_caller(workers: int) -> None:
    with pytest.raises(UserError, match="job -1: negative"):
        list(run_jobs(_shifted_square, [1, -1, 2], workers=workers))


def test_a_killed_worker_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="worker process was killed"):
        list(run_jobs(_die, [1, 2], workers=2))
