"""Imports run downward, as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import asr_distill

PACKAGE = Path(asr_distill.__file__).parent
# Lower first. A room may import itself and what stands below it.
FLOORS = [
    ["errors", "files", "progress", "config", "executor", "device", "logs", "lock", "kaldi", "k2fsa", "malloc",
     "usage", "parallel"],
    ["corpus", "features"], ["emission"], ["lang"], ["hmm"], ["acoustic"], ["distill"], ["decode"], ["export"],
    ["report"],
    ["command", "stage_record", "stage", "recipe", "recipe_command", "run_command", "recipes_command", "bench_command",
     "study", "plan", "cli"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("asr_distill"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name in FLOOR}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("asr_distill.")}
    return found


def test_no_room_imports_upward() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for target in _imports(path):
            if FLOOR[target] > FLOOR[room] or (target in ("recipes", "local")):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {target}")
    assert not wrong, wrong


def test_the_package_knows_neither_recipes_nor_local() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from recipes" not in text and "from local" not in text, path
