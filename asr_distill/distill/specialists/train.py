"""Specialists from a generalist, each by itself (paper, section 5.3), with the trainer of all networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.distill.specialists.clusters import ClusterResult, SenoneSet
from asr_distill.distill.specialists.config import Dustbin
from asr_distill.distill.specialists.mix import SpecialistTargets, specialist_mix
from asr_distill.distill.specialists.specialist import (
    SPECIALIST,
    Facts,
    Specialist,
    initial_weights,
)
from asr_distill.errors import UserError


class SpecialistTrainings:
    """What the specialists of one list of sets have in common; each is trained by itself.

    All start from `generalist` (of an ensemble: one of its models) and hear what it hears: `data` must be normalised
    with its CMVN. `special_share`: of each one's training frames that are of its set. Raises UserError where
    generalist, sets and data do not belong together.
    """

    def __init__(self, generalist: AcousticModel, clusters: ClusterResult, data: TrainingData, trainer: TrainerConfig,
                 special_share: float, *, seed: int, out: Path, dustbin: Dustbin = "sum"):
        if not generalist.num_pdfs == clusters.num_pdfs == data.num_pdfs:
            raise UserError(f"{out}: generalist, sets and training data are of {generalist.num_pdfs}, "
                            f"{clusters.num_pdfs} and {data.num_pdfs} senones: make all three with one tree")
        self.out = out
        self._generalist, self._data, self._trainer, self._count = generalist, data, trainer, len(clusters.sets)
        self._share, self._seed, self._dustbin = special_share, seed, dustbin

    def train(self, of: SenoneSet) -> dict[str, Any]:
        """The figures of one, kept in `out`/name. One that is complete is not trained again; an interrupted one goes on
        from its checkpoint. Raises UserError where `out` holds one of another set."""
        directory, seed = self.out / of.name, self._seed + of.number
        mix = specialist_mix(self._data, of.senones, self._share, seed)
        facts = Facts(of.senones, mix.correction, self._dustbin,
                      self._generalist.num_pdfs if self._dustbin == "sum" else 0)
        if not (directory / SPECIALIST).is_file():
            facts.write(directory)
        elif Facts.read(directory) != facts:
            raise UserError(f"{directory}: holds a specialist of another set or mix: delete it, or train elsewhere")
        trained = fit(mix.data, SpecialistTargets(mix.data.pdf_ids), self._generalist.cmvn, self._generalist.config,
                      self._trainer, seed=seed, out=directory,
                      label=f"specialist {of.number}/{self._count} ({len(of.senones)} senones)",
                      initial=initial_weights(self._generalist, facts), change=facts.change())
        return trained | {"senones": len(of.senones), "special_frames": mix.special, "rest_frames": mix.rest,
                          "correction": mix.correction}


def load_specialists(directory: Path, device: torch.device) -> list[Specialist]:
    """All of a folder of `SpecialistTrainings`, in order. Raises UserError where there is none, or one is damaged."""
    found = sorted(directory.glob("specialist*/"), key=lambda path: int(path.name.removeprefix("specialist")))
    if not found:
        raise UserError(f"{directory}: no specialists: train them first")
    return [Specialist.load(path, device) for path in found]
