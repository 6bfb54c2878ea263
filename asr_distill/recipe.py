"""A recipe: numbered stages of one corpus, what is skipped, and what has to run.

A stage whose ingredients are unchanged is skipped; stage.py carries the others out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from asr_distill.errors import UserError, nearest
from asr_distill.executor import Executor
from asr_distill.lock import exclusive
from asr_distill.logs import log
from asr_distill.progress import clock
from asr_distill.stage import FORCED, Figures, Stage, StageRun, digest_of, perform, stage, why_not_done
from asr_distill.stage_record import gather

__all__ = ["Figures", "Recipe", "Stage", "StageRun", "stage"]


class Recipe:
    """Stages of one corpus in order, their settings class and the settings file of the recipe.

    `work` says how much work each stage is, for `asr-distill plan` (plan/work.py).
    """

    def __init__(self, name: str, settings: type, conf: Path, stages: Sequence[Stage], *,
                 work: Callable[[Any, Any], dict[str, Any]] | None = None):
        self.name, self.settings_class, self.conf, self.stages = name, settings, conf, list(stages)
        self.work = work
        self.numbers = {item.name: number for number, item in enumerate(self.stages, 1)}
        for item in self.stages:
            for needed in item.reads:
                if self.numbers.get(needed, len(self.stages)) >= self.numbers[item.name]:
                    raise ValueError(f"stage {item.name} reads '{needed}', which does not come before it")

    def folder(self, item: Stage) -> str:
        """`NN_name`."""
        return f"{self.numbers[item.name]:02d}_{item.name}"

    def directory(self, exp: Path, item: Stage) -> Path:
        return exp / self.folder(item)

    def number(self, text: str) -> int:
        """A stage by number or name. Raises UserError for neither."""
        if text.isdecimal() and 1 <= int(text) <= len(self.stages):
            return int(text)
        if text in self.numbers:
            return self.numbers[text]
        raise UserError(f"no stage '{text}' in recipe {self.name}{nearest(text, self.numbers)}; "
                        f"stages are 1 to {len(self.stages)} (--list)")

    def needed_for(self, names: Iterable[str]) -> list[Stage]:
        """The stages of these names and all that they read, directly or not, in order."""
        wanted = {self.stages[self.number(name) - 1].name for name in names}
        for item in reversed(self.stages):
            if item.name in wanted:
                wanted |= set(item.reads)
        return [item for item in self.stages if item.name in wanted]

    def listing(self) -> str:
        """Stages, a line each."""
        width = max(len(item.name) for item in self.stages)
        return "\n".join(f"{self.numbers[item.name]:3d}  {item.name:{width}}  {item.summary}"
                         for item in self.stages)

    def run(self, settings: Any, exp: Path, device: torch.device, *, first: int = 1, last: int | None = None,
            force: bool = False, executor: Executor | None = None) -> None:
        """Run stages first..last that are not done yet.

        Raises UserError where an earlier one is missing, and before any work where a stage that has to run lacks what
        it needs.
        """
        start = time.monotonic()
        last = last or len(self.stages)
        with exclusive(exp):
            done: dict[str, Path] = {}
            for number, item in enumerate(self.stages[:last], 1):
                final = self.directory(exp, item)
                ingredients = gather(settings, item.settings, {name: digest_of(done[name]) for name in item.reads},
                                     item.revision)
                reason = why_not_done(final, ingredients)
                if number < first:
                    if reason:
                        raise UserError(f"stage {number} ({item.name}) is needed first: {reason}; "
                                        f"run with --stage {number} or without --stage")
                elif reason or force:
                    self._check_needs(settings, exp, device, item, last)
                    perform(item, final, ingredients, settings, device, done, recipe=self.name, top=exp,
                            reason=reason or FORCED, title=f"stage {number:02d} {item.name}", executor=executor)
                else:
                    log.info("stage %02d %s: done before, nothing changed", number, item.name)
                done[item.name] = final
        log.info("%s: finished in %s", self.name, clock(time.monotonic() - start))

    def _check_needs(self, settings: Any, exp: Path, device: torch.device, item: Stage, last: int) -> None:
        """Of a stage that runs now, and of those up to `last` that have to after it."""
        runs = {item.name}
        for later in self.stages[self.numbers[item.name] - 1:last]:
            there = (self.directory(exp, later) / "stage.json").is_file()
            if not there or later.name in runs or runs & set(later.reads):
                runs.add(later.name)
                if later.needs:
                    later.needs(settings, device)
