"""Dask: workers on this machine, or wherever a scheduler has them. Losing some of them is Dask's to mend."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from asr_distill.errors import UserError
from asr_distill.executor.base import ATTEMPTS, Context, Executor, Job, available_cpus
from asr_distill.executor.cards import take_card, visible_cards
from asr_distill.executor.processes import no_interrupts, script_shown
from asr_distill.executor.task import Failure, Outcome, Task, lost_too_often
from asr_distill.files import read_json
from asr_distill.logs import log

try:
    import dask
    import distributed
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend
    from distributed.scheduler import KilledWorker
    from tornado.ioloop import IOLoop, PeriodicCallback
except ImportError as error:
    raise UserError(f"--executor dask: {error}; install it with pip install 'asr-distill[dask]', or use --executor "
                    "processes") from None

_LOOPBACK = "127.0.0.1"
_CONNECT = 60.0  # seconds for a scheduler to answer
_AGAIN = 1.0  # seconds until workers are told of a list once more
_KEEP = 30  # seconds after which workers that were given up are made anew
_CONFIG = {
    "distributed.admin.tick.limit": "1h",  # a busy machine is no news
    "distributed.comm.timeouts.connect": "600s",
    "distributed.comm.timeouts.tcp": "600s",
    "distributed.scheduler.worker-ttl": "1h",  # a worker that compiles or waits for a core is not lost
    "distributed.deploy.lost-worker-timeout": "5 minutes",  # for a worker to start again, before it is given up
    "distributed.scheduler.allowed-failures": 1,  # a job is suspect when two workers died that had it
    "distributed.worker.memory.target": False, "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False, "distributed.worker.memory.terminate": False,
}


class DaskCluster(Executor):
    """`scheduler`: tcp://HOST:PORT or a scheduler file; empty: a cluster of `workers` processes of this machine, which
    see one GPU each where there are several. (Which GPU a foreign cluster's worker sees is for who starts it.)

    Raises UserError where the scheduler does not answer.
    """

    def __init__(self, workers: int = 0, scheduler: str = ""):
        self._config = dask.config.set(_CONFIG)
        self._local: distributed.LocalCluster | None = None
        self.elsewhere = bool(scheduler)
        if scheduler:
            self._client = _connect(scheduler)
            self.workers = workers or max(1, len(self._threads()))
            log.info("Dask: %d workers at %s", len(self._threads()), scheduler)
        else:
            self.workers = workers or available_cpus()

    @functools.cached_property
    def _client(self) -> distributed.Client:
        """Of a local cluster, which is started when there is a list for it."""
        with script_shown(False), no_interrupts():
            self._local = distributed.LocalCluster(
                n_workers=self.workers, threads_per_worker=1, processes=True, host=_LOOPBACK, scheduler_port=0,
                dashboard_address=f"{_LOOPBACK}:0", memory_limit=None, silence_logs=logging.CRITICAL)
        log.info("Dask: %d workers of this machine, status page %s", self.workers, self._local.dashboard_link)
        self._keeper = PeriodicCallback(functools.partial(self._local.scale, self.workers), _KEEP * 1000)
        self._loop = cast(IOLoop, self._local.loop)
        self._loop.add_callback(self._keeper.start)
        return distributed.Client(self._local, set_as_default=False)

    def _threads(self) -> list[int]:
        return list(self._client.nthreads().values())

    def run(self, function: Callable[..., Any], jobs: Iterable[Job], *, context: Context | None = None,
            name: Callable[[Job], str] | None = None, threads: int = 1) -> Iterator[tuple[Job, Any]]:
        label = f"asr-distill-{uuid.uuid4().hex}"
        task = Task(function, context, threads).pickled()
        cards = [] if self.elsewhere else visible_cards()
        self._register(_List(label, task, os.getcwd(), list(sys.path), cards), label)
        stream = enumerate(jobs, 1)
        pending: dict[distributed.Future, tuple[int, Job]] = {}
        suspects: list[tuple[int, Job]] = []  # workers died of one of them, and Dask does not know of which

        def send(number: int, job: Job, key: str) -> distributed.Future:
            future = self._client.submit(_carry_out, label, pickle.dumps(job), key=key, pure=False)
            pending[future] = number, job
            return future

        def outcome(future: distributed.Future) -> tuple[Job, Any]:
            number, job = pending.pop(future)
            called = name(job) if name else f"job {number}"
            return job, _outcome(future, called).unwrap(called)

        def submit() -> Iterator[distributed.Future]:
            """As many as keep all workers busy, also those that a cluster is about to get."""
            for number, job in itertools.islice(stream, max(0, 2 * max(self.workers, sum(self._threads()))
                                                            - len(pending))):
                yield send(number, job, f"{label}-{number}")

        try:
            done = distributed.as_completed(submit(), loop=self._client.loop)
            for future in done:
                suspect = future.status == "error" and isinstance(future.exception(), KilledWorker)
                if suspect:
                    suspects.append(pending.pop(future))
                found = [] if suspect else [outcome(future)]
                for more in submit():
                    done.add(more)
                yield from found
            for number, job in suspects:  # each with no other beside it
                yield outcome(send(number, job, f"{label}-{number}-alone"))
        finally:
            if self._client.status == "running":  # what a scheduler that is gone is asked waits for a minute
                with contextlib.suppress(OSError):
                    self._client.cancel(list(pending), force=True)
                    self._client.unregister_worker_plugin(label)

    def _register(self, plugin: _List, label: str) -> None:
        """Raises UserError where scheduler or workers cannot take it."""
        for attempt in range(ATTEMPTS):
            try:
                self._client.register_plugin(plugin, name=label)
                return
            except Exception as error:
                # a worker that dies just now is known as dead the next time; else it is the workers' own fault,
                # whatever it is: most often a module that they lack
                if attempt + 1 < ATTEMPTS and isinstance(error, OSError) and self._client.status == "running":
                    time.sleep(_AGAIN)
                    continue
                raise UserError(f"--executor dask: scheduler or workers cannot take a list of jobs ({_said(error)}); "
                                "do they run, with the same Python environment (asr_distill too)? Finished work is "
                                "kept") from None

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()
        if self._local is not None:
            self._loop.add_callback(self._keeper.stop)
            self._local.close()
        self._config.__exit__(None, None, None)


def _connect(scheduler: str) -> distributed.Client:
    address = scheduler if "://" in scheduler else _address(Path(scheduler))
    try:  # what is wrong by itself is found here: a client that was never connected ends with a traceback
        scheme, place = parse_address(address, strict=True)
        get_backend(scheme)
        parse_host_port(place)
        if scheme in ("tls", "wss") and not distributed.Security().get_connection_args("client").get("ssl_context"):
            raise ValueError("it wants certificates: set distributed.comm.tls in your Dask configuration")
    except (OSError, ValueError) as error:
        raise UserError(f"--scheduler {scheduler}: {_said(error)}; give tcp://HOST:PORT, tls://HOST:PORT, or the file "
                        "that `dask scheduler --scheduler-file` wrote") from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what goes wrong is said here, in a line
    try:
        return distributed.Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, RuntimeError) as error:
        raise UserError(f"--scheduler {scheduler}: no Dask scheduler answers there ({_said(error)}); start one with "
                        "`dask scheduler`") from None


def _address(file: Path) -> str:
    """What a scheduler wrote of itself."""
    if not file.is_file():
        raise UserError(f"--scheduler {file}: no such file; give tcp://HOST:PORT, or the file that `dask scheduler "
                        "--scheduler-file` wrote")
    facts = read_json(file)
    address = facts.get("address") if isinstance(facts, dict) else None
    if not isinstance(address, str):
        raise UserError(f"--scheduler {file}: holds no scheduler's address; give the file that `dask scheduler "
                        "--scheduler-file` wrote, or tcp://HOST:PORT")
    return address


def _said(error: Exception) -> str:
    """On one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _outcome(future: distributed.Future, job: str) -> Outcome:
    """Raises UserError where Dask has none."""
    try:
        return future.result()
    except KilledWorker:
        raise lost_too_often(job) from None
    except Exception as error:  # Dask's: the scheduler went away, a worker has another environment
        raise UserError(f"{job}: lost by Dask ({_said(error)}); do scheduler and workers run, with the same Python "
                        "environment? Finished work is kept") from None


class _List(distributed.WorkerPlugin):
    """Brings a list to every worker, also to those that come later. Its context is made at a worker's first job."""

    def __init__(self, label: str, task: bytes, folder: str, path: list[str], cards: list[str]):
        self.label, self.task, self.folder, self.path, self.cards = label, task, folder, path, cards

    def setup(self, worker: distributed.Worker) -> None:
        if isinstance(worker.name, int):  # of a local cluster: its number
            take_card(self.cards, worker.name)
        _LISTS[self.label] = self

    def teardown(self, worker: distributed.Worker) -> None:
        _LISTS.pop(self.label, None)
        _OPEN.pop(self.label, None)

    def open(self) -> Task:
        """In the folder that the client works in, and with its modules."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder}: {error.strerror} on the machine of a Dask worker; all machines need the "
                            "same file system") from None
        sys.path += [place for place in self.path if place not in sys.path]
        return Task.unpickled(self.task)


_LISTS: dict[str, _List] = {}  # of this worker process
_OPEN: dict[str, Task] = {}
_ONE = threading.Lock()  # one job at a time in a process: torch's threads and the folder are the whole process's


def _carry_out(label: str, job: bytes) -> Outcome:
    with _ONE:
        try:
            if label not in _OPEN:
                _OPEN[label] = _LISTS[label].open()
            elif os.getcwd() != _LISTS[label].folder:  # another client's list came between
                os.chdir(_LISTS[label].folder)
            return _OPEN[label](pickle.loads(job))
        except Exception as error:
            return Outcome(failure=Failure.of(error))
