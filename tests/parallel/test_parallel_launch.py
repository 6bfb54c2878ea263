"""Processes that are started together and end together; these members know nothing of torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from asr_distill.parallel import launch as launching
from asr_distill.parallel.crew import FAILED, check_devices, joined
from asr_distill.parallel.launch import launch

MEMBER = """
import os, signal, sys, time
rank = os.environ["RANK"]
open(sys.argv[1] + "/" + rank, "w").write(str(os.getpid()))
end = dict(part.split("=") for part in sys.argv[2:])[rank]
if end == "stay":
    time.sleep(600)
if end == "after 2":  # ends because that one has
    while True:
        try:
            os.kill(int(open(sys.argv[1] + "/2").read()), 0)
        except (OSError, ValueError) as error:
            if isinstance(error, ProcessLookupError):
                sys.exit(75)
        time.sleep(0.05)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(end))
"""


def run(tmp_path: Path, *ends: str) -> int:
    script = tmp_path / "member.py"
    script.write_text(MEMBER)
    code = launch([str(script), str(tmp_path), *(f"{rank}={end}" for rank, end in enumerate(ends))], len(ends))
    for path in tmp_path.glob("[0-9]"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    return code


@pytest.mark.parametrize("ends, code, line", [
    (("0", "0"), 0, ""),
    (("3", "0"), 3, ""),
    (("3", "stay"), 3, ""),
    (("stay", "kill"), 1, "process 2 of 2 was killed (out of memory?); run the same command again; finished work"),
    (("kill", "stay", "stay"), 1, "process 1 of 3 was killed"),
    (("stay", "after 2", "kill"), 1, "process 3 of 3 was killed"),
    (("stay", "0", "5"), 1, "process 3 of 3 failed (see above)"),
    (("stay", str(FAILED)), 1, "process 2 of 2 failed"),
    (("1", "kill"), 1, ""),  # the first one says it itself
])
def test_all_end_with_the_first_that_is_lost(ends: tuple[str, ...], code: int, line: str, tmp_path: Path,
                                             capfd: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE_SECONDS", 1.0)
    if ends == ("1", "kill"):
        monkeypatch.setattr(launching, "GRACE_SECONDS", 60.0)
    assert run(tmp_path, *ends) == code
    error = capfd.readouterr().err
    assert error.count("asr-distill: error:") == (1 if line else 0)
    assert line in error


def test_a_process_that_was_not_started_with_others_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_distill.errors import UserError
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as crew:
        assert (crew.rank, crew.size) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    before = time.monotonic()
    with pytest.raises(UserError, match="WORLD_SIZE=2, but RANK"), joined():
        pass
    assert time.monotonic() - before < 60
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE=two: not a number"), joined():
        pass


def test_each_process_needs_a_gpu_of_its_own() -> None:
    import torch

    from asr_distill.errors import UserError
    check_devices(torch.device("cpu"), 100)
    with pytest.raises(UserError, match="use --device cuda"):
        check_devices(torch.device("cuda", 1), 2)
    with pytest.raises(UserError, match="100 processes on this machine"):
        check_devices(torch.device("cuda"), 100)
