"""Typed settings: dataclasses filled from YAML files and `--set key=value`; every wrong key or value is refused."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from asr_distill.errors import UserError, nearest
from asr_distill.files import read_text

Settings = TypeVar("Settings")
# Metadata of a field that changes speed or place but no result: no reason to run a stage again.
NO_RESULT: Mapping[str, Any] = types.MappingProxyType({"result": False})
# Metadata of a field that came later and whose default means what was done before it: at its default it is no part of
# a stage's record, so that older experiments stay valid.
LATER: Mapping[str, Any] = types.MappingProxyType({"later": True})


class _FromCommandLine(typing.NamedTuple):
    """A value of --set: a path or text is taken as it was written, all else as YAML reads it."""

    text: str
    parsed: Any


def load_settings(cls: type[Settings], files: Iterable[Path] = (), overrides: Sequence[str] = ()) -> Settings:
    """Build the dataclass `cls` from YAML files (later ones win), then `key.sub=value` overrides.

    A key that is absent keeps its default. A mapping of named things (`dict[str, ...]`) in a file replaces the one of
    an earlier file whole; everything else is merged key by key. Raises UserError for an unknown key (naming the
    nearest right one), a value of the wrong type, a missing file, or broken YAML.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        tree = read_tree(file)
        _merge(merged, tree, cls)
        _note_origin(origin, tree, str(file))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override}: write it as key=value, for example --set student.width=512")
        tree = {}
        cursor = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            cursor = cursor.setdefault(parent, {})
        parsed = _parsed(text)
        cursor[leaf] = parsed if isinstance(parsed, dict) else _FromCommandLine(text, parsed)
        _merge(merged, tree)
        _note_origin(origin, tree, f"--set {override}")
    return build(cls, merged, origin=origin)


def build(cls: type[Settings], tree: Mapping[str, Any], *, origin: Mapping[str, str] | None = None,
          prefix: str = "") -> Settings:
    """Fill one (possibly nested) dataclass from plain data, checking keys and types."""
    origin = origin or {}
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = str(name)
        path = f"{prefix}{key}"
        if key not in fields:
            raise UserError(f"{_where(origin, path)}unknown setting '{path}'{nearest(key, fields)}; "
                            f"known here: {', '.join(fields)}")
        values[key] = _convert(hints[key], value, path, origin)
    try:
        return cls(**values)
    except ValueError as error:  # a dataclass checks its own ranges in __post_init__
        at = next((origin[p] for p in origin if p.startswith(prefix)), "")
        raise UserError(f"{at + ': ' if at else ''}{prefix.rstrip('.') or 'settings'}: {error}") from None


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as plain data (paths as text, tuples as lists): what `build` reads back."""
    return _plain(dataclasses.asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _convert(kind: Any, value: Any, path: str, origin: Mapping[str, str]) -> Any:
    """`value` as the annotated type `kind`, or a UserError that says what was expected."""
    def refuse(expected: str) -> UserError:
        return UserError(f"{_where(origin, path)}setting '{path}' must be {expected}, not {value!r}")

    if kind is Any:  # whoever asked for it checks it
        return value
    base = typing.get_origin(kind)
    if isinstance(value, _FromCommandLine):
        options = typing.get_args(kind) if base in (typing.Union, types.UnionType) else (kind,)
        as_written = value.parsed is not None and (Path in options or str in options)
        value = value.text if as_written else value.parsed
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise refuse("a group of settings")
        return build(typing.cast(type, kind), value, origin=origin, prefix=path + ".")
    if base is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise refuse(f"one of {', '.join(map(str, choices))}{nearest(str(value), map(str, choices))}")
        return value
    if base in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, path, origin)
    if base in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise refuse("a list")
        item = typing.get_args(kind)[0]
        return base(_convert(item, element, f"{path}[{i}]", origin) for i, element in enumerate(value))
    if base is dict:
        if not isinstance(value, Mapping):
            raise refuse("a mapping")
        item = typing.get_args(kind)[1]
        return {str(k): _convert(item, element, f"{path}.{k}", origin) for k, element in value.items()}
    if kind is bool:
        if not isinstance(value, bool):
            raise refuse("true or false")
        return value
    if kind is float:
        # YAML reads 1e-3 as text; a person means the number.
        try:
            if isinstance(value, bool) or not math.isfinite(float(value)):
                raise ValueError
            return float(value)
        except (TypeError, ValueError):
            raise refuse("a number") from None
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse("a whole number")
        return value
    if kind is Path:
        if not isinstance(value, (str, Path)):
            raise refuse("a path")
        return Path(value).expanduser()
    if kind is str:
        if isinstance(value, (dict, list)) or value is None:
            raise refuse("text")
        return str(value)
    raise TypeError(f"setting '{path}': no rule for the annotation {kind}")


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        return text


def read_tree(file: Path) -> dict[str, Any]:
    """A YAML file as plain data. Raises UserError where it is missing or no mapping."""
    try:
        tree = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected `key: value` lines at the top level")
    return tree


def _merge(base: dict[str, Any], update: Mapping[str, Any], kind: Any = None) -> None:
    """`kind`: the dataclass that is described; mappings in it that are no dataclass are replaced, not merged."""
    hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    for key, value in update.items():
        inner = hints.get(key)
        if isinstance(value, Mapping) and isinstance(base.get(key), dict) and typing.get_origin(inner) is not dict:
            _merge(base[key], value, inner)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _note_origin(origin: dict[str, str], tree: Mapping[str, Any], source: str, prefix: str = "") -> None:
    for key, value in tree.items():
        origin[f"{prefix}{key}"] = source
        if isinstance(value, Mapping):
            _note_origin(origin, value, source, f"{prefix}{key}.")


def _where(origin: Mapping[str, str], path: str) -> str:
    while path:
        if path in origin:
            return f"{origin[path]}: "
        path = path.rpartition(".")[0]
    return ""
