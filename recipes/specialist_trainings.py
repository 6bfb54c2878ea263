"""The specialists' trainings: one after the other in this process, or each a job of the executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.config import DataConfig, TrainerConfig
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.specialists.clusters import CLUSTERS, ClusterResult
from asr_distill.distill.specialists.train import SpecialistTrainings
from asr_distill.executor import Context
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment
from asr_distill.recipe import StageRun
from recipes.at_once import train_all
from recipes.common import data_for, network_store
from recipes.settings import SpecialistSettings


def train_specialists(run: StageRun, generalist: Path, alignment: Path,
                      trainer: TrainerConfig) -> dict[str, dict[str, Any]]:
    """One specialist for each set of the stage `clusters`; figures by name: specialist1 and so on."""
    clusters = run.input("clusters") / CLUSTERS
    arguments = (generalist, clusters, network_store(run), alignment, run.settings.data, trainer,
                 run.settings.specialists, run.out, run.device)
    return train_all(run.executor, Context(_trainings, arguments), ClusterResult.load(clusters).numbered, run.out,
                     "specialists", lambda job: len(job.senones))  # large sets have most frames to train on


def _trainings(generalist: Path, clusters: Path, store: FrameStore, alignment: Path, data: DataConfig,
               trainer: TrainerConfig, settings: SpecialistSettings, out: Path,
               device: torch.device) -> SpecialistTrainings:
    model = AcousticModel.load(generalist, device)
    frames = data_for(store, Alignment.load(alignment), model.cmvn, model.config, trainer, data, device)
    return SpecialistTrainings(model, ClusterResult.load(clusters), frames, trainer, settings.special_share,
                               seed=settings.seed, out=out, dustbin=settings.dustbin)
