"""From a study file to its points: which settings each has, and what it is called."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_distill.config import load_settings
from asr_distill.errors import UserError
from asr_distill.recipe import Recipe
from asr_distill.study.config import StudyConfig

LONGEST_LABEL = 100  # characters; it names a folder


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values."""

    label: str
    axes: dict[str, Any]  # axis -> value, or the name of a named value
    changes: dict[str, Any]  # dotted key -> value: what it sets
    settings: Any = field(compare=False)  # the recipe's settings dataclass

    @property
    def overrides(self) -> list[str]:
        return [override(key, value) for key, value in self.changes.items()]


@dataclass(frozen=True)
class Study:
    """A study file with what the command line adds."""

    name: str
    file: Path
    config: StudyConfig
    recipe: Recipe
    files: tuple[Path, ...]  # settings files, the recipe's own first
    common: tuple[str, ...]  # overrides of every point
    points: tuple[Point, ...]

    @property
    def stages(self) -> Sequence[str]:
        return self.config.stages or (self.recipe.stages[-1].name,)


def read_study(file: Path, recipe: Recipe, config: StudyConfig, *, conf: Sequence[Path] = (),
               overrides: Sequence[str] = ()) -> Study:
    """Build every point's settings. Raises UserError for a wrong key or value, naming the point, and for twins."""
    for name in config.stages:
        recipe.number(name)
    files = (recipe.conf, *conf, *config.conf)  # what the base was run with, then what the study is about
    common = (*(override(key, value) for key, value in config.set.items()), *overrides)
    load_settings(recipe.settings_class, files, common)  # what is wrong everywhere is not a point's fault
    short = short_names([*config.grid, *(key for point in config.points for key in point)])
    points = []
    for axes, changes in _combinations(config):
        label = label_of({short[axis]: value for axis, value in axes.items()})
        own = [override(key, value) for key, value in changes.items()]
        try:
            settings: Any = load_settings(recipe.settings_class, files, [*common, *own])
        except UserError as error:
            raise UserError(f"{file}: point {label}: {error}") from None
        points.append(Point(label, axes, changes, settings))
    labels = [point.label for point in points]
    if twins := {label for label in labels if labels.count(label) > 1}:
        raise UserError(f"{file}: two points are the same: {min(twins)}")
    return Study(file.stem, file, config, recipe, files, common, tuple(points))


def override(key: str, value: Any) -> str:
    """`key=value` as --set reads it: text as it is, all else as JSON, which is YAML too."""
    return f"{key}={value}" if isinstance(value, str) else f"{key}={json.dumps(value)}"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key's shortest ending that no other key has."""
    known = dict.fromkeys(keys)

    def endings(key: str) -> Iterator[str]:
        parts = key.split(".")
        yield from (".".join(parts[-count:]) for count in range(1, len(parts) + 1))

    return {key: next((ending for ending in endings(key)
                       if sum(other == ending or other.endswith(f".{ending}") for other in known) == 1), key)
            for key in known}


def label_of(values: Mapping[str, Any]) -> str:
    """`temperature=2,seed=101`: a name for people that is a folder's name too."""
    text = ",".join(f"{name}={value_text(value)}" for name, value in values.items())
    safe = re.sub(r"[^\w.,=+%-]+", "_", text)
    if len(safe) <= LONGEST_LABEL:
        return safe
    return f"{safe[:LONGEST_LABEL - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def value_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def _combinations(config: StudyConfig) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(axis -> value or its name, setting -> value) of every point; the first axis changes slowest."""
    axes = []
    for axis, values in config.grid.items():
        if isinstance(values, dict):
            axes.append([({axis: str(name)}, changes) for name, changes in values.items()])
        else:
            axes.append([({axis: value}, {axis: value}) for value in values])
    if config.points:
        axes.insert(0, [(point, point) for point in config.points])
    for chosen in itertools.product(*axes):
        yield ({axis: value for one, _ in chosen for axis, value in one.items()},
               {key: value for _, one in chosen for key, value in one.items()})
