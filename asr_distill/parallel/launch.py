"""Starts the processes of one command on this machine and watches them: when one is lost, all stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from asr_distill.parallel.crew import FAILED, LAUNCHER, LOST
from asr_distill.parallel.peers import mend

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 0.1
GRACE_SECONDS = 10.0  # that the first process has to say itself what happened, or to be done
TOLD_SECONDS = 60.0  # that it has to end after it said so
INTERRUPT_SECONDS = 60.0


def launch(command: Sequence[str], processes: int) -> int:
    """Run `python ARGUMENTS` (`command`) as `processes` processes of one crew; returns the exit code.

    That of the first process, which does the work; where another is lost, one line says which, all are stopped, and it
    is 1. An interrupt is handed on to the first process. Nothing that was started is left behind.
    """
    listening = socket.create_server((LOOPBACK, 0))  # a store that opens its own port listens on all interfaces
    port = listening.getsockname()[1]
    store = dist.TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60),
                          master_listen_fd=listening.detach())
    members: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            members.append(subprocess.Popen(
                [sys.executable, *command], env=_environment(rank, processes, store.port), start_new_session=True,
                stdin=None if rank == 0 else subprocess.DEVNULL))
        try:
            return _watch(members, store)
        except KeyboardInterrupt:
            members[0].send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = members[0].wait(INTERRUPT_SECONDS)
                return code if code >= 0 else 130
            return 130
    finally:
        for member in members:
            member.kill()
        for member in members:
            member.wait()


def _watch(members: list[subprocess.Popen], store: dist.TCPStore) -> int:
    first, *helpers = members
    while first.poll() is None and not any(member.poll() for member in helpers):
        time.sleep(LOOK_SECONDS)
    if first.returncode is None:  # a helper is lost
        store.set("lost", _who(members, store))
    with contextlib.suppress(subprocess.TimeoutExpired):
        first.wait(GRACE_SECONDS)
    if (first.returncode is None or first.returncode < 0) and store.check(["told"]):  # it may take its time to end
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(TOLD_SECONDS)
        return max(1, first.returncode or 1)
    if first.returncode is not None and first.returncode >= 0:  # it has said what there is to say
        for member in helpers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.wait(GRACE_SECONDS)
        return first.returncode
    goes_on = store.get("goes_on").decode() if store.check(["goes_on"]) else ""
    print(f"asr-distill: error: {_who(members, store)}; {goes_on or mend('')}", file=sys.stderr)
    return 1


def _who(members: list[subprocess.Popen], store: dist.TCPStore) -> str:
    """Which process is lost, and why."""
    def order(rank: int) -> tuple[bool, bool, bool]:
        """Who was killed comes before who failed, and that before whom another one's end has ended."""
        code = members[rank].poll()
        return code in (None, 0), code == LOST, code is not None and code > 0

    rank = min(range(len(members)), key=order)
    code = members[rank].poll() or 0
    who = f"process {rank + 1} of {len(members)}"
    if code == FAILED and store.check([f"failure{rank}"]):
        return f"{who}: {store.get(f'failure{rank}').decode()}"
    if code >= 0:
        return f"{who} failed (see above)"
    if -code == signal.SIGKILL:
        return f"{who} was killed (out of memory?)"
    return f"{who} was ended by {signal.Signals(-code).name}"


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": LOOPBACK,
           "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True, LAUNCHER: os.getpid(), "PYTHONPATH": path}
    if sys.platform == "linux":  # one machine: whatever its name leads to
        own["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return os.environ | {name: str(value) for name, value in own.items()}
