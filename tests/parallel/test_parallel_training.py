"""Trainings by two processes against the same by one; a process killed, an interrupt, other numbers on going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from parallel_cases import CASES, train_case

from asr_distill.acoustic.checkpoint import read_tensors
from asr_distill.acoustic.targets import HardTargets

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("parallel_cases.py")
SECONDS = 600  # far more than a busy machine needs
# An interrupt that the shell had taken away from its background jobs would not reach them.
LAUNCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from asr_distill.parallel.launch import launch
sys.exit(launch(sys.argv[1:], 2))
"""
FIGURES = ("train_loss", "heldout_accuracy", "heldout_cross_entropy", "learning_rate")


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process and, whatever the test comes to, its end; its members end with it."""
    process = subprocess.Popen(command, env=environment(), text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    with started(command) as process:
        out, error = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def launched(*arguments: object) -> list[str]:
    return [sys.executable, "-c", LAUNCH, str(PROGRAM), *map(str, arguments)]


def curve(folder: Path) -> np.ndarray:
    """(evaluations, FIGURES)."""
    history = json.loads((folder / "history.json").read_text())
    return np.array([[entry[name] for name in FIGURES] for entry in history])


def weights(folder: Path) -> torch.Tensor:
    tensors, _ = read_tensors(folder / "best.safetensors", torch.device("cpu"))
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def update_of(folder: Path) -> int:
    return read_tensors(folder / "checkpoint.safetensors", torch.device("cpu"))[1]["state"]["update"]


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def members(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of rank 0 and 1: children in the order of their start."""
    return sorted(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def gone(process_ids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{one}").exists() for one in process_ids):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, trained by one process: this one."""
    folder = tmp_path_factory.mktemp("alone")
    for name in CASES:
        train_case(name, folder)
    return folder


def test_two_processes_have_the_curve_of_one(alone: Path, tmp_path: Path) -> None:
    done = finish(launched(tmp_path, *CASES))
    assert done.returncode == 0, done.stderr
    for name, case in CASES.items():
        one, two = curve(alone / name), curve(tmp_path / name)
        assert one.shape == two.shape and len(one) == case.trainer.max_updates // case.trainer.evaluate_updates
        assert np.abs(one - two).max() < 1e-4, name
        assert one[-1, 0] < one[0, 0] - 0.003, name  # something was learnt
        assert torch.allclose(weights(alone / name), weights(tmp_path / name), rtol=0, atol=1e-3), name
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "checkpoint.safetensors", "best.safetensors", "history.json"}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc (Linux)")
def test_a_killed_process_stops_all_and_the_run_goes_on_alone(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    with started(launched(tmp_path, "frames", "--slow", 0.05)) as process:
        wait_for_checkpoint(folder, process)
        first, second = members(process)
        os.kill(second, signal.SIGKILL)
        error = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    update = update_of(folder)
    (line,) = [line for line in error.splitlines() if line.startswith("asr-distill: error:")]
    assert line == ("asr-distill: error: process 2 of 2 was killed (out of memory?); run the same command again, it "
                    f"goes on at update {update} of frames")
    assert "Traceback" not in error
    assert gone([first, second])
    assert 0 < update < CASES["frames"].trainer.max_updates
    train_case("frames", tmp_path)  # by one process
    assert np.abs(curve(folder) - curve(alone / "frames")).max() < 1e-4


class Interrupted(Exception):
    pass


def test_a_run_of_one_process_goes_on_with_two(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = HardTargets.loss, []

    def loss(self: HardTargets, *arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 48:
            raise Interrupted
        return plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(HardTargets, "loss", loss)
        with pytest.raises(Interrupted):
            train_case("chunks", tmp_path)
    assert update_of(tmp_path / "chunks") == 45
    done = finish(launched(tmp_path, "chunks"))
    assert done.returncode == 0, done.stderr
    assert np.abs(curve(tmp_path / "chunks") - curve(alone / "chunks")).max() < 1e-4


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc (Linux)")
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_nothing_is_left_of_an_interrupted_or_killed_launcher(how: str, tmp_path: Path) -> None:
    with started(launched(tmp_path, "frames", "--slow", 0.05)) as process:
        wait_for_checkpoint(tmp_path / "frames", process)
        both = members(process)
        process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        error = process.communicate(timeout=SECONDS)[1]
    assert len(both) == 2 and gone(both)
    if how == "interrupt":
        assert process.returncode == 130
        assert error.count("asr-distill: error: interrupted") == 1 and "Traceback" not in error


RECIPE = '''"""A serial stage, a training, a serial stage."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, {here!r})
from parallel_cases import train_case

from asr_distill.recipe import Recipe, StageRun, stage


@dataclass(frozen=True)
class Settings:
    updates: int = 40


@stage(settings=["updates"])
def before(run: StageRun) -> dict:
    """Notes who makes it."""
    (run.out / os.environ.get("RANK", "0")).touch()
    return {{}}


@stage(reads=["before"], settings=["updates"], resumable=True)
def training(run: StageRun) -> dict:
    """Trains."""
    result = train_case("frames", run.out, run.settings.updates)
    return {{"updates": result.updates, "accuracy": result.accuracy}}


@stage(reads=["training"], settings=["updates"])
def after(run: StageRun) -> dict:
    """Trains again: a second call."""
    (run.out / os.environ.get("RANK", "0")).touch()
    return {{"updates": train_case("chunks", run.out, 5).updates}}


recipe = Recipe("toy", Settings, Path({conf!r}), [before, training, after])
'''


@pytest.mark.parametrize("how", ["torchrun", "processes"])
def test_a_recipes_trainings(how: str, alone: Path, tmp_path: Path) -> None:
    conf, script, exp = tmp_path / "toy.yaml", tmp_path / "toy" / "run.py", tmp_path / "exp"
    conf.write_text("updates: 40\n")
    script.parent.mkdir()
    script.write_text(RECIPE.format(here=str(PROGRAM.parent), conf=str(conf)))
    run = ["-m", "asr_distill.cli", "run", str(script), "--exp-dir", str(exp), "--device", "cpu"]
    if how == "torchrun":
        done = finish([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *run])
    else:
        done = finish([sys.executable, *run, "--processes", "2"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stage 01 before: Notes who makes it.") == 1
    for stage in ("01_before", "03_after"):
        assert (exp / stage / "0").exists() and not (exp / stage / "1").exists()
    assert json.loads((exp / "03_after" / "stage.json").read_text())["figures"] == {"updates": 5}
    # the same first updates; the rate of the schedule `newbob` does not depend on how many there are to be
    assert np.abs(curve(exp / "02_training" / "frames") - curve(alone / "frames")[:2]).max() < 1e-4
