"""The processes of one command: the first one does the work, the others join it for its trainings.

Whoever starts them (launch.py, torchrun, a cluster's scheduler) tells each its number by the variables that torch
knows: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT. The others wait for calls, for hours
where need be: a call names a parcel (parcel.py) with all that the training consists of.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from asr_distill.errors import UserError, describe
from asr_distill.executor import available_cpus
from asr_distill.parallel.parcel import pack, unpack
from asr_distill.parallel.peers import ALONE, TIMEOUT, Connected, PeerLost, Peers

LAUNCHER = "ASR_DISTILL_LAUNCHER"  # process id of our own launcher
WAIT_SECONDS = 0.05  # between two looks for a call
LEAVE_SECONDS = 10.0  # that the helpers have to hear that they may go
LEFT = "left"  # how many of them have heard it
FOLLOW_SECONDS = 0.5  # between two looks at the process that started this one
LOST = 75  # exit code of a process that another one's end has ended
FAILED = 76  # exit code of one whose failure the launcher tells


class Call(Protocol):
    """What a helper is asked to take part in."""

    def join(self, peers: Peers, device: torch.device) -> None: ...


class Crew:
    """This process among those of the command. Alone: `size` is 1, and a call is nobody's business."""

    def __init__(self, rank: int = 0, size: int = 1, store: dist.Store | None = None):
        self.rank, self.size, self._store = rank, size, store
        self.local_rank = int(os.environ.get("LOCAL_RANK", rank)) if size > 1 else 0
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size)) if size > 1 else 1
        self._calls = 0
        self._lost = False

    def device(self, asked: torch.device) -> torch.device:
        """This process's own of the asked kind. Raises UserError where there are too few GPUs, or one is named."""
        if self.size > 1:
            check_devices(asked, self.local_size)
        return torch.device("cuda", self.local_rank) if self.size > 1 and asked.type == "cuda" else asked

    @contextlib.contextmanager
    def call(self, make: Callable[[], Call], folder: Path, device: torch.device) -> Iterator[Peers]:
        """Have the other processes join what `make` gives; `folder`: where they can read, and files may lie for now.

        Raises PeerLost where one of them ends within.
        """
        parcel = folder / "parcel"
        shutil.rmtree(parcel, ignore_errors=True)  # a killed run's
        if self._store is None:
            yield ALONE
            return
        if self._lost:
            raise UserError("a process of this command was lost; run the same command again")
        pack(make(), parcel)
        name, self._calls = f"call{self._calls}", self._calls + 1
        self._store.set(name, json.dumps({"parcel": str(parcel.resolve()), "device": device.type}))
        try:
            with self._connected(name, device) as peers:
                peers.sum_(torch.zeros(1, device=device))
                yield peers
        except BaseException:
            self._lost = True  # the others are somewhere in the middle of it
            raise
        finally:
            shutil.rmtree(parcel, ignore_errors=True)  # not before: NFS takes a deleted file from who maps it elsewhere
        self._store.set("goes_on", "")

    def serve(self) -> int:
        """Join calls until the first process has no more; returns the exit code."""
        assert self._store is not None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process's to handle
        try:
            while True:
                name, self._calls = f"call{self._calls}", self._calls + 1
                while not self._store.check([name]):
                    time.sleep(WAIT_SECONDS)
                call = json.loads(self._store.get(name).decode())
                if call is None:
                    self._store.add(LEFT, 1)
                    return 0
                self._join(name, call)
        except (PeerLost, dist.DistError):
            return LOST
        except (UserError, OSError) as error:
            said = str(error) if isinstance(error, UserError) else (
                f"{describe(error)} on {socket.gethostname()}; all machines need the same file system")
            if LAUNCHER not in os.environ:  # which tells it itself
                print(f"asr-distill: error: process {self.rank + 1} of {self.size}: {said}", file=sys.stderr)
            self._store.set(f"failure{self.rank}", said)
            return FAILED

    def _join(self, name: str, call: dict[str, str]) -> None:
        device = torch.device("cuda", self.local_rank) if call["device"] == "cuda" else torch.device(call["device"])
        work: Any = unpack(Path(call["parcel"]), device)
        with self._connected(name, device) as peers:
            peers.sum_(torch.zeros(1, device=device))
            work.join(peers, device)

    @contextlib.contextmanager
    def _connected(self, name: str, device: torch.device) -> Iterator[Connected]:
        assert self._store is not None
        threads = torch.get_num_threads()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(min(threads, max(1, available_cpus() // self.local_size)))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=self.rank, world_size=self.size,
                                store=dist.PrefixStore(name, self._store), timeout=TIMEOUT,
                                device_id=device if device.type == "cuda" else None)
        done = False
        try:
            yield Connected(self.rank, self.size, self._store, LAUNCHER in os.environ)
            done = True
        finally:
            if done or device.type == "cpu":  # gloo's others learn of a failure so; NCCL's might be waited for
                dist.destroy_process_group()
        torch.set_num_threads(threads)

    def end(self) -> None:
        """The helpers may go."""
        if self._store is not None and self.rank == 0:
            with contextlib.suppress(RuntimeError):
                self._store.set(f"call{self._calls}", json.dumps(None))
                deadline = time.monotonic() + (0 if self._lost else LEAVE_SECONDS)  # the store may be this process's
                while self._store.add(LEFT, 0) < self.size - 1 and time.monotonic() < deadline:
                    time.sleep(WAIT_SECONDS)


def check_devices(asked: torch.device, processes: int) -> None:
    """Raises UserError where so many processes of this machine cannot have a GPU of their own each."""
    if asked.type == "cuda" and asked.index is not None:
        raise UserError(f"--device {asked}: {processes} processes take a GPU each: use --device cuda")
    if asked.type == "cuda" and processes > torch.cuda.device_count():
        raise UserError(f"{processes} processes on this machine, but {torch.cuda.device_count()} GPUs that torch can "
                        "use: start as many processes as there are GPUs, or use --device cpu")


_current = Crew()


def current() -> Crew:
    """The crew that this process has joined; alone where it has joined none."""
    return _current


@contextlib.contextmanager
def joined() -> Iterator[Crew]:
    """The crew that the environment speaks of. Raises UserError where it says too little."""
    global _current
    size = _number("WORLD_SIZE", 1)
    if size < 2 or _current.size > 1:
        yield _current
        return
    rank = _number("RANK", -1)
    if not 0 <= rank < size or "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise UserError(f"WORLD_SIZE={size}, but RANK, MASTER_ADDR or MASTER_PORT is missing or wrong: start with "
                        "torchrun, or with --processes N")
    _follow(int(os.environ.get(LAUNCHER, os.getppid())))
    if rank == 0 and LAUNCHER not in os.environ:
        signal.signal(signal.SIGTERM, _stopped)
    store, _, _ = next(dist.rendezvous("env://"))
    _current = Crew(rank, size, store)
    try:
        yield _current
    finally:
        _current.end()
        _current = Crew()


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"{name}={os.environ[name]}: not a number") from None


def _stopped(*_: object) -> None:
    """torchrun ends all processes when one of them has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise UserError("stopped from outside, most often because another process was killed or failed; run the same "
                    "command again; finished work is kept")


def _follow(parent: int) -> None:
    """End with the process that started this one, also when that is killed and can tell it nothing."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(FOLLOW_SECONDS)
        os._exit(LOST)

    threading.Thread(target=watch, daemon=True).start()
