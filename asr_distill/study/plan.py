"""Which stages a study needs, which of them are finished in the base experiment, and where the others go.

A stage that is not in the base lives once in `stages/NN_name-DIGEST`, the digest of what it is made from: every point,
of whichever study of the same folder, that needs the same stage links to it.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.config import read_tree, to_dict
from asr_distill.errors import UserError
from asr_distill.stage import Stage, changes_of, digest_of
from asr_distill.stage_record import Ingredients, gather, within
from asr_distill.study.grid import Point, Study


@dataclass(frozen=True)
class Node:
    """A stage with its ingredients: made once, however many points need it."""

    stage: Stage
    ingredients: Ingredients
    directory: Path  # where it is, or will be
    digest: str  # as later stages record it
    inputs: tuple[Node, ...]

    @property
    def done(self) -> bool:
        return (self.directory / "stage.json").is_file()


@dataclass(frozen=True)
class PlannedPoint:
    point: Point
    nodes: dict[str, Node]  # stage -> node, in order; all that the point needs
    folders: dict[str, str]  # stage -> NN_name

    @property
    def label(self) -> str:
        return self.point.label

    @property
    def directories(self) -> dict[str, Path]:
        """Of its finished stages."""
        return {name: node.directory for name, node in self.nodes.items() if node.done}

    def before(self, node: Node) -> dict[str, Path]:
        """Directories of the stages that come before a node's."""
        return {name: other.directory for name, other in self.nodes.items()
                if self.folders[name] < self.folders[node.stage.name]}

    @property
    def pending(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.done]


def make_plan(study: Study, base: Path | None, store: Path) -> list[PlannedPoint]:
    """Every point's nodes. Only reads.

    Raises UserError where a stage that the study changes nothing about is finished in the base, but made from
    something else: it would be made again unasked, and the points differ from the base in more than they say.
    """
    planner = _Planner(study, base, store)
    return [planner.plan(point) for point in study.points]


def shared_first(points: Sequence[PlannedPoint]) -> Iterator[list[Node]]:
    """Waves of pending nodes that several points need, in order; nodes of one wave do not need each other."""
    users = collections.Counter(node.directory for planned in points for node in planned.pending)
    shared = {node.directory: node for planned in points for node in planned.pending if users[node.directory] > 1}
    depth: dict[Path, int] = {}
    for path in sorted(shared):  # by the stages' numbers; what a shared node needs is shared too
        depth[path] = 1 + max((depth[needed.directory] for needed in shared[path].inputs if not needed.done), default=0)
    for level in range(1, max(depth.values(), default=0) + 1):
        yield [shared[path] for path in depth if depth[path] == level]


class _Planner:
    def __init__(self, study: Study, base: Path | None, store: Path):
        self.study, self.base, self.store = study, base, store
        self.stages = study.recipe.needed_for(study.stages)
        self.changed = _changed_keys(study)
        self._gathered: dict[str, Ingredients] = {}
        self._nodes: dict[tuple[str, str], Node] = {}

    def plan(self, point: Point) -> PlannedPoint:
        nodes: dict[str, Node] = {}
        touched: set[str] = set()
        for item in self.stages:
            inputs = tuple(nodes[name] for name in item.reads)
            ingredients = self._gather(item, point.settings, {node.stage.name: node.digest for node in inputs})
            if self._touches(ingredients) or touched & set(item.reads):
                touched.add(item.name)
            key = (item.name, ingredients.digest)
            if key not in self._nodes:
                self._nodes[key] = self._node(item, ingredients, inputs, item.name in touched)
            nodes[item.name] = self._nodes[key]
        return PlannedPoint(point, nodes, {item.name: self.study.recipe.folder(item) for item in self.stages})

    def _gather(self, item: Stage, settings: Any, inputs: dict[str, str]) -> Ingredients:
        """`gather`, once for the same settings: it reads what paths hold."""
        tops = {section.partition(".")[0] for section in item.settings}
        key = json.dumps([item.name, {top: to_dict(getattr(settings, top)) for top in tops}, inputs], sort_keys=True)
        if key not in self._gathered:
            self._gathered[key] = gather(settings, item.settings, inputs, item.revision)
        return self._gathered[key]

    def _touches(self, ingredients: Ingredients) -> bool:
        """Whether the study itself sets any of a stage's settings."""
        return any(within(key, changed) or within(changed, key)
                   for key in (*ingredients.settings, *ingredients.files) for changed in self.changed)

    def _node(self, item: Stage, ingredients: Ingredients, inputs: tuple[Node, ...], touched: bool) -> Node:
        folder = self.study.recipe.folder(item)
        found = self.base / folder if self.base else None
        if found and (found / "stage.json").is_file():
            changes = changes_of(found, ingredients)
            if not changes:
                return Node(item, ingredients, found, digest_of(found), inputs)
            if not touched:
                raise UserError(
                    f"{found}: this stage was made from something else than this study's settings say "
                    f"({'; '.join(list(changes.values())[:3])}): give --set and --conf as in that run, run the recipe "
                    f"there again, or put what is meant to differ under `set:` in {self.study.file}")
        return Node(item, ingredients, self.store / f"{folder}-{ingredients.digest}", ingredients.digest, inputs)


def _changed_keys(study: Study) -> set[str]:
    """Dotted keys that the study file sets, in `conf`, `set` or the grid (what the command line says is the base's)."""
    changes = [study.config.set, *(point.changes for point in study.points), *map(read_tree, study.config.conf)]
    return {leaf for tree in changes for key, value in tree.items() for leaf in _flat_keys(key, value)}


def _flat_keys(prefix: str, tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping) and tree:
        for name, item in tree.items():
            yield from _flat_keys(f"{prefix}.{name}", item)
    else:
        yield prefix
