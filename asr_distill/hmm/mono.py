"""Monophone GMM training from a flat start (the schedule of Kaldi's train_mono.sh)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import report_failed
from asr_distill.hmm.aligner import AlignConfig, Aligner
from asr_distill.hmm.checkpoint import TrainingState, load_state, save_state
from asr_distill.hmm.em import (
    UpdateConfig,
    accumulate,
    global_mixtures,
    pdf_occupancies,
    split,
    split_targets,
    update,
)
from asr_distill.hmm.flat_start import equal_alignment
from asr_distill.hmm.frontend import Frontend, FrontendConfig
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.graph import GraphCompiler, UtteranceGraph
from asr_distill.hmm.model import DEFAULT_STATES, HmmModel, monophone_model
from asr_distill.hmm.threads import one_thread
from asr_distill.hmm.transitions import estimate_transitions
from asr_distill.lang.lang import SILENCE_PHONE, Lang
from asr_distill.progress import Progress


@dataclass(frozen=True)
class MonoConfig:
    """Kaldi's train_mono.sh: names in brackets."""

    utterances: int = 500  # the shortest ones (mini_librispeech: utils/subset_data_dir.sh --shortest); 0: all
    iterations: int = 40  # [num_iters]
    gaussians: int = 1000  # [totgauss]
    growth_iterations: int = 30  # [max_iter_inc]
    realign: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 23, 26, 29, 32, 35, 38)
    power: float = 0.25  # of the occupancy, in dealing out components
    states: int = DEFAULT_STATES  # emitting states of every phone
    share_stress: bool = True  # phones that differ in stress only share their pdfs
    seed: int = 0
    align: AlignConfig = field(default_factory=lambda: AlignConfig(silence_boost=1.25))
    update: UpdateConfig = field(default_factory=UpdateConfig)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)

    def __post_init__(self) -> None:
        if self.utterances < 0 or min(self.iterations, self.gaussians, self.growth_iterations, self.states) < 1:
            raise ValueError("iterations, gaussians, growth_iterations and states must be at least 1")


@dataclass
class _Data:
    """What training looks at: some utterances, their graphs and features, laid end to end."""

    indices: list[int]  # in the store
    graphs: list[UtteranceGraph]
    lengths: list[int]
    features: torch.Tensor  # (frames, D) on the device
    failed: list[str]  # ids left out: too few frames for their words

    def __post_init__(self) -> None:
        self.begins = np.concatenate([[0], np.cumsum(self.lengths)])  # first frame of each utterance
        self.first_states = np.cumsum([0, *map(len, self.graphs)])
        self.pdf, self.phone, self.state = (
            np.concatenate([getattr(graph, name) for graph in self.graphs]) for name in ("pdf", "phone", "state"))

    def flat_start(self) -> np.ndarray:
        """int64 (frames,): state of each frame, in the graphs laid end to end."""
        return np.concatenate([equal_alignment(graph, length) + first for graph, length, first
                               in zip(self.graphs, self.lengths, self.first_states, strict=False)])


def train_mono(store: FrameStore, lang: Lang, config: MonoConfig, work: Path, device: torch.device, *,
               label: str = "mono") -> tuple[HmmModel, DiagGmm, dict[str, Any]]:
    """Train on the store's shortest utterances; the state after each iteration is kept in `work`.

    The same call after a kill goes on from there, to the same result. Figures: utterances, frames, gaussians,
    log_likelihood_per_frame of every iteration, silence_share, failed (ids left out), seconds.
    Raises UserError where no utterance can be aligned.
    """
    started = time.monotonic()
    hmm = monophone_model(lang.phones, states=config.states, share_stress=config.share_stress)
    frontend = Frontend(config.frontend, Cmvn("speaker", store.total_stats))
    data = _select(store, GraphCompiler(hmm, lang), frontend, config.utterances, device, label)
    digest = _digest(config, lang, store, data)
    state = load_state(work, digest, device)
    if state is None:
        first = dataclasses.replace(config.update, min_occupancy=min(3.0, config.update.min_occupancy))
        state = _estimate(data, TrainingState(0, global_mixtures(data.features, hmm.num_pdfs), data.flat_start(), []),
                          config, first)
        save_state(work, digest, state)
    with Progress(label, config.iterations - 1, "iterations", done=state.iteration) as progress:
        for iteration in range(state.iteration + 1, config.iterations):
            paths = state.paths
            if iteration in config.realign:
                paths = _realign(data, state, _transitions(hmm, data, paths), config, device)
            state = _estimate(data, dataclasses.replace(state, iteration=iteration, paths=paths), config,
                              config.update)
            save_state(work, digest, state)
            progress.update(1, f"log-likelihood {state.log_likelihoods[-1]:.3f} a frame, "
                               f"{len(state.mixtures.weights)} Gaussians")
    silence = data.phone[state.paths] == lang.phones.index(SILENCE_PHONE) + 1
    figures = {
        "utterances": len(data.indices), "frames": len(data.features), "gaussians": len(state.mixtures.weights),
        "pdfs": hmm.num_pdfs, "log_likelihood_per_frame": state.log_likelihoods,
        "silence_share": float(silence.mean()), "failed": data.failed, "seconds": time.monotonic() - started}
    return _transitions(hmm, data, state.paths), DiagGmm(state.mixtures, frontend), figures


def _select(store: FrameStore, compiler: GraphCompiler, frontend: Frontend, count: int, device: torch.device,
            label: str) -> _Data:
    """The `count` shortest utterances with words (0: all), without those too short for their words."""
    lengths = np.diff(store.offsets)
    order = [i for i in np.argsort(lengths, kind="stable").tolist() if store.utterances[i].words]
    indices, graphs, failed = [], [], []
    for index in order[: count or None]:
        graph = compiler.compile(store.utterances[index].words)
        if graph.shortest() <= lengths[index]:
            indices.append(index)
            graphs.append(graph)
        else:
            failed.append(store.utterances[index].id)
    if not indices and not failed:
        raise UserError(f"{label}: no utterance of {store.directory} has a transcript")
    report_failed(label, failed, len(indices) + len(failed))
    features = torch.cat([frontend(store.features(index, device)) for index in indices])
    return _Data(indices, graphs, lengths[indices].tolist(), features, failed)


def _estimate(data: _Data, state: TrainingState, config: MonoConfig, options: UpdateConfig) -> TrainingState:
    """One EM step on the state's paths, and the growth that this iteration is due."""
    pdfs = torch.from_numpy(data.pdf[state.paths].astype(np.int64)).to(data.features.device)
    with one_thread():
        stats = accumulate(state.mixtures, data.features, pdfs)
    mixtures = update(state.mixtures, stats, options)
    # From one Gaussian a pdf in equal steps to the full number (train_mono.sh: numgauss += incgauss).
    grown = min(state.iteration, config.growth_iterations) / config.growth_iterations
    total = round(mixtures.num_pdfs + max(config.gaussians - mixtures.num_pdfs, 0) * grown)
    targets = split_targets(pdf_occupancies(state.mixtures, stats), mixtures.counts, total, power=config.power)
    mixtures = split(mixtures, targets, seed=config.seed + state.iteration)
    return dataclasses.replace(state, mixtures=mixtures,
                               log_likelihoods=[*state.log_likelihoods, stats.log_likelihood / stats.frames])


def _realign(data: _Data, state: TrainingState, hmm: HmmModel, config: MonoConfig,
             device: torch.device) -> np.ndarray:
    def score(at: int, pdfs: np.ndarray) -> torch.Tensor:
        return state.mixtures.score(data.features[int(data.begins[at]) : int(data.begins[at + 1])], pdfs)

    paths = np.empty(len(data.features), np.int64)
    for at, path in Aligner(hmm, config.align, device).align(data.graphs, data.lengths, score):
        if path is not None:  # always: _select left out what does not fit
            paths[data.begins[at] : data.begins[at + 1]] = path.states + data.first_states[at]
    return paths


def _transitions(hmm: HmmModel, data: _Data, paths: np.ndarray) -> HmmModel:
    """Transition probabilities counted on the paths: no state occurs twice, so an equal one next is a self-loop."""
    stays = np.append(paths[1:] == paths[:-1], False)
    return estimate_transitions(hmm, data.phone[paths], data.state[paths], data.pdf[paths], stays)


def _digest(config: MonoConfig, lang: Lang, store: FrameStore, data: _Data) -> str:
    """Stands for all that the result depends on: settings, utterances, pronunciations, features."""
    digest = hashlib.sha256(json.dumps([dataclasses.asdict(config), lang.phones,
                                        [store.utterances[i].id for i in data.indices], data.lengths]).encode())
    digest.update(data.pdf.tobytes())
    for index in data.indices:
        digest.update(store.frames[store.offsets[index] : store.offsets[index + 1]].tobytes())
    return digest.hexdigest()
