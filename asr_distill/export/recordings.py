"""The sound files that a user means by a list of files and folders, each with a name for its results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import soundfile

from asr_distill.errors import UserError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf", ".sph"})


@dataclass(frozen=True)
class Recording:
    """`name`: the path below the folder that it was found in (a file's own name), without its suffix, with /."""

    path: Path
    name: str

    def seconds(self) -> float:
        """As its header says; 0 where that cannot be read."""
        try:
            return float(soundfile.info(self.path).duration)
        except (OSError, RuntimeError, ValueError, TypeError):  # soundfile's are RuntimeErrors; TypeError: a .raw file
            return 0.0


def find_recordings(paths: Iterable[Path]) -> list[Recording]:
    """Files as they are given (whether they exist is for their reader to say), folders with all sound files below
    them (known by their suffix; none whose name, or a folder's on the way, begins with a dot), sorted by path. What
    is named twice comes once.

    Raises UserError where a folder holds no sound file.
    """
    found: dict[str, Recording] = {}
    for path in paths:
        for recording in _below(path) if path.is_dir() else [Recording(path, path.stem)]:
            found.setdefault(os.path.abspath(recording.path), recording)
    return list(found.values())


def _below(folder: Path) -> Iterator[Recording]:
    inside = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    files = sorted(path for path in inside
                   if not any(part.startswith(".") for part in path.parts) and (folder / path).is_file())
    if not files:
        raise UserError(f"{folder}: no sound files in it or below it (looked for "
                        f"{', '.join(sorted(SUFFIXES))}); give files by name if theirs end otherwise")
    for path in files:
        yield Recording(folder / path, str(PurePosixPath(path.with_suffix(""))))


def check_names(recordings: Iterable[Recording]) -> None:
    """Raises UserError where two recordings would be written to one file."""
    known: dict[str, Recording] = {}
    for recording in recordings:
        other = known.setdefault(recording.name.casefold(), recording)  # some disks know no upper case
        if other is not recording:
            raise UserError(f"{other.path} and {recording.path}: --out would write both as '{recording.name}'; "
                            "transcribe them into two folders, or give the folder above them")
