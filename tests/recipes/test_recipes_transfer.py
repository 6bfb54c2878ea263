"""The stages of the transfer set on a few made utterances: what they compute, and what students are given."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from tone_corpus import write_corpus

from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.config import build
from asr_distill.corpus.librispeech import prepare
from asr_distill.errors import UserError
from asr_distill.features.degrade import DegradeConfig
from asr_distill.features.store import FrameStore
from asr_distill.features.views import JoinedStores, StoreViews
from asr_distill.files import write_json
from asr_distill.stage import Stage, StageRun, perform
from asr_distill.stage_record import gather
from local.resources import Resources
from recipes import foundation, transfer
from recipes.settings import CorpusSettings, Settings, SpeedSettings
from recipes.transfer_settings import TransferSettings

CPU = torch.device("cpu")
PLAIN = Settings(corpus=CorpusSettings(workers=1), speed=SpeedSettings((0.9, 1.0)))


class World:
    """Stages carried out in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, {"corpus": folder / "corpus"}
        self.tones = write_corpus(folder / "tones", train=16, dev=10) / "LibriSpeech"
        Resources(self.tones).save(folder / "corpus")
        figures = prepare(self.tones, {"train": "train-clean-5", "dev": "dev-clean-2"}, folder / "corpus")
        write_json(folder / "corpus/stage.json", {"figures": figures})
        self.make(foundation.features, PLAIN)

    def make(self, item: Stage, settings: Settings, name: str = "") -> Any:
        out = self.folder / (name or item.name)
        perform(item, out, gather(settings, item.settings, {}, 1), settings, CPU, self.done, recipe="toy", top=None,
                reason="a test")
        self.done[item.name] = out
        return self.run_of(item, settings).figures(item.name)

    def run_of(self, item: Stage, settings: Settings) -> StageRun:
        """As a stage that reads everything sees it."""
        everything = dataclasses.replace(item, reads=tuple(self.done), settings=tuple(vars(settings)))
        return StageRun(everything, self.folder, settings, CPU, self.done, "toy", 0.0, None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def no_adapted_frames(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "network_store", lambda run: FrameStore(run.input("features") / "train_sp"))


def settings_of(**changes: Any) -> Settings:
    return dataclasses.replace(PLAIN, transfer=TransferSettings(**changes))


def test_nothing_is_done_when_off(world: World) -> None:
    for item in (transfer.untranscribed, transfer.transfer, transfer.noisy_test):
        assert world.make(item, PLAIN, f"{item.name}0") == {}
    run = world.run_of(transfer.transfer, PLAIN)
    heard = transfer.heard_store(run)
    assert type(heard) is FrameStore and heard.directory.name == "train_sp"
    assert transfer.noisy_splits(run) == {} and transfer.noisy_data(run, {"dev": {"words": 3}}) == {}
    transfer.check_streams(run, Ensemble([SimpleNamespace(num_pdfs=2, cmvn=SimpleNamespace(stream="adapted"))]))


def test_views_in_rooms_and_noise(world: World) -> None:
    world.make(transfer.untranscribed, PLAIN, "u1")
    settings = settings_of(views=2)
    assert list(world.make(transfer.transfer, settings, "t1")) == ["view1", "view2"]
    run = world.run_of(transfer.transfer, settings)
    clean = transfer.clean_store(run)
    heard = transfer.heard_store(run)
    assert isinstance(heard, StoreViews) and len(heard.stores) == 3
    assert heard.num_frames == 3 * clean.num_frames
    assert heard.rows.tolist() == 3 * list(range(clean.num_frames))
    first, second = (store.frames for store in heard.stores[1:])
    assert not np.array_equal(first, second)  # of two seeds
    assert (first != clean.frames).any(1).mean() > 0.5
    alone = transfer.heard_store(world.run_of(transfer.transfer, settings_of(views=2, clean=False)))
    assert isinstance(alone, StoreViews)
    assert alone.num_frames == 2 * clean.num_frames
    assert alone.utterances[:len(clean.utterances)] == clean.utterances
    np.testing.assert_array_equal(alone.stores[0].frames, first)


def test_a_noisy_copy_of_the_reported_split(world: World) -> None:
    settings = settings_of(noisy_test=True)
    assert world.make(transfer.noisy_test, settings, "n1")["dev_noisy"]["of"] == "dev"
    noisy, clean = FrameStore(world.folder / "n1/dev_noisy"), FrameStore(world.folder / "features/dev")
    assert noisy.utterances == clean.utterances and noisy.offsets.tolist() == clean.offsets.tolist()
    assert (noisy.frames != clean.frames).any(1).mean() > 0.5
    run = world.run_of(transfer.noisy_test, settings)
    assert transfer.noisy_data(run, {"dev": {"words": 3}}) == {"dev_noisy": {"words": 3}}


def test_untranscribed_audio_joins_the_training_audio_in_every_view(world: World) -> None:
    settings = settings_of(untranscribed=world.tones / "dev-clean-2", max_seconds=2.0, views=1)
    figures = world.make(transfer.untranscribed, settings, "u3")["untranscribed"]
    assert figures["speakers"] == 10 and figures["store"]["utterances"] == 2 * figures["utterances"]
    world.make(transfer.transfer, settings, "t3")
    run = world.run_of(transfer.transfer, settings)
    clean, heard = transfer.clean_store(run), transfer.heard_store(run)
    assert isinstance(clean, JoinedStores) and isinstance(heard, StoreViews) and clean.head == 32
    assert heard.num_frames == 2 * clean.num_frames and heard.head == 32
    assert heard.rows.tolist() == 2 * list(range(clean.num_frames))
    assert [utterance.words == () for utterance in clean.utterances] == [
        *[False] * 32, *[True] * (len(clean.utterances) - 32)]


def test_teachers_of_adapted_frames_are_refused_for_untranscribed_audio(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, raw = (SimpleNamespace(num_pdfs=2, cmvn=SimpleNamespace(stream=stream)) for stream in ("adapted", "raw"))
    monkeypatch.setattr(transfer, "load_teachers", lambda *_: [adapted, raw, raw])
    run = SimpleNamespace(figures=lambda name: {"untranscribed": {}}, input=lambda name: world.folder)
    with pytest.raises(UserError, match=r"--set distill.store.chosen=\[2, 3\]"):
        transfer.check_streams(run, Ensemble([adapted, raw]))  # type: ignore[arg-type]
    assert len(transfer.check_streams(run, Ensemble([raw, raw])).models) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("change, message", [
    ({"views": -1}, "views must be"), ({"clean": False}, "leaves nothing to hear"), ({"hidden": 1.0}, "hidden must be"),
    ({"max_seconds": 0.5}, "max_seconds"), ({"untranscribed": ".", "hear_hidden": False}, "hear_hidden"),
    ({"views": 1, "noisy_test": True, "degrade": {"seed": 1000}}, "test.seed 1000 is a view's too"),
    ({"views": 1, "degrade": {"reverb": 0, "white": 0, "pink": 0, "brown": 0, "babble": 0}}, "all 0")])
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(TransferSettings, change)


def test_older_records_stay_valid() -> None:
    """At their defaults the new settings are no part of a stage's record."""
    for section in ("transfer", "transfer.hidden", "distill.store.chosen"):
        found = gather(Settings(), (section,), {}, 1)
        assert not found.settings and not found.files
    changed = dataclasses.replace(Settings(), transfer=TransferSettings(degrade=DegradeConfig(reverb=1.0), views=1))
    assert set(gather(changed, ("transfer",), {}, 1).settings) >= {"transfer.views", "transfer.degrade.reverb"}
