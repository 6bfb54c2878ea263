"""Finished runs as the cost model reads them: of an experiment's folder, or kept in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.config import build
from asr_distill.errors import UserError
from asr_distill.files import read_json, write_json
from asr_distill.plan.work import Data
from asr_distill.recipe import Recipe

TRAIN, TUNE = "train", "tune"  # splits that are not reported; hours of training are the first one's


@dataclass(frozen=True)
class Cost:
    """What one stage took, and the work that it was."""

    amount: float
    seconds: float
    cpus: int
    cpu_seconds: float
    peak_bytes: int
    bytes: int


@dataclass(frozen=True)
class Run:
    """One experiment: its training hours and data, the pdfs of its senone tree and how many leaves that was allowed,
    and every stage's cost."""

    name: str
    machine: str
    hours: Mapping[str, float]
    utterances: Mapping[str, int]
    pdfs: int
    leaves: int
    stages: Mapping[str, Cost]

    @property
    def train_hours(self) -> float:
        return self.hours[TRAIN]

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.stages.values())


def read_experiment(recipe: Recipe, exp: Path) -> Run:
    """The costs of a finished experiment of this recipe, stages that were resumed after a kill among them.

    (CPU seconds are then those of the last attempt.) Raises UserError where it is not finished as far as its report,
    where a stage's record is older than these figures (they came with version 0.1.0's stage.json) or does not have all
    of them, or where the recipe does not say what its work is.
    """
    work_of = work_function(recipe)
    records = {}
    for item in recipe.stages:
        path = recipe.directory(exp, item) / "stage.json"
        if path.is_file():
            records[item.name] = read_json(path)
        if item.name == "report":
            break
    if "report" not in records:
        raise UserError(f"{exp}: not finished as far as the stage 'report'; run it first: asr-distill run "
                        f"{recipe.name} --exp-dir {exp}")
    old = [name for name, record in records.items() if "peak_bytes" not in record]
    if old:
        raise UserError(f"{exp}: made before stages recorded CPU seconds, memory and bytes (stage {old[0]}); run it "
                        "again into another --exp-dir")
    if shared := [name for name, record in records.items() if not record.get("alone", True)]:
        raise UserError(f"{exp}: other processes did part of the work, and what that took was not seen (stage "
                        f"{shared[0]}); plan from runs without --processes and --scheduler")
    settings: Any = build(recipe.settings_class, _settings_tree(records.values()))
    corpus, tree = records["corpus"]["figures"], records["tri3b"]["figures"]
    data = Data({split: figures["hours"] for split, figures in corpus.items()},
                {split: figures["utterances"] for split, figures in corpus.items()}, int(tree["pdfs"]))
    work = work_of(settings, data)
    costs = {name: Cost(work[name].amount, record["seconds"], record["cpus"], record["cpu_seconds"],
                        record["peak_bytes"], record["bytes"])
             for name, record in records.items() if name in work}
    devices = {record["device"] for record in records.values()}
    machine = f"{max(cost.cpus for cost in costs.values())} cores, {', '.join(sorted(devices))}"
    return Run(exp.name, machine, data.hours, data.utterances, data.pdfs, settings.tri3b.tree.leaves, costs)


def work_function(recipe: Recipe) -> Any:
    """What the recipe says of its work. Raises UserError where it says nothing."""
    if recipe.work is None:
        raise UserError(f"recipe {recipe.name} does not say how much work its stages are (Recipe(..., work=...)): "
                        "plans are for mini_librispeech, librispeech and demo")
    return recipe.work


def save_runs(path: Path, runs: Sequence[Run]) -> None:
    write_json(path, {"runs": [dataclasses.asdict(run) for run in runs]})


def load_runs(path: Path) -> list[Run]:
    """Raises UserError where the file is no list of runs."""
    try:
        return [Run(**(entry | {"stages": {name: Cost(**cost) for name, cost in entry["stages"].items()}}))
                for entry in read_json(path)["runs"]]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a file of measured runs (asr-distill plan RECIPE --from EXP ... --save FILE "
                        "writes one)") from None


def _settings_tree(records: Any) -> dict[str, Any]:
    """The settings that stages recorded under dotted keys, as a tree. Files are left at their defaults."""
    tree: dict[str, Any] = {}
    for record in records:
        for key, value in record["ingredients"]["settings"].items():
            *parents, leaf = key.split(".")
            cursor = tree
            for parent in parents:
                cursor = cursor.setdefault(parent, {})
            cursor[leaf] = value
    return tree
