"""What a stage was made from: settings, files and earlier stages; whether it is still valid, and if not, why."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
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
    sections: tuple[str, ...] = ()  # what the stage declares, as dotted keys
    no_matter: frozenset[str] = frozenset()  # settings that change no result, or came later and are at their default
    fields: frozenset[str] = frozenset()  # all settings that there are in these sections

    def record(self) -> dict[str, Any]:
        """As JSON gives it back: what is digested, and kept in stage.json."""
        plain = {"revision": self.revision, "settings": self.settings, "files": self.files, "inputs": self.inputs}
        return json.loads(json.dumps(plain))

    @property
    def digest(self) -> str:
        text = json.dumps(self.record(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def changes_since(self, old: Mapping[str, Any]) -> dict[str, str]:
        """What differs from an older record: dotted key (or stage, or "revision") -> the change in words.

        Settings of that record which the stage no longer declares, which there are no longer, or which are known to
        change no result, are none: whoever takes a setting away that a result depended on raises the stage's revision.
        """
        changes, new = {}, self.record()
        if old.get("revision") != self.revision:
            changes["revision"] = "the stage's own code changed"
        for kind, word in (("settings", "setting"), ("files", "content of"), ("inputs", "stage")):
            before, now = dict(_flat(old.get(kind, {}))), dict(_flat(new[kind]))
            for key in sorted(set(before) | set(now)):
                same = key in before and key in now and before[key] == now[key]
                if not same and (kind == "inputs" or key in now or self._matters(key)):
                    detail = f" ({before.get(key)} -> {now.get(key)})" if kind == "settings" else ""
                    changes[key] = f"{word} {key} changed{detail}"
        return changes

    def _matters(self, key: str) -> bool:
        if key in self.no_matter or not any(within(key, section) for section in self.sections):
            return False
        groups = {field.rpartition(".")[0] for field in self.fields}  # whose members are fields, not names of a mapping
        parts = key.split(".")
        above = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return not any(group in groups and member not in self.fields
                       for group, member in itertools.pairwise(above))


def within(key: str, section: str) -> bool:
    """Whether a dotted key is the section itself or stands in it."""
    return key == section or key.startswith(section + ".")


def gather(settings: Any, sections: tuple[str, ...], inputs: dict[str, str], revision: int) -> Ingredients:
    """Ingredients of a stage that uses `sections` (or single settings, by dotted key) of a settings dataclass.

    Raises UserError where a path among them does not exist.
    """
    plain: dict[str, Any] = {}
    files: dict[str, str] = {}
    no_matter, fields = set(), set()
    for section in sections:
        top = section.partition(".")[0]
        fields |= set(_fields(getattr(settings, top), top))
        for key, value, matters in _leaves(getattr(settings, top), top):
            if not within(key, section):
                continue
            if not matters:
                no_matter.add(key)
            elif isinstance(value, Path):
                files[key] = content_digest(value, key)
            else:
                plain[key] = value
    return Ingredients(revision, plain, files, inputs, sections, frozenset(no_matter), frozenset(fields))


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


def _leaves(value: Any, prefix: str, matters: bool = True) -> Iterator[tuple[str, Any, bool]]:
    """Dotted key, value, and whether it counts (config.NO_RESULT, config.LATER)."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            counts = field.metadata.get("result", True) and not (field.metadata.get("later") and item == field.default)
            yield from _leaves(item, f"{prefix}.{field.name}", matters and counts)
    elif isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}", matters)
    elif isinstance(value, (tuple, list)) and any(dataclasses.is_dataclass(item) for item in value):
        yield prefix, [to_dict(item) for item in value], matters
    elif isinstance(value, (tuple, list)):
        yield prefix, list(value), matters
    else:
        yield prefix, value, matters


def _fields(value: Any, prefix: str) -> Iterator[str]:
    """Dotted keys of all fields, groups included."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield f"{prefix}.{field.name}"
            yield from _fields(getattr(value, field.name), f"{prefix}.{field.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _fields(item, f"{prefix}.{key}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Older records hold a group of settings as one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
