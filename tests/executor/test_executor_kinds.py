"""What serial, processes and Dask must all do."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import executor_jobs
import pytest
from waiting import wait_for

from asr_distill.errors import UserError
from asr_distill.executor import Context, Executor, ExecutorSettings, local_executor, open_executor
from asr_distill.executor.task import Task


def test_every_job_once_and_one_context_a_worker(executor: Executor, tmp_path: Path) -> None:
    context = Context(executor_jobs.build, (7, str(tmp_path)))
    done = list(executor.run(executor_jobs.shifted_square, iter(range(40)), context=context))
    assert sorted(done) == [(n, n * n + 7) for n in range(40)]
    notes = [path.read_text() for path in tmp_path.iterdir()]
    assert 1 <= len(notes) <= executor.workers and set(notes) == {"x"}


def test_the_next_list_has_its_own_context(executor: Executor, tmp_path: Path) -> None:
    for offset in (1, 2):
        context = Context(executor_jobs.build, (offset, str(tmp_path)))
        assert dict(executor.run(executor_jobs.shifted_square, range(3), context=context)) == {
            n: n * n + offset for n in range(3)}
    assert list(executor.run(executor_jobs.square, [])) == []


def test_a_jobs_error_reaches_the_caller_and_the_executor_goes_on(executor: Executor) -> None:
    with pytest.raises(UserError, match=r"^job -1: negative$"):
        list(executor.run(executor_jobs.square, [1, -1, 2]))
    assert dict(executor.run(executor_jobs.square, range(5))) == {n: n * n for n in range(5)}


def test_a_fault_names_its_utterance(executor: Executor) -> None:
    with pytest.raises(UserError, match=r"^utterance 0: ZeroDivisionError: .*executor_jobs\.py, line \d+"):
        list(executor.run(executor_jobs.divide_all, [[1, 2], [3, 0, 4]]))


def test_a_fault_outside_an_utterance_names_its_job(executor: Executor) -> None:
    with pytest.raises(UserError, match=r"^the number 7: TypeError"):
        list(executor.run(executor_jobs.divide_all, [7], name=lambda job: f"the number {job}"))


def test_leaving_early_leaves_nothing_behind(executor: Executor) -> None:
    for value, (squared, _) in executor.run(executor_jobs.slow_square, range(100)):
        assert squared == value * value
        break
    assert dict(executor.run(executor_jobs.square, range(5))) == {n: n * n for n in range(5)}


def test_lists_of_two_folders_take_turns_in_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients of one scheduler: a relative path must never lead into the other's folder."""
    cluster = pytest.importorskip("asr_distill.executor.cluster", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)  # put back afterwards
    task = Task(executor_jobs.folder_and_threads, None, 1).pickled()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(cluster._LISTS, name, cluster._List(name, task, str(tmp_path / name), [], []))
    try:
        for name in "aabaab":
            assert cluster._carry_out(name, pickle.dumps(0)).result == (str(tmp_path / name), 1)
    finally:
        cluster._OPEN.clear()


def test_workers_are_where_the_caller_is_with_threads_as_told(executor: Executor) -> None:
    for threads in (1, 2):
        for _, found in executor.run(executor_jobs.folder_and_threads, range(4), threads=threads):
            assert found == (os.getcwd(), threads)


@pytest.mark.slow
def test_a_killed_workers_jobs_are_done_again(several: Executor) -> None:
    done, killed = {}, 0
    for value, (squared, pid) in several.run(executor_jobs.slow_square, range(16)):
        done[value] = squared
        assert pid != os.getpid()
        if not killed:
            killed = pid
            os.kill(pid, signal.SIGKILL)
    assert done == {n: n * n for n in range(16)}


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_named() -> None:
    several = local_executor(2)
    with several, pytest.raises(UserError, match=r"^number 3: 3 workers or more were killed at it"):
        list(several.run(executor_jobs.die_at_three, range(6), name=lambda value: f"number {value}"))


def test_none_is_none() -> None:
    assert open_executor(ExecutorSettings()) is None


def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(UserError, match=r"none\.json: no such file; give tcp://"):
        open_executor(ExecutorSettings("dask", 0, str(tmp_path / "none.json")))


@pytest.mark.parametrize(("scheduler", "message"), [
    ("empty.json", r"empty\.json: holds no scheduler's address"), ("list.json", "holds no scheduler's address"),
    ("text.json", r"text\.json: not valid JSON"), ("tls://127.0.0.1:9", "wants certificates.*distributed.comm.tls"),
    ("what://x:1", "unknown address scheme"), ("tcp://host", "missing port number"),
    ("tcp://127.0.0.1:9", "no Dask scheduler answers there")])
def test_a_wrong_scheduler_is_one_line(scheduler: str, message: str, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from asr_distill.executor import cluster
    monkeypatch.setattr(cluster, "_CONNECT", 1.0)
    for name, text in (("empty", "{}"), ("list", "[1]"), ("text", "no json")):
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_executor(ExecutorSettings("dask", 0, scheduler if "://" in scheduler else str(tmp_path / scheduler)))


@pytest.mark.slow
def test_a_scheduler_that_ends_is_one_line_soon(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common],
                                 **quiet)
    wait_for(lambda: file.is_file() and file.stat().st_size > 0)
    worker = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", "1", "--nthreads",
                               "1", *common], **quiet)
    try:
        executor = open_executor(ExecutorSettings("dask", 1, str(file)))
        assert executor is not None and executor.elsewhere
        with executor, pytest.raises(UserError, match=r"^job \d+: lost by Dask .*Finished work is kept$"):
            for number, _ in enumerate(executor.run(executor_jobs.slow_square, range(200))):
                if number == 2:
                    scheduler.kill()
                    killed = time.monotonic()
        assert time.monotonic() - killed < 45  # asking it once more would take a minute
    finally:
        worker.terminate()
        scheduler.kill()
        worker.wait()
        scheduler.wait()


def test_workers_that_cannot_take_a_list_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from asr_distill.executor.cluster import DaskCluster

    class Client:
        status = "closed"

        def register_plugin(self, plugin: object, name: str) -> None:
            raise ModuleNotFoundError("No module named 'asr_distill'")

        def close(self) -> None:
            pass

    executor = DaskCluster(1)
    executor.__dict__["_client"] = Client()
    with executor, pytest.raises(UserError, match=r"cannot take a list of jobs .No module named 'asr_distill'"):
        list(executor.run(executor_jobs.square, [1]))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="workers must be"):
        ExecutorSettings("processes", -1)
    with pytest.raises(ValueError, match="a scheduler is of use"):
        ExecutorSettings("processes", 2, "tcp://x:1")
