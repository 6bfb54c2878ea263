"""One stage: what it declares, what its function is given, and how it is carried out so that a kill costs little.

A stage works in `NAME.partial`, which is renamed to NAME when it is complete; so its directory appears whole or not at
all. `stage.json` holds what it was made from. The directory may be a link to a stage that was finished elsewhere: it
counts as done, and nothing is ever written or deleted through the link.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from asr_distill import __version__
from asr_distill.config import to_dict
from asr_distill.executor import Executor, available_cpus
from asr_distill.files import atomic_path, read_json, write_json
from asr_distill.logs import log, to_file
from asr_distill.parallel.crew import current
from asr_distill.progress import clock
from asr_distill.stage_record import Ingredients, within
from asr_distill.usage import Usage, directory_bytes

Figures = dict[str, Any]
StageFunction = Callable[["StageRun"], "Figures | None"]
Needs = Callable[[Any, torch.device], object]
FORCED = "--force"  # the reason of a stage that is made anew from the same


@dataclasses.dataclass(frozen=True)
class Stage:
    """One numbered step. `reads` names earlier stages, `settings` the sections that its result depends on."""

    name: str
    function: StageFunction
    reads: tuple[str, ...]
    settings: tuple[str, ...]
    resumable: bool
    revision: int
    needs: Needs | None = None

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]


def stage(*, reads: Sequence[str] = (), settings: Sequence[str] = (), resumable: bool = False,
          revision: int = 1, name: str | None = None, needs: Needs | None = None) -> Callable[[StageFunction], Stage]:
    """Make a stage of a function. `settings`: sections, or parts of them by dotted key (`decode.systems`).

    A resumable one finds what an interrupted run left in `run.out`; others start from an empty folder. Raise
    `revision` when a change of code changes the result. `needs(settings, device)` is called when a run that has the
    stage to do begins: it raises UserError where this machine lacks what the settings ask for.
    """
    def make(function: StageFunction) -> Stage:
        return Stage(name or function.__name__, function, tuple(reads), tuple(settings), resumable, revision, needs)
    return make


class StageRun:
    """What a stage function is given. Only declared settings and inputs can be reached: a forgotten
    declaration would make a stale result look fresh."""

    def __init__(self, stage: Stage, out: Path, settings: Any, device: torch.device, done: Mapping[str, Path],
                 recipe: str, began: float, top: Path | None, executor: Executor | None = None):
        self.executor = executor  # of lists of independent jobs; None: this process's threads
        self.stage, self.out, self.device, self.recipe = stage, out, device, recipe
        self.settings = _Declared(settings, stage.settings, stage.name)
        self._done, self._began, self._top = done, began, top

    def input(self, name: str) -> Path:
        """Directory of an earlier, completed stage."""
        if name not in self.stage.reads:
            raise KeyError(f"stage {self.stage.name} does not declare that it reads '{name}'")
        return self._done[name]

    def figures(self, name: str) -> Figures:
        """Figures that an earlier stage returned."""
        return read_json(self.input(name) / "stage.json")["figures"]

    def stage_seconds(self) -> dict[str, float]:
        """Seconds of all stages that this experiment consists of, this one's until now included."""
        seconds = {name: read_json(path / "stage.json")["seconds"] for name, path in self._done.items()
                   if (path / "stage.json").is_file()}
        return seconds | {self.stage.name: round(time.monotonic() - self._began, 3)}

    def publish(self, *names: str) -> None:
        """Copy files of `run.out` to the top of the experiment folder, where people look (if it has one)."""
        for name in names:
            if self._top and (self.out / name).is_file():
                with atomic_path(self._top / name) as temporary:
                    shutil.copyfile(self.out / name, temporary)


class _Declared:
    """Settings of which only the declared ones can be read."""

    def __init__(self, settings: Any, sections: tuple[str, ...], stage: str, prefix: str = ""):
        self._settings, self._sections, self._stage, self._prefix = settings, sections, stage, prefix

    def all(self) -> dict[str, Any]:
        """The declared sections as plain data."""
        return {name: to_dict(getattr(self, name)) for name in self._sections}

    def __getattr__(self, name: str) -> Any:
        key = self._prefix + name
        if any(within(key, section) for section in self._sections):
            return getattr(self._settings, name)
        if any(within(section, key) for section in self._sections):
            return _Declared(getattr(self._settings, name), self._sections, self._stage, f"{key}.")
        raise AttributeError(f"stage {self._stage} does not declare that it uses the settings '{key}'")


def why_not_done(final: Path, ingredients: Ingredients) -> str:
    """Why the stage whose directory is `final` has to run, or an empty string."""
    complete = _partial(final) / "stage.json"  # killed after the work, before the rename
    if complete.is_file() and read_json(complete)["digest"] == ingredients.digest:
        _replace_directory(_partial(final), final)
    if not (final / "stage.json").is_file():
        return "not done yet"
    return "; ".join(list(changes_of(final, ingredients).values())[:5])


def changes_of(final: Path, ingredients: Ingredients) -> dict[str, str]:
    """What a finished stage was made from otherwise (see Ingredients.changes_since); reads alone."""
    old = read_json(final / "stage.json")
    return {} if old["digest"] == ingredients.digest else ingredients.changes_since(old["ingredients"])


def digest_of(final: Path) -> str:
    """What later stages record of a finished one."""
    record = read_json(final / "stage.json")
    return record["digest"] + record["forced"]


def perform(item: Stage, final: Path, ingredients: Ingredients, settings: Any, device: torch.device,
            done: Mapping[str, Path], *, recipe: str, top: Path | None, reason: str, title: str = "",
            executor: Executor | None = None) -> None:
    """Carry a stage out, or go on with it where an interrupted one of the same ingredients stopped.

    `done`: directories of the finished stages before it. `reason`: as the log says it; FORCED starts anew.
    """
    title = title or f"stage {item.name}"
    partial = _partial(final)
    claim = partial / "ingredients.json"
    resumed, forced = False, reason == FORCED
    if partial.is_dir():
        resumed = (item.resumable and not forced and claim.is_file()
                   and not ingredients.changes_since(read_json(claim)))
        if not resumed:
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(claim, ingredients.record())
    began, clock_start = datetime.datetime.now(datetime.timezone.utc), time.monotonic() - _spent_before(partial)
    with to_file(partial / "log.txt"):
        log.info("%s: %s (%s)", title, item.summary, "going on where it was interrupted" if resumed else reason)
        try:
            with Usage() as usage:
                figures = item.function(StageRun(item, partial, settings, device, done, recipe, clock_start, top,
                                                 executor)) or {}
        except BaseException as error:
            log.error("%s: stopped by %s: %s", title, type(error).__name__, error)
            raise
        seconds = time.monotonic() - clock_start
        log.info("%s: %s", title, clock(seconds))
    write_json(partial / "stage.json", {
        "stage": item.name, "digest": ingredients.digest, "ingredients": ingredients.record(),
        "versions": {"asr_distill": __version__, "torch": torch.__version__}, "device": str(device),
        "started": began.isoformat(timespec="seconds"), "seconds": round(seconds, 3), "resumed": resumed,
        "cpus": available_cpus(), "cpu_seconds": round(usage.cpu_seconds, 3),  # of this attempt alone
        "peak_bytes": usage.peak_bytes, "bytes": directory_bytes(partial),
        "alone": current().size == 1 and not (executor and executor.elsewhere),  # no work that is not counted there
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
    _remove(old)
    if final.exists() or final.is_symlink():
        final.rename(old)
    new.rename(final)
    _remove(old)


def _remove(path: Path) -> None:
    """A directory; of a link the link alone."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
