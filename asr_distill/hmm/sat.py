"""Speaker-adaptive training (Kaldi's train_sat.sh): senones and a GMM on features that fMLLR has adapted."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.features.store import FrameStore
from asr_distill.hmm.adapt import FmllrConfig, adapted, frame_weights, speaker_transform
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.checkpoint import TrainingState
from asr_distill.hmm.em import accumulate, update
from asr_distill.hmm.fmllr import compose_transforms
from asr_distill.hmm.frontend import AdaptedFrontend
from asr_distill.hmm.gmm import DiagGmm, Mixtures
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import gmm_figures
from asr_distill.hmm.training import pdf_tensor, train_gmm
from asr_distill.hmm.tree_build import TreeConfig
from asr_distill.hmm.triphone import TriphoneConfig, grow_tree, training_part, with_tree
from asr_distill.lang.lang import Lang


@dataclass(frozen=True)
class SatConfig(TriphoneConfig):
    """train_sat.sh. The front end is that of the model below."""

    gaussians: int = 15000
    tree: TreeConfig = field(default_factory=lambda: TreeConfig(leaves=2500))
    fmllr: FmllrConfig = field(default_factory=FmllrConfig)
    fmllr_iterations: tuple[int, ...] = (2, 4, 6, 12)


@dataclass(frozen=True)
class SatModel:
    """Two GMMs with the same Gaussians: one hears any speaker, the other adapted features.

    Kaldi's final.alimdl and final.mdl: the first decodes or aligns a speaker who has no transform yet.
    """

    independent: DiagGmm
    adapted: DiagGmm

    def save(self, directory: Path) -> None:
        self.independent.save(directory / "independent")
        self.adapted.save(directory / "adapted")

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> SatModel:
        """Raises UserError where a file is missing or damaged."""
        return cls(DiagGmm.load(directory / "independent", device), DiagGmm.load(directory / "adapted", device))


@dataclass
class SatSpace:
    """Features under every speaker's fMLLR, re-estimated in some iterations; the state keeps the transforms."""

    base: torch.Tensor  # (frames, D): unadapted
    speakers: dict[str, np.ndarray]  # frames of each
    phones: tuple[str, ...]
    config: SatConfig
    first: np.ndarray  # float64 (speakers, D, D + 1): transforms that training begins with

    def features(self, state: TrainingState) -> torch.Tensor:
        return adapted(self.base, self.speakers, self._by_name(state))

    def adjust(self, state: TrainingState, features: torch.Tensor) -> tuple[TrainingState, torch.Tensor]:
        if state.iteration not in self.config.fmllr_iterations:
            return state, features
        steps = transforms_of(state.mixtures, features, state.labels, self.speakers, self.phones, self.config.fmllr)
        composed = [compose_transforms(step, before)
                    for step, before in zip(steps, self._by_name(state).values(), strict=True)]
        state = dataclasses.replace(state, speakers=np.stack(composed))
        return state, self.features(state)

    def log_determinant(self, state: TrainingState) -> float:
        weighted = (len(rows) * np.linalg.slogdet(transform[:, :-1])[1]
                    for rows, transform in zip(self.speakers.values(), self._by_name(state).values(), strict=True))
        return float(sum(weighted)) / len(self.base)

    def _by_name(self, state: TrainingState) -> dict[str, np.ndarray]:
        return dict(zip(self.speakers, self.first if state.speakers is None else state.speakers, strict=True))


def train_sat(store: FrameStore, alignment: Alignment, model: HmmModel, below: DiagGmm, lang: Lang,
              config: SatConfig, work: Path, device: torch.device, *,
              label: str = "tri3b") -> tuple[HmmModel, SatModel, dict[str, Any]]:
    """Train on the alignment of the rung below; `below` is its GMM, for the first transforms and the front end.

    As `train_triphone`.
    """
    started = time.monotonic()
    data, start = training_part(store, alignment, model, lang, config, label)
    base = data.features(below.frontend, below.frontend.dimension, device)
    speakers = data.speakers()
    first = transforms_of(below.mixtures, base, start, speakers, model.phones, config.fmllr)
    features = adapted(base, speakers, dict(zip(speakers, first, strict=True)))
    hmm, tree_figures = grow_tree(features, start, data, model, config.tree)
    del features
    data, start = with_tree(data, start, hmm, lang)
    space = SatSpace(base, speakers, model.phones, config, first)
    trained = train_gmm(data, hmm, start, space, config, work, lang, device, label)
    sat = SatModel(DiagGmm(_independent(trained.state.mixtures, trained.features, base, trained.state.labels, config),
                           below.frontend),
                   DiagGmm(trained.state.mixtures, AdaptedFrontend(base.shape[1])))
    return trained.hmm, sat, gmm_figures(data, trained, sat.adapted, lang) | {
        "tree": tree_figures, "speakers": len(speakers), "seconds": time.monotonic() - started}


def transforms_of(mixtures: Mixtures, features: torch.Tensor, labels: Alignment, speakers: dict[str, np.ndarray],
                  phones: tuple[str, ...], config: FmllrConfig) -> np.ndarray:
    """Every speaker's fMLLR on an alignment: float64 (speakers, D, D + 1)."""
    weights = torch.from_numpy(frame_weights(labels, phones, config.silence_weight)).to(features.device)
    pdfs = pdf_tensor(labels, features.device)
    result = []
    for rows in speakers.values():
        index = torch.from_numpy(rows).to(features.device)
        result.append(speaker_transform(mixtures, features[index], pdfs[index], weights[index], config))
    return np.stack(result)


def _independent(mixtures: Mixtures, features: torch.Tensor, base: torch.Tensor, labels: Alignment,
                 config: SatConfig) -> Mixtures:
    """The same Gaussians re-estimated on the unadapted features (gmm-acc-stats-twofeats: Kaldi's final.alimdl)."""
    stats = accumulate(mixtures, features, pdf_tensor(labels, features.device), features_out=base)
    # None may go: the two models' Gaussians belong together.
    return update(mixtures, stats, dataclasses.replace(config.update, min_occupancy=3.0), keep_all=True)
