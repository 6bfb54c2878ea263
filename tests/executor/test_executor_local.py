"""Independent jobs over processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import alive, wait_for

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


def test_killed_workers_are_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"^job [12]: 3 workers or more were killed at it"):
        list(run_jobs(_die, [1, 2], workers=2))


PARENT = """
import os, sys, time
from asr_distill.executor import run_jobs

def sleep(path):
    open(path + str(os.getpid()), "w").close()
    time.sleep(900)

if __name__ == "__main__":
    list(run_jobs(sleep, [sys.argv[1] + "/a", sys.argv[1] + "/b"], workers=2))
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pids = tmp_path / "pids"
    pids.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), str(pids)], env=environment, stdin=subprocess.DEVNULL)
    wait_for(lambda: len(list(pids.iterdir())) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    workers = [int(path.name[1:]) for path in pids.iterdir()]
    wait_for(lambda: not any(alive(pid) for pid in workers))
