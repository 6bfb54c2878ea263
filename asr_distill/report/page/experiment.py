"""What an experiment folder holds that its page can show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.errors import UserError
from asr_distill.files import read_json
from asr_distill.report.collect import Evaluated, reliability_of
from asr_distill.report.results import Results, Role

RESULTS = "RESULTS.json"
STAGES = "[0-9][0-9]_*"


@dataclass(frozen=True)
class Curve:
    """A network's training, evaluation by evaluation: accuracies in percent, cross-entropies in nats a frame."""

    name: str
    role: Role
    epochs: tuple[float, ...]
    accuracy: tuple[float, ...]  # held out
    cross_entropy: tuple[float, ...]  # held out
    train_loss: tuple[float, ...]  # mean since the evaluation before; of a student its loss on soft targets
    train_accuracy: float | None  # of the network that was kept, on frames that it was trained on


class Experiment:
    """Opens a folder that a recipe finished in. Raises UserError where it has no RESULTS.json, or a damaged one."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give an experiment's, as exp/mini_librispeech")
        if not (folder / RESULTS).is_file():
            raise UserError(f"{folder / RESULTS}: no such file; run the recipe to its stage 'report' first "
                            f"(asr-distill run RECIPE --exp-dir {folder})")
        self.results = Results.load(folder / RESULTS)

    def stage(self, name: str) -> Path | None:
        """Directory of a finished stage (the latest, where an older recipe numbered it otherwise)."""
        found = [path.parent for path in self.folder.glob(f"[0-9][0-9]_{name}/stage.json")]
        return max(found, key=lambda path: (path / "stage.json").stat().st_mtime, default=None)

    @cached_property
    def evaluated(self) -> dict[str, Evaluated]:
        """Of the systems in the results those whose decoding is here."""
        found = self._latest("system.json")
        return {system.name: Evaluated(found[system.name]) for system in self.results.systems if system.name in found}

    def curves(self) -> list[Curve]:
        """Training of the systems in the results that is here."""
        found = self._latest("training.json")
        return [_curve(system.name, system.role, read_json(found[system.name] / "training.json"))
                for system in self.results.systems if system.name in found]

    def reliability(self) -> dict[str, tuple[Role, ReliabilityBins]]:
        """Calibration by system, where it was measured."""
        return reliability_of(list(self.evaluated.values()))

    def _latest(self, file: str) -> dict[str, Path]:
        """Name -> directory of that name inside a stage, the latest one that holds the file."""
        paths = sorted(self.folder.glob(f"{STAGES}/*/{file}"), key=lambda path: path.stat().st_mtime)
        return {path.parent.name: path.parent for path in paths if not path.parts[-3].endswith((".partial", ".old"))}


def _curve(name: str, role: Role, record: dict[str, Any]) -> Curve:
    wanted = ("epoch", "heldout_accuracy", "heldout_cross_entropy", "train_loss")
    rows = [tuple(float(entry[key]) for key in wanted) for entry in record.get("history", ())
            if all(_is_number(entry.get(key)) for key in wanted)]
    epochs, accuracy, entropy, loss = zip(*rows, strict=True) if rows else ((), (), (), ())
    own = record.get("train_accuracy")
    return Curve(name, role, epochs, tuple(100 * value for value in accuracy), entropy, loss,
                 100 * own if _is_number(own) else None)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)
