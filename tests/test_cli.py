"""The command line: a table of contents, one line for a mistake, right exit codes."""

from __future__ import annotations

import argparse
import errno
import importlib
from pathlib import Path

import pytest

from asr_distill.cli import CONTENTS, main
from asr_distill.command import guarded
from asr_distill.device import device_of
from asr_distill.errors import UserError


def test_help_reads_like_a_table_of_contents(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for chapter, verbs in CONTENTS.items():
        assert f"{chapter}:" in text
        for verb in verbs:
            assert f"{verb.name:12}{verb.summary}" in text


def test_every_verb_of_the_table_exists() -> None:
    for verbs in CONTENTS.values():
        for verb in verbs:
            module = importlib.import_module(verb.module)
            module.add_arguments(argparse.ArgumentParser())
            assert callable(module.run)


def test_unknown_verb_and_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
    assert "trian" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize(("error", "code", "message"), [
    (UserError("a.flac: truncated"), 1, "asr-distill: error: a.flac: truncated"),
    (KeyboardInterrupt(), 130, "the same command goes on from here"),
    (OSError(errno.ENOSPC, "No space left on device", "x/frames.npy"), 1, "x/frames.npy: no space left"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: Permission denied; check the permissions"),
])
def test_mistakes_are_one_line(error: BaseException, code: int, message: str,
                               capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: argparse.Namespace) -> int:
        raise error

    assert guarded(fails, argparse.Namespace()) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_script_that_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a.py", "x = 1\n"), ("b.py", "x = (\n"), ("c.py", "recipe = 3\n")):
        (tmp_path / name).write_text(text)
        assert main(["run", str(tmp_path / name), "--list"]) == 1
        assert name in capsys.readouterr().err
    assert main(["run", "mini_librispech", "--list"]) == 1
    assert "did you mean 'mini_librispeech'" in capsys.readouterr().err


def test_devices() -> None:
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "mps"):
        with pytest.raises(UserError, match="use auto, cpu, cuda"):
            device_of(wrong)
