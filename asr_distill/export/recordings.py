"""The sound files that a user means by a list of files and folders, each with a name for its results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import soundfile

from asr_distill.errors import UserError, describe

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf", ".sph"})


@dataclass(frozen=True)
class Recording:
    """`name`: the path below the folder that it was found in (a file's own name), without its suffix, with /."""

    path: Path
    name: str

    def seconds(self) -> float:
        """As its header says; 0 where that cannot be read."""
        try:
            return float(soundfile.info(os.fsencode(self.path)).duration)
        except (OSError, RuntimeError, ValueError, TypeError):  # soundfile's are RuntimeErrors; TypeError: a .raw file
            return 0.0


def find_recordings(paths: Iterable[Path]) -> list[Recording]:
    """Files as they are given (whether they exist is for their reader to say), folders with all sound files below
    them (known by their suffix; none whose name, or a folder's on the way, begins with a dot), sorted by path. What
    is named twice comes once.

    Raises UserError where a folder holds no sound file, or one on the way cannot be read.
    """
    found: dict[str, Recording] = {}
    for path in paths:
        for recording in _below(path) if path.is_dir() else [Recording(path, path.stem)]:
            found.setdefault(os.path.abspath(recording.path), recording)
    return list(found.values())


def _below(folder: Path) -> Iterator[Recording]:
    def unreadable(error: OSError) -> None:
        raise UserError(f"{describe(error)}, or give the folders beside it by name")

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [path.relative_to(folder) for name in names if not name.startswith(".")
                  and (path := Path(place, name)).suffix.lower() in SUFFIXES and path.is_file()]
    files.sort()
    if not files:
        raise UserError(f"{folder}: no sound files in it or below it (looked for "
                        f"{', '.join(sorted(SUFFIXES))}); give files by name if theirs end otherwise")
    for path in files:
        yield Recording(folder / path, str(PurePosixPath(path.with_suffix(""))))


def shown(path: Path | str) -> str:
    """For output, which is UTF-8 as names of files need not be."""
    return os.fsencode(path).decode("utf-8", "replace")


def check_names(recordings: Iterable[Recording]) -> None:
    """Raises UserError where two recordings' results would have one name."""
    known: dict[str, Recording] = {}
    for recording in recordings:
        other = known.setdefault(recording.name.casefold(), recording)  # some disks know no upper case
        if other is not recording:
            mend = "rename one" if other.path.parent == recording.path.parent else "give the folder above them"
            raise UserError(f"{other.path} and {recording.path}: both would be called '{recording.name}'; {mend}, or "
                            "transcribe them one by one")
