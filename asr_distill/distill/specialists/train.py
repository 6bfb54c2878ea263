"""Specialists from a generalist, one after the other, with the trainer of all networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.specialists.clusters import ClusterResult
from asr_distill.distill.specialists.config import Dustbin
from asr_distill.distill.specialists.mix import SpecialistTargets, specialist_mix
from asr_distill.distill.specialists.specialist import (
    SPECIALIST,
    Facts,
    Specialist,
    initial_weights,
)
from asr_distill.errors import UserError


def train_specialists(generalist: AcousticModel, clusters: ClusterResult, data: TrainingData, trainer: TrainerConfig,
                      special_share: float, *, seed: int, out: Path,
                      dustbin: Dustbin = "sum") -> dict[str, dict[str, Any]]:
    """Train one specialist for each set, in `out`/specialist1 and so on; returns the figures of each.

    All start from `generalist` (of an ensemble: one of its models) and hear what it hears: `data` must be normalised
    with its CMVN. `special_share`: of each one's training frames that are of its set. A specialist that is complete is
    not trained again; an interrupted one goes on from its checkpoint. Raises UserError where generalist, sets and data
    do not belong together, or `out` holds specialists of other sets.
    """
    if not generalist.num_pdfs == clusters.num_pdfs == data.num_pdfs:
        raise UserError(f"{out}: generalist, sets and training data are of {generalist.num_pdfs}, {clusters.num_pdfs} "
                        f"and {data.num_pdfs} senones: make all three with one tree")
    figures = {}
    for number, senones in enumerate(clusters.sets, 1):
        directory = out / f"specialist{number}"
        mix = specialist_mix(data, senones, special_share, seed + number)
        facts = Facts(senones, mix.correction, dustbin, generalist.num_pdfs if dustbin == "sum" else 0)
        if not (directory / SPECIALIST).is_file():
            facts.write(directory)
        elif Facts.read(directory) != facts:
            raise UserError(f"{directory}: holds a specialist of another set or mix: delete it, or train elsewhere")
        trained = fit(mix.data, SpecialistTargets(mix.data.pdf_ids), generalist.cmvn, generalist.config, trainer,
                      seed=seed + number, out=directory,
                      label=f"specialist {number}/{len(clusters.sets)} ({len(senones)} senones)",
                      initial=initial_weights(generalist, facts), change=facts.change())
        figures[directory.name] = trained | {
            "senones": len(senones), "special_frames": mix.special, "rest_frames": mix.rest,
            "correction": mix.correction}
    return figures


def load_specialists(directory: Path, device: torch.device) -> list[Specialist]:
    """All of a directory of `train_specialists`, in order. Raises UserError where there is none, or one is damaged."""
    found = sorted(directory.glob("specialist*/"), key=lambda path: int(path.name.removeprefix("specialist")))
    if not found:
        raise UserError(f"{directory}: no specialists: train them first")
    return [Specialist.load(path, device) for path in found]
