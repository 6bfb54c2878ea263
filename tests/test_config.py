"""Typed settings: every wrong key or value is one clear line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from asr_distill.config import build, load_settings, to_dict
from asr_distill.errors import UserError


@dataclass(frozen=True)
class Network:
    width: int = 512
    dropout: float = 0.0
    kind: Literal["feedforward", "tdnn"] = "feedforward"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("width must be at least 1")


@dataclass(frozen=True)
class Settings:
    network: Network = Network()
    seeds: tuple[int, ...] = (1, 2)
    lexicon: Path | None = None
    bf16: bool = False
    subsets: dict[str, str] = field(default_factory=dict)


def test_defaults_files_and_overrides_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("network: {width: 10, dropout: 0.5}\nsubsets: {train: train-clean-5}\n")
    second.write_text("network:\n  width: 20\nseeds: [3]\n")
    got = load_settings(Settings, [first, second], ["network.dropout=1e-1", "lexicon=some/file", "bf16=true"])
    assert got == Settings(Network(20, 0.1), (3,), Path("some/file"), True, {"train": "train-clean-5"})
    assert build(Settings, to_dict(got)) == got


def test_a_mapping_of_named_things_replaces_that_of_an_earlier_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("subsets: {train: a, tune: b}\n")
    second.write_text("subsets: {train: c}\n")
    assert load_settings(Settings, [first, second]).subsets == {"train": "c"}
    assert load_settings(Settings, [first], ["subsets.test=d"]).subsets == {"train": "a", "tune": "b", "test": "d"}


@pytest.mark.parametrize(("override", "message"), [
    ("network.widht=3", "unknown setting 'network.widht' (did you mean 'width'?)"),
    ("netwrk.width=3", "unknown setting 'netwrk' (did you mean 'network'?)"),
    ("network.width=big", "setting 'network.width' must be a whole number, not 'big'"),
    ("network.width=true", "must be a whole number"),
    ("network.dropout=much", "must be a number"),
    ("network.kind=tdn", "must be one of feedforward, tdnn (did you mean 'tdnn'?)"),
    ("network.width=0", "width must be at least 1"),
    ("network=3", "must be a group of settings"),
    ("seeds=3", "must be a list"),
    ("bf16=1", "must be true or false"),
    ("network.dropout=.nan", "must be a number"),
    ("subsets=x", "must be a mapping"),
    ("nonsense", "write it as key=value"),
])
def test_wrong_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_settings(Settings, [], [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_on_the_command_line_are_taken_as_written() -> None:
    assert load_settings(Settings, [], ["lexicon=010"]).lexicon == Path("010")
    assert load_settings(Settings, [], ["lexicon=null"]).lexicon is None
    assert load_settings(Settings, [], ["network={width: 7}", "network.dropout=0.5"]).network == Network(7, 0.5)


def test_the_file_with_the_mistake_is_named(tmp_path: Path) -> None:
    conf = tmp_path / "conf.yaml"
    conf.write_text("network: {widht: 10}\n")
    with pytest.raises(UserError, match=r"conf\.yaml: unknown setting"):
        load_settings(Settings, [conf])
    conf.write_text("network: {width: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_settings(Settings, [conf])
    conf.write_text("lexicon: [1]\n")
    with pytest.raises(UserError, match="must be a path"):
        load_settings(Settings, [conf])
    conf.write_text("on: 1\n")
    with pytest.raises(UserError, match="unknown setting 'True'"):
        load_settings(Settings, [conf])
    conf.write_text("- 1\n")
    with pytest.raises(UserError, match="expected `key: value`"):
        load_settings(Settings, [conf])
    with pytest.raises(UserError, match="no such file"):
        load_settings(Settings, [tmp_path / "absent.yaml"])
    conf.write_text("")
    assert load_settings(Settings, [conf]) == Settings()
