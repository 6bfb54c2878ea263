"""A list's function as a worker knows it, and what comes of one job: the same for all kinds of executor."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asr_distill.errors import UserError
from asr_distill.executor.base import ATTEMPTS, Context
from asr_distill.logs import log

_NAME = "asr_distill_job"  # attribute of an exception: the job or utterance that it is about


@dataclass(frozen=True)
class Failure:
    """Why a job failed, as plain data where the exception is the program's fault (others' may not pickle)."""

    error: Exception | None  # of the user's to mend
    what: str  # type, message and place
    trace: str
    name: str  # the utterance, where it is known

    @classmethod
    def of(cls, error: Exception) -> Failure:
        users = error if isinstance(error, (UserError, OSError)) else None
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {' '.join(str(error).split())} ({os.path.basename(place.filename)}, " \
               f"line {place.lineno})"
        return cls(users, what, "".join(traceback.format_exception(error)), getattr(error, _NAME, ""))

    def exception(self, job: str) -> Exception:
        """What the caller of Executor.run gets. `job`: its name."""
        if isinstance(self.error, UserError) and self.name and self.name not in str(self.error):
            return UserError(f"{self.name}: {self.error}")
        if self.error is not None:
            return self.error
        log.error("%s: a fault of the program:\n%s", self.name or job, self.trace)
        return UserError(f"{self.name or job}: {self.what}; a fault of the program, not of the settings (the log has "
                         "more)")


@dataclass(frozen=True)
class Outcome:
    """A job's result or failure."""

    result: Any = None
    failure: Failure | None = None

    def unwrap(self, job: str) -> Any:
        if self.failure is not None:
            raise self.failure.exception(job)
        return self.result


class Task:
    """The function of a list with its context, which is made at the first job of a process."""

    def __init__(self, function: Callable[..., Any], context: Context | None, threads: int):
        self.function, self.context, self.threads = function, context, threads
        self._made: list[Any] = []
        self._lock = threading.Lock()

    def pickled(self) -> bytes:
        return pickle.dumps((self.function, self.context, self.threads))

    @classmethod
    def unpickled(cls, data: bytes) -> Task:
        return cls(*pickle.loads(data))

    def __call__(self, job: Any) -> Outcome:
        try:
            with torch_threads(self.threads), self._lock:
                if self.context is not None and not self._made:
                    self._made.append(self.context.build(*self.context.arguments))
            with torch_threads(self.threads):  # anew: the context may have loaded torch
                return Outcome(self.function(*self._made, job))
        except Exception as error:
            return Outcome(failure=Failure.of(error))


@contextmanager
def named(name: str) -> Iterator[None]:
    """Around the work on one of a job's utterances: a failure within names it."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, _NAME):
            setattr(error, _NAME, name)
        raise


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch's operations on so many threads (0: as it is), also where the block is the first to import it."""
    torch = sys.modules.get("torch")
    if not threads:
        yield
    elif torch is None:
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded
        try:
            yield
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            os.environ.update({} if before is None else {"OMP_NUM_THREADS": before})
    else:
        now = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(now)


def begin_thread(threads: int) -> None:
    """Torch keeps its number of threads thread by thread, too."""
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def lost_too_often(job: str) -> UserError:
    return UserError(f"{job}: {ATTEMPTS} workers or more were killed at it (out of memory?); use fewer workers or more "
                     "memory and run the same command again; finished work is kept")
