"""Synthetic speech whose senones come in groups of near neighbours: what a generalist confuses is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from acoustic_stand_ins import store_of

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.targets import HardTargets
from asr_distill.distill.specialists.clusters import ClusterResult
from asr_distill.distill.specialists.config import Dustbin
from asr_distill.distill.specialists.train import SpecialistTrainings
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment

CPU = torch.device("cpu")
GROUPS, SIZE = 4, 4
PDFS = GROUPS * SIZE
# groups interleave: pdf 0, 4, 8, 12 are confusable
SETS = tuple(tuple(range(group, PDFS, GROUPS)) for group in range(GROUPS))


def confusable(utterances: int, seed: int, *, frames: int = 60, coefficients: int = 6,
               noise: float = 0.5) -> tuple[FrameStore, Alignment]:
    """Group means far apart; within a group the senones lie on a ring: no line in the group's plane parts them all."""
    random = np.random.default_rng(7)
    centres = 4 * random.normal(size=(GROUPS, coefficients))
    offsets = random.normal(size=(PDFS, coefficients))
    random = np.random.default_rng(seed)
    spoken, labels = [], []
    for _ in range(utterances):
        states = np.repeat(random.integers(0, PDFS, frames), 3)[:frames]
        spoken.append(centres[states % GROUPS] + offsets[states] + noise * random.normal(size=(frames, coefficients)))
        labels.append(states)
    pdf_ids = np.concatenate(labels).astype(np.int32)
    zeros = np.zeros(len(pdf_ids), np.int16)
    return store_of(spoken), Alignment(pdf_ids, zeros, zeros.astype(np.int8), np.ones(utterances, bool), PDFS)


def training_data(store: FrameStore, alignment: Alignment, context: int = 0) -> tuple[TrainingData, Cmvn]:
    cmvn = Cmvn("global", store.total_stats)
    config = DataConfig(heldout_fraction=0.1)
    return TrainingData.build(store, alignment, cmvn, config, CPU, left=context, right=context), cmvn


def generalist(data: TrainingData, cmvn: Cmvn, out: Path, *, width: int = 6, updates: int = 300) -> AcousticModel:
    """A network too narrow to tell the senones of a group apart well."""
    trainer = TrainerConfig(batch=128, learning_rate=1e-2, warmup_updates=10, max_updates=updates, tensorboard=False,
                            precision="float32")
    network = NetworkConfig(layers=1, width=width, left=0, right=0)
    fit(data, HardTargets(data.pdf_ids), cmvn, network, trainer, seed=0, out=out, label="generalist")
    return AcousticModel.load(out, CPU)


def train_specialists(model: AcousticModel, clusters: ClusterResult, data: TrainingData, trainer: TrainerConfig, *,
                      out: Path, dustbin: Dustbin = "sum") -> dict[str, dict[str, Any]]:
    """All sets one after the other; half of each one's frames are of its set."""
    trainings = SpecialistTrainings(model, clusters, data, trainer, 0.5, seed=0, out=out, dustbin=dustbin)
    return {of.name: trainings.train(of) for of in clusters.numbered}
