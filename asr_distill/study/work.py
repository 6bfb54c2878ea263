"""A study's stages carried out as jobs, one after another or over processes; the points' folders of links."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr_distill.config import load_settings
from asr_distill.device import device_of
from asr_distill.errors import UserError, describe
from asr_distill.executor import available_cpus, local_executor
from asr_distill.files import write_json
from asr_distill.logs import log, to_terminal
from asr_distill.progress import Progress
from asr_distill.recipe import Recipe
from asr_distill.recipe_command import load_recipe
from asr_distill.stage import perform, why_not_done
from asr_distill.stage_record import Ingredients
from asr_distill.study.grid import Study
from asr_distill.study.plan import Node, PlannedPoint, shared_first


@dataclass(frozen=True)
class StageJob:
    """A stage to be made."""

    name: str
    directory: Path
    ingredients: Ingredients
    done: dict[str, Path]  # directories of the stages before it that its point consists of


@dataclass(frozen=True)
class Chain:
    """Stages of one point, in order; plain data for another process."""

    title: str
    label: str
    recipe: str
    files: tuple[Path, ...]
    overrides: tuple[str, ...]
    device: str
    stages: tuple[StageJob, ...]


def run_study(study: Study, points: Sequence[PlannedPoint], folder: Path, device: str,
              workers: int = 1) -> dict[str, str]:
    """Make what is pending, and link every point's finished stages in folder/points/LABEL; label -> error of the
    points that failed.

    With one worker the points are finished in their order; with more the stages that several of them need come first.
    A stage that fails takes with it the points that need it; the others go on.
    """
    failures: dict[Path, str] = {}
    total = len({node.directory for planned in points for node in planned.pending})
    with local_executor(workers, **_initializer(workers)) as pool, \
            Progress(f"study {study.name}", total, "stages") as progress:
        def run(parts: Iterable[tuple[PlannedPoint, Iterable[Node]]]) -> None:
            chains = (chain for planned, nodes in parts  # lazy: what failed or was made by then is left out
                      if (chain := _chain(study, points, planned, nodes, failures, device)))
            for chain, errors in pool.run(carry_out, chains, threads=0):
                failures.update(errors)
                progress.update(len(chain.stages), chain.title)
                link(next(planned for planned in points if planned.label == chain.label), folder)

        for planned in points:
            link(planned, folder)
        for wave in shared_first(points) if pool.workers > 1 else ():
            run((next(planned for planned in points if node in planned.pending), [node]) for node in wave)
        run((planned, planned.nodes.values()) for planned in points)
    for planned in points:
        link(planned, folder)
    return {planned.label: message for planned in points if (message := _failure_of(planned, failures))}


def carry_out(chain: Chain) -> dict[Path, str]:
    """Make the stages of a chain; directory -> error of those that could not be made."""
    recipe = _recipe(chain.recipe)
    settings: Any = load_settings(recipe.settings_class, chain.files, chain.overrides)
    log.info("%s: %s", chain.title, ", ".join(job.name for job in chain.stages))
    errors: dict[Path, str] = {}
    lost: set[str] = set()  # stages that failed, and what reads them
    for job in chain.stages:
        item = recipe.stages[recipe.numbers[job.name] - 1]
        if lost & set(item.reads):
            lost.add(job.name)
        elif why_not_done(job.directory, job.ingredients):
            try:
                perform(item, job.directory, job.ingredients, settings, device_of(chain.device), job.done,
                        recipe=recipe.name, top=None, reason=f"for {chain.label}", title=f"{chain.label}: {job.name}")
            except Exception as error:  # of one point: the others go on
                lost.add(job.name)
                errors[job.directory] = _message(error)
    return errors


def link(planned: PlannedPoint, folder: Path) -> None:
    """Fill folder/points/LABEL: a relative link to every finished stage, and point.json."""
    directory = folder / "points" / planned.label
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    wanted = {planned.folders[name]: os.path.relpath(path.resolve(), directory)
              for name, path in planned.directories.items()}
    for path in directory.iterdir():
        if path.is_symlink() and wanted.get(path.name) != os.readlink(path):
            path.unlink()
    for name, target in wanted.items():
        if not (directory / name).exists():
            (directory / name).symlink_to(target, target_is_directory=True)
    write_json(directory / "point.json", {"axes": planned.point.axes, "set": planned.point.overrides})


def _chain(study: Study, points: Sequence[PlannedPoint], planned: PlannedPoint, nodes: Iterable[Node],
           failures: dict[Path, str], device: str) -> Chain | None:
    """What is left to make of these nodes, or None."""
    jobs = [StageJob(node.stage.name, node.directory, node.ingredients, planned.before(node))
            for node in nodes if not node.done and not _blocked(node, failures)]
    if not jobs:
        return None
    title = f"point {points.index(planned) + 1} of {len(points)}, {planned.label}"
    return Chain(title, planned.label, study.config.recipe, study.files,
                 (*study.common, *planned.point.overrides), device, tuple(jobs))


def _blocked(node: Node, failures: dict[Path, str]) -> bool:
    return node.directory in failures or any(_blocked(needed, failures) for needed in node.inputs)


def _failure_of(planned: PlannedPoint, failures: dict[Path, str]) -> str:
    return next((f"stage {name}: {failures[node.directory]}" for name, node in planned.nodes.items()
                 if node.directory in failures), "")


def _message(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return describe(error)
    log.error("a fault of the program, not of the settings:", exc_info=error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"


@functools.lru_cache(maxsize=1)
def _recipe(name: str) -> Recipe:
    return load_recipe(name)


def _initializer(workers: int) -> dict[str, Any]:
    return {} if workers == 1 else {"initializer": _begin_worker, "initargs": (workers or available_cpus(),)}


def _begin_worker(workers: int) -> None:
    """Several lines of progress would overwrite each other: workers write to their stages' log files alone."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")
    to_terminal()
    torch.set_num_threads(max(1, available_cpus() // workers))
