"""What the speech recipes' stages share: splits, what networks train on, and the list of systems."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.precision import choose_precision, settled
from asr_distill.acoustic.spread import hidden_alignment
from asr_distill.acoustic.targets import Targets
from asr_distill.decode.decoder import SearchConfig
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnKind, Stream
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.sat import SatModel
from asr_distill.k2fsa import k2_module, use_k2
from asr_distill.lang.build import SMALL
from asr_distill.recipe import StageRun
from asr_distill.report.evaluation import Candidate, EvaluationConfig, Split, evaluate_all
from asr_distill.report.rescoring import Rescoring
from asr_distill.report.results import Role
from asr_distill.stage import Needs
from local.resources import TRAIN, TUNE
from recipes.settings import DecodeSettings

NETWORK_TRAIN = "train_sp"  # the training split at all speeds, where it is perturbed
RUNGS = ("mono", "tri1", "tri2b", "tri3b")
EVALUATION = ["features", "lang", "align", "large_lm", "graph", "adapt"]  # stages that every decoding reads
FINAL = "tri3b"  # the rung whose senones the networks learn


def decoder_is_there(settings: Any, device: torch.device) -> None:
    """Raises UserError where decode.backend=k2 and k2 is missing: hours before it is wanted (`needs` of a stage)."""
    use_k2(settings.decode.backend, device)


def aligner_is_there(*place: str) -> Needs:
    """The same of the AlignConfig at that place of the settings."""
    def check(settings: Any, _: torch.device) -> None:
        if functools.reduce(getattr, place, settings).backend == "k2":
            k2_module()
    return check


def stores_of(run: StageRun) -> dict[str, FrameStore]:
    """The frame store of every split."""
    return {split: FrameStore(run.input("features") / split) for split in run.figures("features")}


def split_figures(run: StageRun) -> dict[str, dict[str, Any]]:
    """What every split holds, and how well the language models know its words."""
    small, large = run.figures("lang")["splits"], run.figures("large_lm").get("splits", {})
    return {split: facts | small[split] | ({"large_perplexity": large[split]["perplexity"]} if large else {})
            for split, facts in run.figures("corpus").items()}


def training_split(run: StageRun) -> str:
    """The split that networks train on."""
    return NETWORK_TRAIN if NETWORK_TRAIN in run.figures("features") else TRAIN


def network_store(run: StageRun) -> FrameStore:
    """What networks train on, with its adapted frames. Needs the stages features and align."""
    name = training_split(run)
    return FrameStore(run.input("features") / name, run.input("align") / name / "adapted")


def network_alignment(run: StageRun, store: FrameStore) -> Alignment:
    """The senones of that store's frames."""
    return Alignment.load(run.input("align") / store.directory.name)


def decoding_stores(run: StageRun) -> dict[str, FrameStore]:
    """Tuning and reported splits, with adapted frames where the stage adapt made them."""
    adapted = run.figures("adapt")
    return {split: FrameStore(run.input("features") / split,
                              run.input("adapt") / split / "adapted" if split in adapted else None)
            for split in run.figures("features") if split not in (TRAIN, NETWORK_TRAIN)}


def reported_splits(run: StageRun) -> dict[str, Split]:
    """Reported splits with their alignments."""
    return {split: Split(store, Alignment.load(run.input("align") / split))
            for split, store in decoding_stores(run).items() if split != TUNE}


def normalisation(store: FrameStore, stream: Stream, cmvn: CmvnKind) -> Cmvn:
    """The form of CMVN for a network of this input, trained on this store."""
    if stream == "adapted":
        assert store.adapted is not None
        return Cmvn("global", store.adapted.stats, stream="adapted")
    return Cmvn(cmvn, store.total_stats)


def training_data(run: StageRun, store: FrameStore, alignment: Alignment, cmvn: Cmvn, network: NetworkConfig,
                  trainer: TrainerConfig, fraction: float = 1.0, *, unaligned: bool = False) -> TrainingData:
    """What `data_for` gives with the run's settings. `fraction`: of the utterances that settings.data leaves to be
    trained on."""
    config = run.settings.data
    config = dataclasses.replace(config, train_fraction=config.train_fraction * fraction)
    return data_for(store, alignment, cmvn, network, trainer, config, run.device, unaligned=unaligned)


def data_for(store: FrameStore, alignment: Alignment, cmvn: Cmvn, network: NetworkConfig, trainer: TrainerConfig,
             config: DataConfig, device: torch.device, *, unaligned: bool = False) -> TrainingData:
    """Normalised training frames with their pdf-ids, in the precision of the training, with the network's context.

    `unaligned`: see TrainingData.build.
    """
    shape = build_network(network, cmvn.dimension, alignment.num_pdfs)
    precision = choose_precision(trainer.precision, device)
    return TrainingData.build(store, alignment, cmvn, config, device, precision.dtype,
                              left=shape.left, right=shape.right, unaligned=unaligned)


def small_network(run: StageRun, name: str, targets: Callable[[TrainingData], Targets], *,
                  store: FrameStore | None = None, hidden: float = 0.0, unaligned: bool = False) -> dict:
    """The student's shape and trainer on these targets: the student or its baseline, in `run.out`/name.

    `store`: what it hears (default: what the teachers do). `hidden`: share of the training utterances that count as
    untranscribed. `unaligned`: it is trained on untranscribed utterances too.
    """
    settings, known = run.settings.student, network_store(run)
    heard = known if store is None else store
    alignment = hidden_alignment(network_alignment(run, known), known, hidden)
    cmvn, trainer = normalisation(heard, "raw", settings.cmvn), settled(settings.trainer, run.device, run.out)
    data = training_data(run, heard, alignment, cmvn, settings.network, trainer, settings.train_fraction,
                         unaligned=unaligned)
    return {name: fit(data, targets(data), cmvn, settings.network, trainer, seed=settings.seed,
                      out=run.out / name, label=name)}


def load_teachers(directory: Path, device: torch.device) -> list[AcousticModel]:
    return [AcousticModel.load(path, device) for path in sorted(directory.glob("teacher*"), key=_number)]


def load_ensemble(run: StageRun) -> Ensemble:
    """The teachers that the student learns from (settings.distill.store.teachers or .chosen) as one model."""
    store, names = run.settings.distill.store, teacher_names(run)
    if store.weights and len(store.weights) != len(names):
        raise UserError(f"distill.store.weights: {len(store.weights)} weights for {len(names)} teachers")
    teachers = [AcousticModel.load(run.input("teachers") / name, run.device) for name in names]
    return Ensemble(teachers, store.mean, store.weights)


def teacher_names(run: StageRun) -> list[str]:
    """Of the teachers that the student learns from, in their order. Raises UserError where there is none such."""
    store, trained = run.settings.distill.store, len(run.figures("teachers"))
    numbers = store.chosen or range(1, (store.teachers or trained) + 1)
    if missing := [number for number in numbers if number > trained]:
        raise UserError(f"distill.store asks for teacher {missing[0]}, but {trained} were trained")
    return [f"teacher{number}" for number in numbers]


def _number(path: Path) -> int:
    return int(path.name.removeprefix("teacher"))


def model_bytes(directory: Path) -> int:
    """Size of a network's weights on disk."""
    return (directory / "weights.safetensors").stat().st_size


def evaluation_config(run: StageRun, *, search: SearchConfig | None = None,
                      rescoring: Rescoring | None = None) -> EvaluationConfig:
    """How systems are decoded; with `search` given nothing is tuned."""
    settings: DecodeSettings = run.settings.decode
    return EvaluationConfig(search or settings.search, None if search else settings.tune, settings.workers, rescoring,
                            run.executor, settings.backend)


def rescoring_of(run: StageRun) -> Rescoring | None:
    """The second pass with the large language model, where there is one."""
    if not run.figures("large_lm"):
        return None
    settings = run.settings.decode.rescore
    return Rescoring(run.input("lang") / SMALL, run.input("large_lm"), settings.paths, settings.grid)


def evaluate(run: StageRun, candidates: Iterable[Candidate],
             more: Mapping[str, Split] | None = None) -> dict[str, dict[str, Any]]:
    """Tune, decode, rescore and score over the final graph (or a candidate's own); on `more` splits too."""
    splits = reported_splits(run) | dict(more or {})
    return evaluate_all(candidates, run.input("graph") / FINAL, decoding_stores(run)[TUNE], splits,
                        evaluation_config(run, rescoring=rescoring_of(run)), run.out, run.device)


def gmm_systems(run: StageRun) -> Iterator[Candidate]:
    """The rungs that settings.decode.systems names, lowest first."""
    for rung in RUNGS:
        if rung in run.settings.decode.systems:
            yield _gmm(run, rung)


def baseline_system(run: StageRun) -> Iterator[Candidate]:
    """The student's shape on hard targets."""
    if "baseline" in run.settings.decode.systems:
        yield _network(run, "baseline", "baseline", run.input("baseline"), run.figures("baseline")["baseline"])


def teacher_systems(run: StageRun) -> Iterator[Candidate]:
    """Every teacher; the first of a group has its search tuned, and that serves the others of the group."""
    settings, trained = run.settings.decode, run.figures("teachers")
    first: dict[str, str] = {}
    for number, (name, figures) in enumerate(trained.items(), 1):
        like = first.setdefault(figures["group"], name)
        if "teachers" in settings.systems:
            yield _network(run, name, "teacher", run.input("teachers"), figures, like="" if like == name else like,
                           decoded=number <= (settings.teachers or len(trained)))


def ensemble_system(run: StageRun) -> Iterator[Candidate]:
    """The teachers that the student learns from, as one."""
    if "ensemble" in run.settings.decode.systems:
        trained = run.figures("teachers")
        names = teacher_names(run)
        yield Candidate("ensemble", "ensemble", lambda: load_ensemble(run),
                        sum(trained[name]["parameters"] for name in names),
                        sum(model_bytes(run.input("teachers") / name) for name in names),
                        decoded=run.settings.decode.words)


def student_system(run: StageRun) -> Iterator[Candidate]:
    """The student."""
    yield _network(run, "student", "student", run.input("student"), run.figures("student")["student"])


def _gmm(run: StageRun, rung: str) -> Candidate:
    directory, device = run.input(rung), run.device
    parameters, graph = run.figures(rung)["parameters"], run.input("graph") / rung
    if rung == FINAL:
        return Candidate(rung, "gmm", lambda: SatModel.load(directory, device).adapted, parameters,
                         (directory / "adapted" / "gmm.safetensors").stat().st_size, graph=graph)
    return Candidate(rung, "gmm", lambda: DiagGmm.load(directory, device), parameters,
                     (directory / "gmm.safetensors").stat().st_size, graph=graph)


def _network(run: StageRun, name: str, role: Role, stage: Path, figures: dict, *, like: str = "",
             decoded: bool = True) -> Candidate:
    directory = stage / name
    return Candidate(name, role, lambda: AcousticModel.load(directory, run.device), figures["parameters"],
                     model_bytes(directory), like, decoded and run.settings.decode.words)
