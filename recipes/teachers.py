"""The ensemble's trainings: one after the other in this process, or each a job of the executor.

Teachers of a group share shape, input and alignment; a group that realigns waits for those before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.config import DataConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.acoustic.precision import settled
from asr_distill.acoustic.spread import hidden_alignment
from asr_distill.acoustic.targets import HardTargets
from asr_distill.executor import Context
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment, align_store
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang
from asr_distill.recipe import StageRun
from recipes.at_once import train_all
from recipes.common import data_for, load_teachers, network_store, normalisation
from recipes.settings import TeacherGroup


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One training: a job."""

    name: str
    group: str
    seed: int
    alignment: Path


class Trainings:
    """What all of them need; the frames of one group are in memory at a time."""

    def __init__(self, store: FrameStore, groups: Mapping[str, TeacherGroup], config: DataConfig, hidden: float,
                 out: Path, device: torch.device):
        self.out = out
        self._store, self._groups, self._config, self._hidden = store, groups, config, hidden
        self._device = device
        self._loaded: tuple[str, TrainingData, Cmvn] | None = None

    def train(self, teacher: Teacher) -> dict[str, Any]:
        """Its figures; it is kept in `out`/name. One that is there already is not trained again."""
        group = self._groups[teacher.group]
        data, cmvn = self._data(teacher)
        return {"group": teacher.group} | fit(
            data, HardTargets(data.pdf_ids), cmvn, group.network, group.trainer, seed=teacher.seed,
            out=self.out / teacher.name, label=f"{teacher.name} ({teacher.group})")

    def _data(self, teacher: Teacher) -> tuple[TrainingData, Cmvn]:
        if self._loaded is None or self._loaded[0] != teacher.group:
            self._loaded = None  # freed before the next is made
            group = self._groups[teacher.group]
            alignment = hidden_alignment(Alignment.load(teacher.alignment), self._store, self._hidden)
            cmvn = normalisation(self._store, group.stream, group.cmvn)
            data = data_for(self._store, alignment, cmvn, group.network, group.trainer, self._config, self._device)
            self._loaded = teacher.group, data, cmvn
        return self._loaded[1:]


def train_teachers(run: StageRun) -> dict[str, dict[str, Any]]:
    """All groups of run.settings.teachers; figures by name: teacher1 and so on."""
    store, settings = network_store(run), run.settings
    alignment = run.input("align") / store.directory.name
    figures: dict[str, dict[str, Any]] = {}
    waiting: list[Teacher] = []
    for name, group in settings.teachers.groups.items():
        if group.realign:
            figures |= _train(run, store, waiting)
            waiting = []
            alignment = _realigned(run, store, name)
        begin = len(figures) + len(waiting) + 1
        waiting += [Teacher(f"teacher{number}", name, seed, alignment)
                    for number, seed in enumerate(group.seeds, begin)]
    return figures | _train(run, store, waiting)


def _train(run: StageRun, store: FrameStore, teachers: list[Teacher]) -> dict[str, dict[str, Any]]:
    groups = {name: dataclasses.replace(group, trainer=settled(group.trainer, run.device, run.out))
              for name, group in run.settings.teachers.groups.items()}
    arguments = (store, groups, run.settings.data, run.settings.transfer.hidden, run.out, run.device)
    return train_all(run.executor, Context(Trainings, arguments), teachers, run.out, "teachers",
                     lambda teacher: _amount(groups[teacher.group], store))


def _amount(group: TeacherGroup, store: FrameStore) -> float:
    """Of a training: parameters, but for the output layer's, times frames."""
    trainer = group.trainer
    frames = trainer.max_updates * trainer.batch if trainer.max_updates else trainer.epochs * store.num_frames
    return num_parameters(build_network(group.network, store.num_coefficients, 1)) * frames


def _realigned(run: StageRun, store: FrameStore, group: str) -> Path:
    """The training frames aligned by the teachers that are there so far, for the next group; kept in `run.out`."""
    out = run.out / f"alignment_{group}"
    if not (out / "alignment.json").is_file():
        ensemble = Ensemble(load_teachers(run.out, run.device))
        align_store(ensemble, store, HmmModel.load(run.input("align")), Lang(run.input("pronunciations")),
                    run.settings.align.search, run.device, f"realigning for {group}", executor=run.executor).save(out)
    return out
