"""The command line: what is chosen reaches the stages, changes no result, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import alive, wait_for

from asr_distill.executor import ExecutorSettings
from asr_distill.recipe import Recipe, StageRun, stage
from asr_distill.recipe_command import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    executor: ExecutorSettings = ExecutorSettings()


@stage()
def which(run: StageRun) -> dict:
    """Whose workers?"""
    return {"executor": type(run.executor).__name__, "workers": run.executor.workers if run.executor else None}


def _run(folder: Path, *arguments: str) -> int:
    (folder / "conf.yaml").write_text("{}")
    recipe = Recipe("toy", Settings, folder / "conf.yaml", [which])
    return main(recipe, ["--exp-dir", str(folder / "exp"), "--device", "cpu", *arguments])


def _figures(folder: Path) -> str:
    return (folder / "exp" / "01_which" / "stage.json").read_text()


@pytest.mark.parametrize(("arguments", "kind", "workers"), [
    ([], "NoneType", "null"), (["--executor", "serial"], "Serial", "1"),
    (["--executor", "processes", "--workers", "3"], "Processes", "3"),
    (["--set", "executor.kind=processes", "--set", "executor.workers=5"], "Processes", "5"),
    (["--set", "executor.kind=processes", "--set", "executor.workers=5", "--workers", "2"], "Processes", "2"),
    (["--set", "executor.kind=dask", "--set", "executor.scheduler=/none.json", "--executor", "serial"], "Serial", "1")])
def test_stages_get_what_was_asked_for(tmp_path: Path, arguments: list[str], kind: str, workers: str) -> None:
    assert _run(tmp_path, *arguments) == 0
    assert f'"executor": "{kind}"' in _figures(tmp_path) and f'"workers": {workers}' in _figures(tmp_path)
    before = _figures(tmp_path)
    assert _run(tmp_path) == 0 and _figures(tmp_path) == before  # another executor is no reason to run again


@pytest.mark.parametrize(("arguments", "message"), [
    (["--workers", "2"], "--workers: of which executor?"),
    (["--executor", "serial", "--workers", "-1"], "workers must be at least 0"),
    (["--executor", "processes", "--scheduler", "tcp://x:1"], "of use to the executor dask alone")])
def test_wrong_choices_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
                                    message: str) -> None:
    assert _run(tmp_path, *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("asr-distill: error: ") and message in error


def test_one_gpu_by_number_is_not_for_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    monkeypatch.setattr("asr_distill.recipe_command.device_of", torch.device)
    (tmp_path / "conf.yaml").write_text("{}")
    recipe = Recipe("toy", Settings, tmp_path / "conf.yaml", [which])
    assert main(recipe, ["--exp-dir", str(tmp_path / "exp"), "--device", "cuda:1", "--executor", "processes"]) == 1
    assert "use --device cuda, and CUDA_VISIBLE_DEVICES" in capsys.readouterr().err


SCRIPT = """
import signal, sys
from dataclasses import dataclass
from pathlib import Path
import executor_jobs
from asr_distill.recipe import Recipe, stage
from asr_distill.recipe_command import main

@dataclass(frozen=True)
class Settings:
    pass

@stage()
def long(run):
    '''A list that nobody waits for.'''
    for number, (_, pid) in run.executor.run(executor_jobs.slow_square, range(10_000)):
        Path(sys.argv[-1], str(pid)).touch()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this process inherited
    folder = Path(sys.argv[-1]).parent
    sys.exit(main(Recipe("long", Settings, folder / "conf.yaml", [long]), sys.argv[1:-1]))
"""


@pytest.mark.slow
def test_ctrl_c_ends_all_workers(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("{}")
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, str(script), "--exp-dir", str(tmp_path / "exp"), "--device", "cpu", "--executor", "processes",
         "--workers", "2", str(pids)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    try:
        wait_for(lambda: len(list(pids.iterdir())) == 2 or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        error = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "interrupted; finished work is kept" in error and "Traceback" not in error
    wait_for(lambda: not any(alive(int(path.name)) for path in pids.iterdir()))
