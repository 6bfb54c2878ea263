"""What a stage was made from: settings, files and earlier stages; whether it is still valid, and if not, why."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_distill.config import to_dict
from asr_distill.errors import UserError
from asr_distill.files import file_digest


@dataclasses.dataclass(frozen=True)
class Ingredients:
    """Everything that a stage's result depends on. Paths among the settings count by what they hold."""

    revision: int
    settings: dict[str, Any]  # dotted key -> plain value
    files: dict[str, str]  # dotted key of a Path setting -> digest of its content
    inputs: dict[str, str]  # earlier stage -> its digest

    @property
    def digest(self) -> str:
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def changes_since(self, old: Mapping[str, Any]) -> list[str]:
        """In words, what differs from an older record (as from `dataclasses.asdict`)."""
        changes = []
        if old.get("revision") != self.revision:
            changes.append("the stage's own code changed")
        for kind, word in (("settings", "setting"), ("files", "content of"), ("inputs", "stage")):
            before, now = old.get(kind, {}), getattr(self, kind)
            for key in sorted(set(before) | set(now)):
                if before.get(key) != now.get(key):
                    detail = f" ({before.get(key)} -> {now.get(key)})" if kind == "settings" else ""
                    changes.append(f"{word} {key} changed{detail}")
        return changes


def gather(settings: Any, sections: tuple[str, ...], inputs: dict[str, str], revision: int) -> Ingredients:
    """Ingredients of a stage that uses `sections` of a settings dataclass.

    Raises UserError where a path among them does not exist.
    """
    plain: dict[str, Any] = {}
    files: dict[str, str] = {}
    for section in sections:
        for key, value in _leaves(getattr(settings, section), section):
            if isinstance(value, Path):
                files[key] = content_digest(value, key)
            else:
                plain[key] = value
    return Ingredients(revision, plain, files, inputs)


def content_digest(path: Path, setting: str) -> str:
    """Digest of a file's bytes, or of a folder: its list of files and sizes, and the bytes of its .txt files.

    Audio is not read for this: a corpus is too large to read twice.
    """
    if path.is_file():
        return file_digest(path)[:16]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder (setting '{setting}'): give --set {setting}=PATH")
    listing = hashlib.sha256()
    for folder, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            mark = file_digest(file) if file.suffix == ".txt" else file.stat().st_size
            listing.update(f"{file.relative_to(path)} {mark}\n".encode())
    return listing.hexdigest()[:16]


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if not field.metadata.get("result", True) or (field.metadata.get("later") and item == field.default):
                continue  # config.NO_RESULT, config.LATER
            yield from _leaves(item, f"{prefix}.{field.name}")
    elif isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}")
    elif isinstance(value, (tuple, list)) and any(dataclasses.is_dataclass(item) for item in value):
        yield prefix, [to_dict(item) for item in value]
    elif isinstance(value, (tuple, list)):
        yield prefix, list(value)
    else:
        yield prefix, value
