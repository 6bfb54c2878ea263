"""The loop of every rung of the ladder: EM on an alignment, growth, realignment (Kaldi's steps/train_*.sh)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from asr_distill.hmm.align import Alignment
from asr_distill.hmm.aligner import AlignConfig
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
from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.training_set import TrainingSet
from asr_distill.lang.lang import Lang
from asr_distill.progress import Progress


@dataclass(frozen=True)
class EmConfig:
    """Kaldi's train_deltas.sh: names in brackets."""

    iterations: int = 35  # [num_iters]
    gaussians: int = 10000  # [totgauss]
    growth_iterations: int = 25  # [max_iter_inc]
    realign: tuple[int, ...] = (10, 20, 30)
    power: float = 0.25  # of the occupancy, in dealing out components
    seed: int = 0
    align: AlignConfig = field(default_factory=lambda: AlignConfig(silence_boost=1.25))
    update: UpdateConfig = field(default_factory=UpdateConfig)

    def __post_init__(self) -> None:
        if min(self.iterations, self.gaussians, self.growth_iterations) < 1:
            raise ValueError("iterations, gaussians and growth_iterations must be at least 1")


class FeatureSpace(Protocol):
    """The features (frames, D) under the transforms that training has estimated so far."""

    def features(self, state: TrainingState) -> torch.Tensor:
        """From the state alone: also what a resumed run begins with."""

    def adjust(self, state: TrainingState, features: torch.Tensor) -> tuple[TrainingState, torch.Tensor]:
        """Re-estimate the transforms where this iteration is due to; mixtures then fit the new features."""

    def log_determinant(self, state: TrainingState) -> float:
        """log |det| of the transforms, a frame: the likelihood of the features before them has it as a factor."""


class FixedSpace:
    """Features that training leaves as they are."""

    def __init__(self, features: torch.Tensor):
        self._features = features

    def features(self, state: TrainingState) -> torch.Tensor:
        return self._features

    def adjust(self, state: TrainingState, features: torch.Tensor) -> tuple[TrainingState, torch.Tensor]:
        return state, features

    def log_determinant(self, state: TrainingState) -> float:
        return 0.0


@dataclass(frozen=True)
class Trained:
    """What a rung ends with."""

    hmm: HmmModel  # with transition probabilities
    state: TrainingState
    features: torch.Tensor  # (frames, D): of the training set, under the final transforms


def train_gmm(data: TrainingSet, hmm: HmmModel, start: Alignment, space: FeatureSpace, config: EmConfig, work: Path,
              lang: Lang, device: torch.device, label: str, *, first_occupancy: float | None = None) -> Trained:
    """Train from a first alignment; the state after each iteration is kept in `work`.

    The same call after a kill goes on from there, to the same result. `first_occupancy`: a component needs so many
    frames in the first step (None: as in the others).
    """
    digest = data.digest(dataclasses.asdict(config), lang, start)
    state = load_state(work, digest, device)
    if state is None:
        state = TrainingState(0, global_mixtures(torch.zeros(1, 1, device=device), hmm.num_pdfs), start, [])
        features = space.features(state)
        options = config.update if first_occupancy is None else dataclasses.replace(
            config.update, min_occupancy=min(first_occupancy, config.update.min_occupancy))
        state = _estimate(dataclasses.replace(state, mixtures=global_mixtures(features, hmm.num_pdfs)), features,
                          space.log_determinant(state), config, options)
        save_state(work, digest, state)
    else:
        features = space.features(state)
    with Progress(label, config.iterations - 1, "iterations", done=state.iteration) as progress:
        for iteration in range(state.iteration + 1, config.iterations):
            state = dataclasses.replace(state, iteration=iteration)
            if iteration in config.realign:
                aligned = data.align(state.mixtures, features, data.transitions(hmm, state.labels), config.align,
                                     device)
                state = dataclasses.replace(state, labels=aligned)
            state, features = space.adjust(state, features)
            state = _estimate(state, features, space.log_determinant(state), config, config.update)
            save_state(work, digest, state)
            progress.update(1, f"log-likelihood {state.log_likelihoods[-1]:.3f} a frame, "
                               f"{len(state.mixtures.weights)} Gaussians")
    return Trained(data.transitions(hmm, state.labels), state, features)


def _estimate(state: TrainingState, features: torch.Tensor, log_determinant: float, config: EmConfig,
              options: UpdateConfig) -> TrainingState:
    """One EM step on the state's alignment, and the growth that this iteration is due."""
    stats = accumulate(state.mixtures, features, pdf_tensor(state.labels, features.device))
    mixtures = update(state.mixtures, stats, options)
    # From one Gaussian a pdf in equal steps to the full number (train_*.sh: numgauss += incgauss).
    grown = min(state.iteration, config.growth_iterations) / config.growth_iterations
    total = round(mixtures.num_pdfs + max(config.gaussians - mixtures.num_pdfs, 0) * grown)
    targets = split_targets(pdf_occupancies(state.mixtures, stats), mixtures.counts, total, power=config.power)
    mixtures = split(mixtures, targets, seed=config.seed + state.iteration)
    log_likelihood = stats.log_likelihood / stats.frames + log_determinant
    return dataclasses.replace(state, mixtures=mixtures, log_likelihoods=[*state.log_likelihoods, log_likelihood])


def pdf_tensor(labels: Alignment, device: torch.device) -> torch.Tensor:
    """int64 (frames,)."""
    return torch.from_numpy(labels.pdf_ids.astype(np.int64)).to(device)


def with_means(mixtures: Mixtures, matrix: np.ndarray) -> Mixtures:
    """Means moved into the space of `matrix` (D, D) (Kaldi's gmm-transform-means); variances wait for the next step."""
    transform = torch.as_tensor(matrix, dtype=torch.float32, device=mixtures.device)
    return dataclasses.replace(mixtures, means=mixtures.means @ transform.T)
