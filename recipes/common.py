"""What the speech recipes' stages share: splits and the list of systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.precision import choose_precision
from asr_distill.decode.decoder import SearchConfig
from asr_distill.features.cmvn import Cmvn, CmvnKind
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.recipe import StageRun
from asr_distill.report.evaluation import Candidate, EvaluationConfig, Split
from asr_distill.report.results import Role
from local.resources import TRAIN, TUNE
from recipes.settings import DecodeSettings


def stores_of(run: StageRun) -> dict[str, FrameStore]:
    """The frame store of every split."""
    return {split: FrameStore(run.input("features") / split) for split in run.figures("features")}


def tuning_store(run: StageRun) -> FrameStore:
    return FrameStore(run.input("features") / TUNE)


def test_splits(run: StageRun) -> dict[str, Split]:
    """Reported splits with their alignments."""
    return {split: Split(store, Alignment.load(run.input("mono") / split))
            for split, store in stores_of(run).items() if split not in (TRAIN, TUNE)}


def training_data(run: StageRun, cmvn: CmvnKind, trainer: TrainerConfig) -> tuple[TrainingData, Cmvn]:
    """Normalised training frames with their pdf-ids, in the precision of the training, and the normalisation."""
    store = FrameStore(run.input("features") / TRAIN)
    form = Cmvn(cmvn, store.total_stats)
    precision = choose_precision(trainer.precision, run.device)
    return TrainingData.build(store, Alignment.load(run.input("mono") / TRAIN), form, run.settings.data, run.device,
                              precision.dtype), form


def load_teachers(directory: Path, device: torch.device) -> list[AcousticModel]:
    return [AcousticModel.load(path, device) for path in sorted(directory.glob("teacher*"), key=_number)]


def _number(path: Path) -> int:
    return int(path.name.removeprefix("teacher"))


def model_bytes(directory: Path) -> int:
    """Size of a network's weights on disk."""
    return (directory / "weights.safetensors").stat().st_size


def evaluation_config(settings: DecodeSettings, *, search: SearchConfig | None = None) -> EvaluationConfig:
    """How systems are decoded; with `search` given nothing is tuned."""
    return EvaluationConfig(search or settings.search, None if search else settings.tune, settings.workers)


def systems_of(run: StageRun) -> Iterator[Candidate]:
    """The systems that settings.decode.systems names, weakest first."""
    wanted, device = run.settings.decode.systems, run.device
    teachers, students, mono = run.input("teachers"), run.input("student"), run.input("mono")
    trained = run.figures("teachers")
    if "gmm" in wanted:
        yield Candidate("mono", "gmm", lambda: DiagGmm.load(mono, device), run.figures("mono")["parameters"],
                        (mono / "gmm.safetensors").stat().st_size)
    if "baseline" in wanted:
        yield _network("baseline", "baseline", students / "baseline", run.figures("student")["baseline"], device)
    if "teachers" in wanted:
        for number, (name, figures) in enumerate(trained.items(), 1):
            yield _network(name, "teacher", teachers / name, figures, device, like="teacher1",
                           decoded=number <= (run.settings.decode.teachers or len(trained)))
    if "ensemble" in wanted:
        mean = run.settings.distill.store.mean
        yield Candidate("ensemble", "ensemble", lambda: Ensemble(load_teachers(teachers, device), mean),
                        sum(figures["parameters"] for figures in trained.values()),
                        sum(model_bytes(teachers / name) for name in trained))
    if "student" in wanted:
        yield _network("student", "student", students / "student", run.figures("student")["student"], device)


def _network(name: str, role: Role, directory: Path, figures: dict, device: torch.device, *, like: str = "",
             decoded: bool = True) -> Candidate:
    return Candidate(name, role, lambda: AcousticModel.load(directory, device), figures["parameters"],
                     model_bytes(directory), like, decoded)
