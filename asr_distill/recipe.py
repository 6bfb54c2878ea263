"""Numbered stages: what each reads and writes, when it is skipped, how an interrupted run goes on.

A stage is a plain function that fills `run.out` and returns figures. It works in `NN_name.partial`, which is
renamed to `NN_name` when it is complete; so a stage's directory appears whole or not at all. `stage.json` holds
what it was made from; a stage whose ingredients are unchanged is skipped.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from asr_distill import __version__
from asr_distill.config import to_dict
from asr_distill.errors import UserError, nearest
from asr_distill.files import atomic_path, read_json, write_json
from asr_distill.lock import exclusive
from asr_distill.logs import log, to_file
from asr_distill.progress import clock
from asr_distill.stage_record import Ingredients, gather

Figures = dict[str, Any]
StageFunction = Callable[["StageRun"], "Figures | None"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One numbered step. `reads` names earlier stages, `settings` the sections that its result depends on."""

    name: str
    function: StageFunction
    reads: tuple[str, ...]
    settings: tuple[str, ...]
    resumable: bool
    revision: int

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]


def stage(*, reads: Sequence[str] = (), settings: Sequence[str] = (), resumable: bool = False,
          revision: int = 1, name: str | None = None) -> Callable[[StageFunction], Stage]:
    """Make a stage of a function. A resumable one finds what an interrupted run left in `run.out`;
    others start from an empty folder. Raise `revision` when a change of code changes the result."""
    def make(function: StageFunction) -> Stage:
        return Stage(name or function.__name__, function, tuple(reads), tuple(settings), resumable, revision)
    return make


class StageRun:
    """What a stage function is given. Only declared settings and inputs can be reached: a forgotten
    declaration would make a stale result look fresh."""

    def __init__(self, stage: Stage, out: Path, settings: Any, device: torch.device, inputs: dict[str, Path],
                 recipe: str, began: float):
        self.stage, self.out, self.device, self.recipe = stage, out, device, recipe
        self.settings = _Declared(settings, stage.settings, stage.name)
        self._inputs, self._began = inputs, began

    def input(self, name: str) -> Path:
        """Directory of an earlier, completed stage."""
        if name not in self._inputs:
            raise KeyError(f"stage {self.stage.name} does not declare that it reads '{name}'")
        return self._inputs[name]

    def figures(self, name: str) -> Figures:
        """Figures that an earlier stage returned."""
        return read_json(self.input(name) / "stage.json")["figures"]

    def stage_seconds(self) -> dict[str, float]:
        """Seconds of all stages that this experiment consists of, this one's until now included."""
        records = sorted(self.out.parent.glob("[0-9][0-9]_*/stage.json"))
        done = [read_json(path) for path in records if path.parent.suffix != ".partial"]
        seconds = {item["stage"]: item["seconds"] for item in done if item["stage"] != self.stage.name}
        return seconds | {self.stage.name: round(time.monotonic() - self._began, 3)}

    def publish(self, *names: str) -> None:
        """Copy files of `run.out` to the top of the experiment folder, where people look."""
        for name in names:
            if (self.out / name).is_file():
                with atomic_path(self.out.parent / name) as temporary:
                    shutil.copyfile(self.out / name, temporary)


class _Declared:
    def __init__(self, settings: Any, sections: tuple[str, ...], stage: str):
        self._settings, self._sections, self._stage = settings, sections, stage

    def all(self) -> dict[str, Any]:
        """The declared sections as plain data."""
        return {name: to_dict(getattr(self._settings, name)) for name in self._sections}

    def __getattr__(self, section: str) -> Any:
        if section not in self._sections:
            raise AttributeError(f"stage {self._stage} does not declare that it uses the settings '{section}'")
        return getattr(self._settings, section)


class Recipe:
    """Stages of one corpus in order, their settings class and the settings file of the recipe."""

    def __init__(self, name: str, settings: type, conf: Path, stages: Sequence[Stage]):
        self.name, self.settings_class, self.conf, self.stages = name, settings, conf, list(stages)
        self.numbers = {item.name: number for number, item in enumerate(self.stages, 1)}
        for item in self.stages:
            for needed in item.reads:
                if self.numbers.get(needed, len(self.stages)) >= self.numbers[item.name]:
                    raise ValueError(f"stage {item.name} reads '{needed}', which does not come before it")

    def directory(self, exp: Path, item: Stage) -> Path:
        return exp / f"{self.numbers[item.name]:02d}_{item.name}"

    def number(self, text: str) -> int:
        """A stage by number or name. Raises UserError for neither."""
        if text.isdecimal() and 1 <= int(text) <= len(self.stages):
            return int(text)
        if text in self.numbers:
            return self.numbers[text]
        raise UserError(f"no stage '{text}' in recipe {self.name}{nearest(text, self.numbers)}; "
                        f"stages are 1 to {len(self.stages)} (--list)")

    def listing(self) -> str:
        """Stages, a line each."""
        width = max(len(item.name) for item in self.stages)
        return "\n".join(f"{self.numbers[item.name]:3d}  {item.name:{width}}  {item.summary}"
                         for item in self.stages)

    def run(self, settings: Any, exp: Path, device: torch.device, *, first: int = 1, last: int | None = None,
            force: bool = False) -> None:
        """Run stages first..last that are not done yet. Raises UserError where an earlier one is missing."""
        start = time.monotonic()
        last = last or len(self.stages)
        with exclusive(exp):
            digests: dict[str, str] = {}
            for number, item in enumerate(self.stages[:last], 1):
                ingredients = gather(settings, item.settings, {name: digests[name] for name in item.reads},
                                     item.revision)
                reason = self._reason(exp, item, ingredients)
                if number < first:
                    if reason:
                        raise UserError(f"stage {number} ({item.name}) is needed first: {reason}; "
                                        f"run with --stage {number} or without --stage")
                elif reason or force:
                    self._run_stage(exp, item, ingredients, settings, device, reason or "--force")
                else:
                    log.info("stage %02d %s: done before, nothing changed", number, item.name)
                record = read_json(self.directory(exp, item) / "stage.json")
                digests[item.name] = record["digest"] + record["forced"]
        log.info("%s: finished in %s", self.name, clock(time.monotonic() - start))

    def _reason(self, exp: Path, item: Stage, ingredients: Ingredients) -> str:
        """Why the stage has to run, or an empty string."""
        final = self.directory(exp, item)
        complete = _partial(final) / "stage.json"  # killed after the work, before the rename
        if complete.is_file() and read_json(complete)["digest"] == ingredients.digest:
            _replace_directory(_partial(final), final)
        record = final / "stage.json"
        if not record.is_file():
            return "not done yet"
        old = read_json(record)
        if old["digest"] == ingredients.digest:
            return ""
        return "; ".join(ingredients.changes_since(old["ingredients"])[:5])

    def _run_stage(self, exp: Path, item: Stage, ingredients: Ingredients, settings: Any,
                   device: torch.device, reason: str) -> None:
        final = self.directory(exp, item)
        partial = _partial(final)
        claim = partial / "ingredients.json"
        resumed, forced = False, reason == "--force"
        if partial.is_dir():
            resumed = (item.resumable and not forced and claim.is_file()
                       and read_json(claim) == dataclasses.asdict(ingredients))
            if not resumed:
                shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        write_json(claim, dataclasses.asdict(ingredients))
        inputs = {name: self.directory(exp, self.stages[self.numbers[name] - 1]) for name in item.reads}
        began, clock_start = datetime.datetime.now(datetime.timezone.utc), time.monotonic() - _spent_before(partial)
        with to_file(partial / "log.txt"):
            log.info("stage %02d %s: %s (%s)", self.numbers[item.name], item.name, item.summary,
                     "going on where it was interrupted" if resumed else reason)
            try:
                figures = item.function(StageRun(item, partial, settings, device, inputs, self.name, clock_start)) or {}
            except BaseException as error:
                log.error("stage %02d %s: stopped by %s: %s", self.numbers[item.name], item.name,
                          type(error).__name__, error)
                raise
            seconds = time.monotonic() - clock_start
            log.info("stage %02d %s: %s", self.numbers[item.name], item.name, clock(seconds))
        write_json(partial / "stage.json", {
            "stage": item.name, "digest": ingredients.digest, "ingredients": dataclasses.asdict(ingredients),
            "versions": {"asr_distill": __version__, "torch": torch.__version__}, "device": str(device),
            "started": began.isoformat(timespec="seconds"), "seconds": round(seconds, 3), "resumed": resumed,
            "forced": began.isoformat() if forced else "",  # made anew from the same: later stages must follow
            "figures": figures})
        _replace_directory(partial, final)


def _spent_before(partial: Path) -> float:
    """Seconds that killed attempts worked here: from each one's start to the last file it wrote. Notes this attempt."""
    note = partial / "attempt.json"
    spent = 0.0
    if note.is_file():
        old = read_json(note)
        last = max(path.stat().st_mtime for path in partial.rglob("*") if path.is_file())
        spent = old["spent"] + max(0.0, last - old["started"])
    write_json(note, {"spent": spent, "started": time.time()})
    return spent


def _partial(final: Path) -> Path:
    return final.with_name(final.name + ".partial")


def _replace_directory(new: Path, final: Path) -> None:
    """Put a complete directory in place; an older one goes only when the new one is there."""
    old = final.with_name(final.name + ".old")
    for note in ("ingredients.json", "attempt.json"):
        (new / note).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
