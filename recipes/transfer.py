"""Stages of the transfer set: audio that nobody has transcribed, and views in rooms and noise of what students hear."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet

from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.targets import Targets
from asr_distill.corpus.manifest import load_split
from asr_distill.corpus.untranscribed import prepare_untranscribed
from asr_distill.errors import UserError
from asr_distill.features.compute import compute_store
from asr_distill.features.degrade import DegradeConfig
from asr_distill.features.store import FrameStore
from asr_distill.features.views import JoinedStores, StoreViews
from asr_distill.hmm.align import Alignment
from asr_distill.logs import log
from asr_distill.recipe import StageRun, stage
from asr_distill.report.evaluation import Split
from local.resources import TRAIN, TUNE, Resources
from recipes.common import load_teachers, network_store, small_network, training_split

UNTRANSCRIBED, NOISY = "untranscribed", "_noisy"
HEARD = ["features", "align", "untranscribed", "transfer"]  # what baseline and student are trained on
HEARING = ["transfer.clean", "transfer.hidden"]  # settings that say which of it


@stage(settings=["corpus.on_error", "corpus.workers", "features", "speed", "transfer.untranscribed",
                 "transfer.max_seconds"], resumable=True)
def untranscribed(run: StageRun) -> dict:
    """Frames of the audio that transfer.untranscribed names, which nobody has transcribed."""
    settings = run.settings.transfer
    if not settings.untranscribed:
        log.info("untranscribed: nothing to do; transfer.untranscribed names no folder")
        return {}
    found = prepare_untranscribed(settings.untranscribed, run.out, UNTRANSCRIBED, max_seconds=settings.max_seconds,
                                  sample_rate=run.settings.features.sample_rate, workers=run.settings.corpus.workers,
                                  on_error=run.settings.corpus.on_error, executor=run.executor)
    cuts = load_split(run.out, UNTRANSCRIBED, settings.untranscribed)
    return {UNTRANSCRIBED: found | {"store": _compute(run, cuts, UNTRANSCRIBED, run.settings.speed.factors)}}


@stage(reads=["corpus", "features", "untranscribed"],
       settings=["corpus", "features", "speed", "transfer.untranscribed", "transfer.views", "transfer.degrade"],
       resumable=True)
def transfer(run: StageRun) -> dict:
    """Views of the training audio in rooms and noise, for students to hear, frame for frame the clean audio."""
    settings, figures = run.settings.transfer, {}
    if not settings.views:
        log.info("transfer: nothing to do; transfer.views is 0")
    for view in range(settings.views):
        degrade = dataclasses.replace(settings.degrade, seed=settings.degrade.seed + view)
        cuts = {training_split(run): load_split(run.input("corpus"), TRAIN, _root(run))}
        if run.figures("untranscribed"):
            assert settings.untranscribed is not None
            cuts[UNTRANSCRIBED] = load_split(run.input("untranscribed"), UNTRANSCRIBED, settings.untranscribed)
        figures[f"view{view + 1}"] = {
            name: _compute(run, found, f"view{view + 1}/{name}", run.settings.speed.factors, degrade)
            for name, found in cuts.items()}
    return figures


@stage(reads=["corpus"], settings=["corpus", "features", "transfer.noisy_test", "transfer.test"], resumable=True)
def noisy_test(run: StageRun) -> dict:
    """The reported splits in rooms and noise, where baseline and student are to be scored on these too."""
    settings = run.settings.transfer
    if not settings.noisy_test:
        log.info("noisy_test: nothing to do; transfer.noisy_test is false")
        return {}
    return {split + NOISY: {"of": split} | _compute(run, load_split(run.input("corpus"), split, _root(run)),
                                                    split + NOISY, (1.0,), settings.test)
            for split in run.figures("corpus") if split not in (TRAIN, TUNE)}


def clean_store(run: StageRun) -> FrameStore:
    """What teachers are asked about: the networks' training audio and, where there is any, the untranscribed."""
    store = network_store(run)
    if not run.figures("untranscribed"):
        return store
    return JoinedStores([store, FrameStore(run.input("untranscribed") / UNTRANSCRIBED)])


def heard_store(run: StageRun) -> FrameStore:
    """What baseline and student are trained on: the clean store, its noisy views, or all of them."""
    clean, views = clean_store(run), []
    for view, names in run.figures("transfer").items():
        stores = [FrameStore(run.input("transfer") / view / name) for name in names]
        views.append(JoinedStores(stores) if len(stores) > 1 else stores[0])
    if not views:
        return clean
    return StoreViews([clean, *views] if run.settings.transfer.clean else views)


def heard_network(run: StageRun, name: str, targets: Callable[[TrainingData], Targets], *,
                  unaligned: bool = False) -> dict:
    """The student's shape on what students hear. `unaligned`: on what has soft targets alone too, where it should."""
    settings = run.settings.transfer
    unaligned = unaligned and (bool(run.figures("untranscribed")) or (settings.hidden > 0 and settings.hear_hidden))
    return small_network(run, name, targets, store=heard_store(run), hidden=settings.hidden, unaligned=unaligned)


def check_streams(run: StageRun, ensemble: Ensemble) -> Ensemble:
    """Raises UserError where a teacher needs speaker-adapted frames, which untranscribed audio has not."""
    if run.figures("untranscribed") and any(_adapted(model) for model in ensemble.models):
        teachers = load_teachers(run.input("teachers"), torch.device("cpu"))
        raw = [number for number, model in enumerate(teachers, 1) if not _adapted(model)]
        mend = f"--set distill.store.chosen={raw}" if raw else "train a group of teachers on the stream raw"
        raise UserError("transfer.untranscribed: some teachers hear speaker-adapted frames, which are estimated from "
                        f"transcripts, and untranscribed audio has none; ask those that hear log-mel alone ({mend})")
    return ensemble


def noisy_splits(run: StageRun) -> dict[str, Split]:
    """The noisy copies of the reported splits, where there are any, with the alignments of the clean ones."""
    return {name: Split(FrameStore(run.input("noisy_test") / name), Alignment.load(run.input("align") / facts["of"]))
            for name, facts in run.figures("noisy_test").items()}


def noisy_data(run: StageRun, data: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the noisy copies hold: what the clean splits do."""
    return {name: data[facts["of"]] for name, facts in run.figures("noisy_test").items()}


def _adapted(model: Any) -> bool:
    return model.cmvn.stream == "adapted"


def _root(run: StageRun) -> Path:
    return Resources.load(run.input("corpus"), run.settings.corpus.dir).root


def _compute(run: StageRun, cuts: CutSet, name: str, speeds: tuple[float, ...],
             degrade: DegradeConfig | None = None) -> dict[str, Any]:
    return compute_store(cuts, run.out / name, run.settings.features, run.device, speeds=speeds, degrade=degrade,
                         workers=run.settings.corpus.workers, label=f"features of {name}", executor=run.executor)


STAGES = [untranscribed, transfer]  # before soft targets; noisy_test before decoding
