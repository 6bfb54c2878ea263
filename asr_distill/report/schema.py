"""Plain data (as JSON gives it) into dataclasses, refusing every missing, unknown or wrongly typed value."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from asr_distill.errors import nearest

Form = TypeVar("Form")


def from_plain(cls: type[Form], value: Any, path: str = "") -> Form:
    """Fill the dataclass `cls` from a JSON object.

    Nothing is converted and nothing has a default: a key must be there, be known and have the annotated type
    (an integer passes for a float). Raises ValueError that names the path, as `systems[2].splits.test.wer`.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{path or 'the file'} must be an object, not {_shown(value)}")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in value:
        if key not in names:
            raise ValueError(f"unknown key '{_join(path, key)}'{nearest(str(key), names)}")
    for name in names:
        if name not in value:
            raise ValueError(f"'{_join(path, name)}' is missing")
    filled = {name: _checked(hints[name], value[name], _join(path, name)) for name in names}
    try:
        return cls(**filled)
    except ValueError as error:  # a dataclass checks its own ranges in __post_init__
        raise ValueError(f"{path + ': ' if path else ''}{error}") from None


def _checked(kind: Any, value: Any, path: str) -> Any:
    base, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return from_plain(typing.cast(type, kind), value, path)
    if base in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        kinds = [k for k in inner if k is not type(None)]
        return _checked(_most_like(kinds, value) if len(kinds) > 1 else kinds[0], value, path)
    if base is Literal:
        if value not in inner:
            raise ValueError(f"'{path}' must be one of {', '.join(inner)}, not {_shown(value)}")
        return value
    if base is list:
        if not isinstance(value, list):
            raise ValueError(f"'{path}' must be a list, not {_shown(value)}")
        return [_checked(inner[0], item, f"{path}[{index}]") for index, item in enumerate(value)]
    if base is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"'{path}' must be an object, not {_shown(value)}")
        return {key: _checked(inner[1], item, _join(path, key)) for key, item in value.items()}
    return _number_or_text(kind, value, path)


def _most_like(kinds: list[type], value: Any) -> type:
    """Of several dataclasses the one that shares most keys with `value`, less those that it lacks."""
    def likeness(kind: Any) -> int:
        names = {field.name for field in dataclasses.fields(kind)}
        return len(names & set(value)) - len(set(value) - names)

    return max(kinds, key=likeness) if isinstance(value, Mapping) else kinds[0]


def _number_or_text(kind: Any, value: Any, path: str) -> Any:
    wanted = {int: "an integer", float: "a number", str: "text"}[kind]
    accepted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise ValueError(f"'{path}' must be {wanted}, not {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{path}' must be a finite number, not {value}")
    return float(value) if kind is float else value


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
