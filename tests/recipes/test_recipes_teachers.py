"""The ensemble's trainings as jobs of an executor: the same networks, a lost worker's goes on, a failure is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from acoustic_stand_ins import synthetic
from executor_killing import Killing

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.errors import UserError
from asr_distill.executor import Executor, Threads, local_executor
from asr_distill.executor.serial import Serial
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json
from asr_distill.hmm.threads import one_thread
from recipes import teachers
from recipes.at_once import LOG
from recipes.settings import Settings, TeacherGroup, TeacherSettings
from recipes.teachers import train_teachers

CPU = torch.device("cpu")
TRAINER = TrainerConfig(batch=64, max_updates=30, evaluate_updates=10, warmup_updates=2, learning_rate=3e-3,
                        tensorboard=False)
GROUPS = {"wide": TeacherGroup(seeds=(1, 2), network=NetworkConfig(layers=1, width=24, left=1, right=1),
                               trainer=TRAINER),
          "deep": TeacherGroup(seeds=(3,), cmvn="global", trainer=replace(TRAINER, chunk=10),
                               network=NetworkConfig(kind="tdnn", layers=2, width=16))}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage's run on synthetic speech; `with_executor` gives it another folder and executor."""
    store, alignment, _ = synthetic(directory=tmp_path / "train")
    alignment.save(tmp_path / "align" / "train")
    settings = replace(Settings(), teachers=TeacherSettings(GROUPS), data=DataConfig(heldout_fraction=0.2))
    monkeypatch.setattr(teachers, "network_store", lambda _: FrameStore(store.directory))

    def with_executor(name: str, executor: Executor | None, **changes: Any) -> Any:
        (tmp_path / name).mkdir()
        return SimpleNamespace(settings=replace(settings, **changes), out=tmp_path / name, executor=executor,
                               device=CPU, input=lambda stage: tmp_path / stage)

    return with_executor


def weights(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("teacher*/weights.safetensors")}


def lasting(figures: dict[str, dict[str, Any]]) -> Any:
    """What does not depend on the clock."""
    return {name: {key: value for key, value in found.items() if key not in ("seconds", "frames_per_second", "history")}
            for name, found in figures.items()}


def test_workers_train_what_this_process_would(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # a thread for each of two workers
    with one_thread():
        alone = run("alone", None)
        expected = train_teachers(alone)
    assert list(expected) == ["teacher1", "teacher2", "teacher3"] and expected["teacher3"]["group"] == "deep"
    with local_executor(2) as executor:
        shared = run("shared", executor)
        found = train_teachers(shared)
        assert list(found) == list(expected) and lasting(found) == lasting(expected)
        assert weights(shared.out) == weights(alone.out)
        assert "update 30/30" in (shared.out / "teacher3" / LOG).read_text()
        assert train_teachers(shared) == found  # what is there is not trained again


def test_the_longest_training_begins_first(run: Any) -> None:
    given: list[str] = []

    class Noting(Serial):
        workers = 2

        def run(self, function: Any, jobs: Any, **more: Any) -> Iterator[tuple[Any, Any]]:
            given.extend(job.name for job in jobs)
            return super().run(function, jobs, **more)

    groups = GROUPS | {"long": replace(GROUPS["wide"], seeds=(4,), trainer=replace(TRAINER, max_updates=60))}
    found = train_teachers(run("ordered", Noting(), teachers=TeacherSettings(groups)))
    assert sorted(given[:2]) == ["teacher3", "teacher4"] and list(found) == [f"teacher{n}" for n in (1, 2, 3, 4)]


@pytest.mark.slow
def test_a_killed_workers_teacher_is_trained_by_another(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    groups = {"wide": replace(GROUPS["wide"], seeds=(1, 2, 3, 4), trainer=replace(
        TRAINER, max_updates=400, checkpoint_updates=20))}
    changes = {"teachers": TeacherSettings(groups)}
    with one_thread():
        alone = run("alone", None, **changes)
        expected = train_teachers(alone)
    with local_executor(2) as inner:
        killing = Killing(inner)
        shared = run("shared", killing, **changes)
        found = train_teachers(shared)
    assert len(killing.killed) == 1 and lasting(found) == lasting(expected)
    assert weights(shared.out) == weights(alone.out)


def test_a_training_that_fails_is_one_line_that_names_it(run: Any) -> None:
    broken = {"wide": replace(GROUPS["wide"], trainer=replace(TRAINER, learning_rate=1e30, precision="float32"))}
    with local_executor(2) as executor, pytest.raises(UserError, match=r"^teacher[12] \(wide\): the loss is .*lower"):
        train_teachers(run("broken", executor, teachers=TeacherSettings(broken)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_one_worker_or_threads_are_this_process(run: Any, workers: int) -> None:
    one = run("one", Threads(workers) if workers else None)
    assert list(train_teachers(one)) == ["teacher1", "teacher2", "teacher3"]
    assert not (one.out / "teacher1" / LOG).exists()
    assert read_json(one.out / "teacher2" / "training.json")["seed"] == 2


def test_a_group_that_realigns_waits_for_those_before_it(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    groups = GROUPS | {"again": replace(GROUPS["wide"], seeds=(5, 6), realign=True)}
    asked: list[tuple[str, list[str]]] = []

    def realigned(run: Any, store: FrameStore, group: str) -> Path:
        asked.append((group, sorted(path.parent.name for path in run.out.glob("teacher*/training.json"))))
        return run.input("align") / "train"

    monkeypatch.setattr(teachers, "_realigned", realigned)
    with local_executor(2) as executor:
        found = train_teachers(run("waves", executor, teachers=TeacherSettings(groups)))
    assert asked == [("again", ["teacher1", "teacher2", "teacher3"])]
    assert [found[f"teacher{number}"]["seed"] for number in range(1, 6)] == [1, 2, 3, 5, 6]
