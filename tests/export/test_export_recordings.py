"""Which sound files a list of files and folders means."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_distill.errors import UserError
from asr_distill.export.recordings import SUFFIXES, Recording, check_names, find_recordings, shown


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_folders_are_searched_and_sorted(tmp_path: Path) -> None:
    names = ["b.wav", "a/z.FLAC", "a/b/c.mp3", "B.ogg", "a/notes.txt", ".hidden/x.wav", "a/._z.flac", "a.wav"]
    touch(*(tmp_path / name for name in names))
    (tmp_path / "folder.wav").mkdir()
    found = find_recordings([tmp_path])
    assert [each.path.relative_to(tmp_path).as_posix() for each in found] == ["B.ogg", "a/b/c.mp3", "a/z.FLAC", "a.wav",
                                                                               "b.wav"]
    assert [each.name for each in found] == ["B", "a/b/c", "a/z", "a", "b"]


def test_files_keep_their_order_and_come_once(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "b.wav", tmp_path / "x" / "a.wav", tmp_path / "odd.name")
    given = [tmp_path / "odd.name", tmp_path / "x" / "b.wav", tmp_path / "missing.wav", tmp_path / "x",
             tmp_path / "x" / "a.wav", tmp_path / "x" / ".." / "odd.name"]
    assert [each.path.name for each in find_recordings(given)] == ["odd.name", "b.wav", "missing.wav", "a.wav"]
    assert find_recordings([tmp_path / "odd.name"]) == [Recording(tmp_path / "odd.name", "odd")]


def test_a_folder_without_sound_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / ".wav")
    with pytest.raises(UserError, match=r"no sound files in it or below it .*\.flac"):
        find_recordings([tmp_path])


def test_two_recordings_of_one_name(tmp_path: Path) -> None:
    touch(tmp_path / "1" / "a.wav", tmp_path / "2" / "A.flac")
    check_names(find_recordings([tmp_path]))
    with pytest.raises(UserError, match=r"a.wav and .*A.flac: both would be called 'A'; give the folder above"):
        check_names(find_recordings([tmp_path / "1", tmp_path / "2" / "A.flac"]))
    touch(tmp_path / "1" / "a.mp3")
    with pytest.raises(UserError, match=r"a.mp3 and .*a.wav: both would be called 'a'; rename one"):
        check_names(find_recordings([tmp_path / "1"]))


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "x" / "a.wav", tmp_path / "y" / "b.wav")
    scandir = os.scandir

    def scan(place: str | os.PathLike[str]) -> object:  # root may read what chmod forbids
        if os.fspath(place).endswith("y"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UserError, match=r"y: Permission denied; check the permissions .*, or give the folders beside"):
        find_recordings([tmp_path])


def test_names_that_are_no_text_are_shown_as_far_as_they_are() -> None:
    assert shown(Path(os.fsdecode(b"/t/M\xfcll.wav"))) == "/t/M\ufffdll.wav" and shown("/t/Müll") == "/t/Müll"


def test_seconds_are_the_headers(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((4410, 2)), 44100)
    assert Recording(tmp_path / "a.wav", "a").seconds() == pytest.approx(0.1)
    touch(tmp_path / "b.wav")
    assert Recording(tmp_path / "b.wav", "b").seconds() == Recording(tmp_path / "none", "none").seconds() == 0


def test_suffixes_are_those_that_the_library_reads() -> None:
    """Formats by libsndfile's own list; names that differ from the format's are spelled out."""
    formats = {name.lower() for name in soundfile.available_formats()}
    same = {"oga": "ogg", "opus": "ogg", "aif": "aiff", "sph": "nist"}
    assert {same.get(suffix[1:], suffix[1:]) for suffix in SUFFIXES} <= formats
