"""Processes that are started together and end together; these members know nothing of torch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from asr_distill.parallel import launch as launching
from asr_distill.parallel.crew import FAILED, LAUNCHER, Crew, check_devices, joined
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


SCRIPT = """
import sys
from asr_distill.parallel.crew import joined
with joined() as crew:
    code = crew.serve() if crew.rank else 0
sys.exit(code)
"""


def test_helpers_hear_the_end_from_a_first_process_that_holds_the_store() -> None:
    """As under a batch system that starts all by itself: nobody else keeps the store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_USE_AGENT_STORE"} | {
        "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(launching.ROOT)}
    members = [subprocess.Popen([sys.executable, "-c", SCRIPT], env=common | {"RANK": str(rank)}) for rank in range(3)]
    try:
        assert [member.wait(300) for member in members] == [0, 0, 0]
    finally:
        for member in members:
            member.kill()


def test_nobody_listens_to_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/net/tcp").is_file():
        pytest.skip("/proc tells no sockets here")
    heard: list[str] = []

    def look(members: list[subprocess.Popen], store: torch.distributed.TCPStore) -> int:
        heard.extend(line.split()[1] for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").open()
                     if line.split()[1].endswith(f":{store.port:04X}") and line.split()[3] == "0A")
        return 0

    monkeypatch.setattr(launching, "_watch", look)
    run(tmp_path, "0")
    assert [place.partition(":")[0] for place in heard] == ["0100007F"]  # 127.0.0.1


def test_a_machine_without_the_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    class Store(dict):
        """Of a crew whose first process calls once."""

        def check(self, names: list[str]) -> bool:
            return all(name in self for name in names)

        def get(self, name: str) -> bytes:
            return self[name].encode()

        def set(self, name: str, value: str) -> None:
            self[name] = value

    monkeypatch.delenv(LAUNCHER, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    store = Store(call0=json.dumps({"parcel": str(tmp_path / "none"), "device": "cpu"}))
    assert Crew(1, 2, store).serve() == FAILED  # type: ignore[arg-type]
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "parcel.json: " in error and "need the same file system" in error
    assert store["failure1"] in error


def test_each_process_needs_a_gpu_of_its_own() -> None:
    from asr_distill.errors import UserError
    check_devices(torch.device("cpu"), 100)
    with pytest.raises(UserError, match="use --device cuda"):
        check_devices(torch.device("cuda", 1), 2)
    with pytest.raises(UserError, match="100 processes on this machine"):
        check_devices(torch.device("cuda"), 100)
