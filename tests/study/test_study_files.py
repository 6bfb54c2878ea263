"""Every study file of the repository: its settings hold, its points are planned, its parts are shared."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest

from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.config import load_settings
from asr_distill.recipe_command import load_recipe
from asr_distill.study.command import listing
from asr_distill.study.config import StudyConfig
from asr_distill.study.grid import Study, read_study
from asr_distill.study.plan import PlannedPoint, make_plan
from recipes.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "conf/study").glob("*.yaml"))


@functools.cache
def planned(name: str) -> tuple[Study, list[PlannedPoint]]:
    file = ROOT / "conf/study" / f"{name}.yaml"
    config = load_settings(StudyConfig, [file])
    study = read_study(file, load_recipe(config.recipe), config)
    return study, make_plan(study, None, Path("stages"))


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Study files name settings files as seen from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_every_study_can_be_planned(name: str) -> None:
    study, points = planned(name)
    assert study.config.about
    assert len(points) == len(study.points) > 1
    assert len({point.label for point in points}) == len(points)
    assert f"{study.name}: {len(points)} points" in listing(study, points)


def stages(points: list[PlannedPoint]) -> Counter[str]:
    """How many of each stage all points together make."""
    return Counter(node.stage.name for node in {node.directory: node for point in points
                                                for node in point.pending}.values())


def test_what_the_points_of_a_study_share() -> None:
    made = stages(planned("transfer")[1])  # 3 ways to hear x 3 seeds; teachers hear the clean audio in all of them
    assert (made["teachers"], made["soft_targets"], made["decode_ensemble"]) == (1, 1, 1)
    assert (made["transfer"], made["noisy_test"], made["baseline"], made["student"]) == (2, 1, 9, 9)
    made = stages(planned("untranscribed")[1])  # the baseline is trained on what is transcribed
    assert (made["teachers"], made["soft_targets"], made["baseline"], made["student"]) == (1, 1, 3, 6)
    made = stages(planned("shapes")[1])
    assert (made["teachers"], made["soft_targets"], made["decode_ensemble"]) == (1, 3, 3)
    assert (made["baseline"], made["student"]) == (3, 9)
    made = stages(planned("temperature")[1])
    assert (made["soft_targets"], made["baseline"], made["decode_ensemble"]) == (4, 3, 1)
    made = stages(planned("paper")[1])
    assert (made["teachers"], made["soft_targets"], made["baseline"], made["student"]) == (1, 4, 3, 12)


def test_the_papers_teachers_are_what_the_student_is() -> None:
    settings = planned("paper")[1][0].point.settings
    group, student = settings.teachers.groups["equal"], settings.student
    assert list(settings.teachers.groups) == ["equal"] and len(group.seeds) == 10
    assert (group.network, group.trainer, group.cmvn) == (student.network, student.trainer, student.cmvn)
    assert num_parameters(build_network(student.network, settings.features.num_mel_bins, 2114)) <= 1.2e6
    assert not settings.large_lm.wanted


def test_the_streaming_student_is_small_and_hears_93_ms_ahead() -> None:
    settings = load_settings(Settings, [ROOT / "conf/mini_librispeech.yaml", ROOT / "conf/streaming_student.yaml"])
    network = build_network(settings.student.network, settings.features.num_mel_bins, 2114)
    assert num_parameters(network) <= 1.2e6
    shift, length = settings.features.frame_shift_ms, settings.features.frame_length_ms
    assert network.right * shift + length / 2 == 92.5  # from the middle of a frame to the last sample that decides it
    assert settings.student.cmvn == "online"
    points = {point.point.axes["look_ahead"]: point.point.settings.student for point in planned("streaming")[1]}
    assert points["93 ms"].network == settings.student.network
    small = load_settings(Settings, [ROOT / "conf/mini_librispeech.yaml", ROOT / "conf/small_student.yaml"]).student
    assert points["253 ms"].network == small.network and points["253 ms"].trainer == small.trainer
    assert settings.student.trainer == small.trainer
