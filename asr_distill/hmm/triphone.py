"""The triphone rungs of the ladder (Kaldi's train_deltas.sh, train_lda_mllt.sh): senones from an alignment, then EM."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.adapt import frame_weights
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.checkpoint import TrainingState
from asr_distill.hmm.frontend import Frontend, FrontendConfig
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.lda import LdaStats, accumulate_lda, estimate_lda
from asr_distill.hmm.mllt import accumulate_mllt, estimate_mllt
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import gmm_figures
from asr_distill.hmm.training import EmConfig, FixedSpace, pdf_tensor, train_gmm, with_means
from asr_distill.hmm.training_set import TrainingSet, select
from asr_distill.hmm.tree_build import TreeConfig, build_tree
from asr_distill.hmm.tree_stats import accumulate_tree_stats, context_independent_phones, convert_alignment
from asr_distill.lang.lang import Lang

_LDA_UTTERANCES = 32  # whose spliced frames are in memory at once


@dataclass(frozen=True)
class TriphoneConfig(EmConfig):
    """What all triphone rungs have."""

    utterances: int = 0  # so many, spread evenly over the store; 0: all
    tree: TreeConfig = field(default_factory=TreeConfig)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.utterances < 0:
            raise ValueError("utterances must not be negative")


@dataclass(frozen=True)
class LdaConfig(TriphoneConfig):
    """train_lda_mllt.sh."""

    gaussians: int = 15000
    tree: TreeConfig = field(default_factory=lambda: TreeConfig(leaves=2500))
    frontend: FrontendConfig = field(default_factory=lambda: FrontendConfig(splice=3))
    dimension: int = 40  # [dim]
    mllt_iterations: tuple[int, ...] = (2, 4, 6, 12)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dimension <= self.frontend.dimension:
            raise ValueError(f"dimension must be within 1 and {self.frontend.dimension} (the front end's)")


@dataclass
class MlltSpace:
    """Features under MLLT, re-estimated in some iterations from speech; the state keeps the square transform."""

    base: torch.Tensor  # (frames, D): under LDA alone
    phones: tuple[str, ...]
    iterations: tuple[int, ...]

    def features(self, state: TrainingState) -> torch.Tensor:
        if state.transform is None:
            return self.base
        return self.base @ torch.as_tensor(state.transform, dtype=torch.float32, device=self.base.device).T

    def adjust(self, state: TrainingState, features: torch.Tensor) -> tuple[TrainingState, torch.Tensor]:
        if state.iteration not in self.iterations:
            return state, features
        weights = torch.from_numpy(frame_weights(state.labels, self.phones, 0.0)).to(features.device)
        step, _ = estimate_mllt(accumulate_mllt(state.mixtures, features, pdf_tensor(state.labels, features.device),
                                                weights))
        transform = step if state.transform is None else step @ state.transform
        state = dataclasses.replace(state, transform=transform, mixtures=with_means(state.mixtures, step))
        return state, self.features(state)

    def log_determinant(self, state: TrainingState) -> float:
        return 0.0 if state.transform is None else float(np.linalg.slogdet(state.transform)[1])


def train_triphone(store: FrameStore, alignment: Alignment, model: HmmModel, lang: Lang, config: TriphoneConfig,
                   work: Path, device: torch.device, *,
                   label: str = "tri1") -> tuple[HmmModel, DiagGmm, dict[str, Any]]:
    """Senones and a GMM on cepstra with deltas, from the alignment of the rung below (train_deltas.sh).

    `model`: the HMM that `alignment` (of the store) was made with. Resumable as `train_mono`. Figures as
    `gmm_figures`, with those of the tree.
    """
    started = time.monotonic()
    frontend = Frontend(config.frontend, Cmvn(config.frontend.cmvn, store.total_stats))
    data, start = training_part(store, alignment, model, lang, config, label)
    features = data.features(frontend, frontend.dimension, device)
    hmm, tree_figures = grow_tree(features, start, data, model, config.tree)
    data, start = with_tree(data, start, hmm, lang)
    trained = train_gmm(data, hmm, start, FixedSpace(features), config, work, lang, device, label)
    gmm = DiagGmm(trained.state.mixtures, frontend)
    return trained.hmm, gmm, gmm_figures(data, trained, gmm, lang) | {
        "tree": tree_figures, "seconds": time.monotonic() - started}


def train_lda(store: FrameStore, alignment: Alignment, model: HmmModel, lang: Lang, config: LdaConfig, work: Path,
              device: torch.device, *, label: str = "tri2b") -> tuple[HmmModel, DiagGmm, dict[str, Any]]:
    """Spliced cepstra projected by LDA and MLLT, senones, and a GMM on them (train_lda_mllt.sh).

    As `train_triphone`; LDA's classes are the pdfs of `alignment`, silence left out as in Kaldi.
    """
    started = time.monotonic()
    spliced = Frontend(config.frontend, Cmvn(config.frontend.cmvn, store.total_stats))
    data, start = training_part(store, alignment, model, lang, config, label)
    lda = torch.as_tensor(_estimate_lda(data, start, spliced, config.dimension, lang, device), dtype=torch.float32)
    features = data.features(spliced.projected(lda), config.dimension, device)
    hmm, tree_figures = grow_tree(features, start, data, model, config.tree)
    data, start = with_tree(data, start, hmm, lang)
    space = MlltSpace(features, model.phones, config.mllt_iterations)
    trained = train_gmm(data, hmm, start, space, config, work, lang, device, label)
    projection = lda if trained.state.transform is None else torch.as_tensor(
        trained.state.transform @ lda.double().numpy(), dtype=torch.float32)
    gmm = DiagGmm(trained.state.mixtures, spliced.projected(projection))
    return trained.hmm, gmm, gmm_figures(data, trained, gmm, lang) | {
        "tree": tree_figures, "seconds": time.monotonic() - started}


def training_part(store: FrameStore, alignment: Alignment, model: HmmModel, lang: Lang, config: TriphoneConfig,
                  label: str) -> tuple[TrainingSet, Alignment]:
    """The aligned utterances to train on, and their part of the alignment.

    Raises UserError where the alignment is of another store, or aligned nothing.
    """
    if len(alignment.pdf_ids) != store.num_frames:
        raise UserError(f"{store.directory}: has {store.num_frames} frames, the alignment {len(alignment.pdf_ids)}: "
                        "align this store")
    candidates = np.flatnonzero(alignment.aligned)
    if config.utterances and config.utterances < len(candidates):
        candidates = candidates[np.linspace(0, len(candidates) - 1, config.utterances).round().astype(int)]
    data = select(store, GraphCompiler(model, lang), candidates.tolist(), label)
    rows = np.concatenate([np.arange(store.offsets[i], store.offsets[i + 1]) for i in data.indices])
    return data, Alignment(alignment.pdf_ids[rows], alignment.phone_ids[rows], alignment.states[rows],
                           np.ones(len(data.indices), bool), alignment.num_pdfs)


def grow_tree(features: torch.Tensor, start: Alignment, data: TrainingSet, model: HmmModel,
              config: TreeConfig) -> tuple[HmmModel, dict[str, Any]]:
    """Senones for these features (frames, D) of the training set."""
    independent = context_independent_phones(model.phones, config.context_independent)
    stats = accumulate_tree_stats(features, start, data.begins, model, independent)
    tree, figures = build_tree(stats, model.phones, model.states, config)
    return HmmModel(model.phones, model.states, tree), figures


def with_tree(data: TrainingSet, start: Alignment, hmm: HmmModel, lang: Lang) -> tuple[TrainingSet, Alignment]:
    """The set's graphs over the senones of `hmm`, and the alignment in them."""
    compiler = GraphCompiler(hmm, lang)
    graphs = [compiler.compile(data.store.utterances[index].words) for index in data.indices]
    return dataclasses.replace(data, graphs=graphs), convert_alignment(start, data.begins, hmm)


def _estimate_lda(data: TrainingSet, start: Alignment, spliced: Frontend, dimension: int, lang: Lang,
                  device: torch.device) -> np.ndarray:
    """float64 (dimension, spliced dimension)."""
    silent = np.isin(start.phone_ids, list(context_independent_phones(lang.phones)))
    classes = np.where(silent, -1, start.pdf_ids.astype(np.int64))
    stats: LdaStats | None = None
    for first in range(0, len(data.indices), _LDA_UTTERANCES):
        some = range(first, min(first + _LDA_UTTERANCES, len(data.indices)))
        features = torch.cat([spliced(data.store.features(data.indices[place], device)) for place in some])
        rows = slice(int(data.begins[some.start]), int(data.begins[some.stop]))
        more = accumulate_lda(features, torch.from_numpy(classes[rows]).to(device), start.num_pdfs)
        stats = more if stats is None else stats + more
    assert stats is not None
    return estimate_lda(stats, dimension)
