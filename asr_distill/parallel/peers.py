"""What the processes of one training exchange: sums, and weights that all take from the first of them."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from asr_distill.errors import UserError

# A process that answers nothing for so long is given up; one that died is noticed at once.
TIMEOUT = timedelta(minutes=30)
LOST_SECONDS = 5.0  # that whoever started the processes has to say which one is lost


class Peers:
    """The processes that train one network together, each with its part of every batch; here: a single one."""

    rank = 0
    size = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Each tensor becomes its sum over the processes, in place, the same bits everywhere."""

    def take_(self, *tensors: torch.Tensor) -> None:
        """Each tensor becomes the chief's, in place."""

    def note(self, label: str, update: int) -> None:
        """Where the same command would go on; told to the user when a process is lost."""


ALONE = Peers()


class PeerLost(UserError):
    """Another process of the training is gone."""


class Connected(Peers):
    """Members of torch's default process group. `launched`: by our own launcher, which says who is lost.

    Its methods raise PeerLost where another process has ended.
    """

    def __init__(self, rank: int, size: int, store: dist.Store, launched: bool):
        self.rank, self.size, self._store, self._launched = rank, size, store, launched
        self._goes_on = mend("")

    def sum_(self, *tensors: torch.Tensor) -> None:
        self._exchange(lambda tensor: dist.all_reduce(tensor, async_op=True), tensors)

    def take_(self, *tensors: torch.Tensor) -> None:
        self._exchange(lambda tensor: dist.broadcast(tensor, 0, async_op=True), tensors)

    def note(self, label: str, update: int) -> None:
        self._goes_on = mend(f"update {update} of {label}")
        self._store.set("goes_on", self._goes_on)

    def _exchange(self, start, tensors: tuple[torch.Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
        try:
            for work in [start(tensor) for tensor in tensors]:
                work.wait()
        except RuntimeError as error:  # gloo and NCCL have no class of their own for a lost connection
            raise self._lost(error) from None

    def _lost(self, error: RuntimeError) -> PeerLost:
        deadline = time.monotonic() + LOST_SECONDS
        try:
            while self._launched and self.chief and time.monotonic() < deadline:
                if self._store.check(["lost"]):
                    self._store.set("told", "yes")
                    return PeerLost(f"{self._store.get('lost').decode()}; {self._goes_on}")
                time.sleep(0.05)
        except RuntimeError:
            pass  # the launcher is gone too
        reason = str(error).strip().splitlines()[0][:200]
        return PeerLost(f"another of the {self.size} processes was killed or failed ({reason}); {self._goes_on}")


def mend(place: str) -> str:
    """What the user does about a lost process."""
    return f"run the same command again, it goes on at {place}" if place else \
        "run the same command again; finished work is kept"
