"""Processes of this machine, each with a pipe of its own: when one dies it is known which job it had."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import pickle
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, cast

from asr_distill.executor.base import ATTEMPTS, Context, Executor, Job
from asr_distill.executor.cards import take_card, visible_cards
from asr_distill.executor.task import Failure, Outcome, Task, lost_too_often
from asr_distill.logs import log

_PATIENCE = 10.0  # seconds that an idle worker gets to end by itself
_Begin = tuple[Callable[..., None] | None, tuple[Any, ...]]


class Processes(Executor):
    """`workers` processes, started when there is a job for them. They are spawned (safe with threads and CUDA); where
    there are several GPUs each sees one.

    initializer(*initargs) is called once in each. The running script is imported again in them only where a list's
    function is its own.
    """

    def __init__(self, workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()):
        self.workers = workers
        self._begin: _Begin = (initializer, initargs)
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}
        self._lists = 0
        self._of_script = False
        atexit.register(self.close)  # before multiprocessing waits for its children

    def run(self, function: Callable[..., Any], jobs: Iterable[Job], *, context: Context | None = None,
            name: Callable[[Job], str] | None = None, threads: int = 1) -> Iterator[tuple[Job, Any]]:
        if self._busy:
            raise RuntimeError("one list at a time")
        if function.__module__ == "__main__" and not self._of_script:
            self.close()
            self._of_script = True
        self._lists += 1
        task = Task(function, context, threads).pickled()
        stream = enumerate(jobs, 1)
        given: dict[int, Job] = {}
        again: list[int] = []  # jobs of lost workers
        deaths: Counter[int] = Counter()

        def name_of(number: int) -> str:
            return name(given[number]) if name else f"job {number}"

        def fill() -> None:
            while len(self._busy) < self.workers:
                if not again:
                    for number, job in itertools.islice(stream, 1):
                        given[number] = job
                        again.append(number)
                if not again:
                    return
                number = again.pop()
                self._give(number, given[number], task)

        try:
            fill()
            while self._busy:
                for connection in multiprocessing.connection.wait(list(self._busy)):
                    worker = self._busy.pop(cast(Connection, connection))
                    outcome, number = worker.outcome(), worker.number
                    if outcome is None:
                        deaths[number] += 1
                        log.warning("%s: its worker was lost (%s)", name_of(number), worker.fate())
                        if deaths[number] == ATTEMPTS:
                            raise lost_too_often(name_of(number))
                        again.append(number)
                        fill()
                        continue
                    self._idle.append(worker)
                    result = outcome.unwrap(name_of(number))
                    fill()
                    yield given.pop(number), result
        finally:
            for worker in self._busy.values():
                worker.kill()
            self._busy.clear()

    def _give(self, number: int, job: Any, task: bytes) -> None:
        worker = self._idle.pop() if self._idle else self._new()
        worker.give(number, job, self._lists, task)
        self._busy[worker.connection] = worker

    def _new(self) -> _Worker:
        """In the place of one that was lost, where there was one: it takes over that one's GPU."""
        places = {worker.place for worker in self._busy.values()}
        return _Worker(min(set(range(self.workers)) - places), self._begin, self._of_script)

    def close(self) -> None:
        atexit.unregister(self.close)
        for worker in self._busy.values():
            worker.kill()
        for worker in self._idle:
            worker.connection.close()  # which it takes for the end
        for worker in self._idle:
            worker.process.join(_PATIENCE)
            worker.kill()
        self._idle.clear()
        self._busy.clear()


class _Worker:
    """One process, and what it was given. `place`: its number among the workers, from 0."""

    def __init__(self, place: int, begin: _Begin, of_script: bool):
        self.place = place
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, begin, place, visible_cards()))
        with script_shown(of_script), no_interrupts():
            self.process.start()
        theirs.close()
        self.list = self.number = -1

    def give(self, number: int, job: Any, list_number: int, task: bytes) -> None:
        data = pickle.dumps((None if self.list == list_number else task, job))
        self.list, self.number = list_number, number
        try:
            self.connection.send_bytes(data)
        except OSError:
            pass  # it is dead: `outcome` tells

    def outcome(self) -> Outcome | None:
        """None where the process died."""
        try:
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None

    def fate(self) -> str:
        self.connection.close()
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, begin: _Begin, place: int, cards: list[str]) -> None:
    """A worker's life. It ends with its parent, also when that is killed and can tell it nothing."""
    take_card(cards, place)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    initializer, initargs = begin
    if initializer:
        initializer(*initargs)
    task: Task | None = None
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            new, job = pickle.loads(data)
            if new is not None:
                task = None  # the last list's context is freed before this one's is made
                task = Task.unpickled(new)
            assert task is not None
            answer = pickle.dumps(task(job))
        except Exception as error:  # what does not pickle, or cannot be imported here
            answer = pickle.dumps(Outcome(failure=Failure.of(error)))
        connection.send_bytes(answer)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal, and is this one's to hear alone: threads and processes that are
    started here (or by those, later) have the signal blocked. One that comes meanwhile is not lost."""
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def script_shown(shown: bool) -> Iterator[None]:
    """Spawned processes import the parent's script again: seconds for a recipe, and mostly of no use to them."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if shown or path is None or main.__spec__ is not None:
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path
