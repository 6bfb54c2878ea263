"""The specialists' stages that are off, their settings, and the settings files and the study that come with them."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.config import load_settings
from asr_distill.distill.specialists.clusters import CLUSTERS, ClusterResult
from asr_distill.errors import UserError
from asr_distill.executor import local_executor
from asr_distill.hmm.threads import one_thread
from asr_distill.recipe_command import load_recipe
from asr_distill.stage import StageRun
from asr_distill.study.config import StudyConfig
from asr_distill.study.grid import read_study
from recipes import specialist_trainings
from recipes.at_once import LOG
from recipes.settings import Settings, SpecialistSettings
from recipes.specialist_trainings import train_specialists
from recipes.specialists import STAGES

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "specialists.yaml"


@pytest.mark.parametrize("item", STAGES, ids=lambda item: item.name)
def test_a_stage_that_is_off_does_nothing_and_says_so(item: object, tmp_path: Path,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    """No input is read: there is none."""
    run = StageRun(item, tmp_path, Settings(), torch.device("cpu"), {}, "toy", 0.0, None)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "asr_distill"):
        assert item.function(run) == {}  # type: ignore[attr-defined]
    assert "nothing to do: specialists.enabled is off" in caplog.text and not list(tmp_path.iterdir())


def test_the_student_is_asked_for_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(Settings, [CONF])
    assert settings.specialists.enabled
    for item in STAGES:
        if item.name in ("specialist_targets", "specialist_student"):
            run = StageRun(item, tmp_path, settings, torch.device("cpu"), {}, "toy", 0.0, None)
            with caplog.at_level(logging.INFO, "asr_distill"):
                assert item.function(run) == {}
    assert caplog.text.count("specialists.student is off") == 2


def test_they_come_last_in_every_speech_recipe() -> None:
    for name in ("mini_librispeech", "librispeech", "demo"):
        names = [item.name for item in load_recipe(name).stages]
        assert names[-len(STAGES) - 1:] == ["report", *(item.name for item in STAGES)]


def test_the_search_among_settings_of_use_changes_no_specialist() -> None:
    """Who is asked when is no reason to train again; what they are trained on is."""
    declared = {item.name: item.settings for item in STAGES}
    assert "specialists.active_top" not in declared["specialists"] and "specialists.sets" in declared["clusters"]
    assert "specialists.active_top" in declared["coverage"] and "specialists.dustbin" in declared["specialists"]


def test_the_study_file() -> None:
    file = ROOT / "conf" / "study" / "specialists.yaml"
    config = load_settings(StudyConfig, [file])
    study = read_study(file, load_recipe(config.recipe), config, conf=[CONF])
    counts = {point.label: point.settings.specialists.sets for point in study.points}
    assert [sets.specialists for sets in counts.values()] == [20, 20, 20, 40]
    assert all(point.settings.specialists.enabled for point in study.points)
    assert [point.settings.specialists.dustbin for point in study.points] == ["sum", "unit", "sum", "sum"]
    assert study.stages == ("specialist_report",)


@pytest.mark.parametrize("wrong", ["generalist=0", "special_share=1.5", "sets.specialists=0", "control=none"])
def test_wrong_settings(wrong: str) -> None:
    with pytest.raises(UserError, match=wrong.split("=")[0].rpartition(".")[2]):
        load_settings(Settings, [], [f"specialists.{wrong}"])


def test_workers_train_what_this_process_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, alignment, cmvn = synthetic(directory=tmp_path / "train")
    alignment.save(tmp_path / "aligned")
    shape = NetworkConfig(layers=1, width=12, left=1, right=1)
    network = build_network(shape, store.num_coefficients, alignment.num_pdfs).eval()
    AcousticModel(network, cmvn, torch.zeros(alignment.num_pdfs), shape).save(tmp_path / "generalist")
    sets = ClusterResult(((1, 3), (0, 2, 5), (4, 6)), alignment.num_pdfs, {})
    sets.save(tmp_path / "clusters" / CLUSTERS)
    monkeypatch.setattr(specialist_trainings, "network_store", lambda _: store)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # a thread for each of two workers
    trainer = TrainerConfig(batch=64, max_updates=20, evaluate_updates=10, warmup_updates=2, precision="float32",
                            tensorboard=False)

    def trained(name: str, executor: Any) -> tuple[dict[str, dict[str, Any]], list[bytes]]:
        out = tmp_path / name
        run: Any = SimpleNamespace(settings=Settings(specialists=SpecialistSettings(dustbin="unit")), out=out,
                                   executor=executor, device=torch.device("cpu"), input=lambda stage: tmp_path / stage)
        found = train_specialists(run, tmp_path / "generalist", tmp_path / "aligned", trainer)
        for figures in found.values():  # what depends on the clock
            for key in ("seconds", "frames_per_second", "history"):
                del figures[key]
        return found, [(out / each / "weights.safetensors").read_bytes() for each in found]

    with one_thread():
        expected = trained("alone", None)
    with local_executor(2) as executor:
        assert trained("shared", executor) == expected
    assert list(expected[0]) == ["specialist1", "specialist2", "specialist3"]
    assert expected[0]["specialist2"]["senones"] == 3
    assert "update 20/20" in (tmp_path / "shared" / "specialist3" / LOG).read_text()
