"""A frame store in the making: runs of utterances that are written one by one, each then marked done."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr_distill.features.store import FRAMES, HEAD
from asr_distill.features.waveform import Clip
from asr_distill.files import read_array

_SHORTEST_PART, _LONGEST_PART = 60.0, 900.0  # seconds of audio


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of utterances whose rows of frames.npy are written by one thread, then marked done."""

    number: int
    clips: Sequence[Clip]
    counts: Sequence[int]  # frames of each utterance
    first_row: int

    @property
    def seconds(self) -> float:
        return sum(clip.seconds for clip in self.clips)


def divide(clips: Sequence[Clip], counts: Sequence[int]) -> list[Part]:
    """Parts of equal length, a hundred or more unless they would become very short."""
    longest = min(max(sum(clip.seconds for clip in clips) / 128, _SHORTEST_PART), _LONGEST_PART)
    parts: list[Part] = []
    first = row = 0
    seconds = 0.0
    for end, clip in enumerate(clips, 1):
        seconds += clip.seconds
        if seconds >= longest or end == len(clips):
            parts.append(Part(len(parts), clips[first:end], counts[first:end], row))
            row += sum(counts[first:end])
            first, seconds = end, 0.0
    return parts


def begin(out: Path, digest: str, shape: tuple[int, int]) -> Path:
    """The directory of done marks for this digest; without one, an empty frames.npy is made and old work removed.

    The digest is in the directory's name, so marks never count for other utterances or settings.
    """
    marks = out / f".parts-{digest[:16]}"
    if marks.is_dir() and (out / FRAMES).is_file() and (out / FRAMES).stat().st_size == _file_bytes(out, shape):
        return marks
    out.mkdir(parents=True, exist_ok=True)
    (out / HEAD).unlink(missing_ok=True)  # from here on the directory holds no finished store
    for old in out.glob(".parts-*"):
        shutil.rmtree(old)
    (out / FRAMES).unlink(missing_ok=True)
    with open(out / FRAMES, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + shape[0] * shape[1] * 2)
    marks.mkdir()
    return marks


def _file_bytes(out: Path, shape: tuple[int, int]) -> int:
    with open(out / FRAMES, "rb") as file:
        return header_bytes(file) + shape[0] * shape[1] * 2


def header_bytes(file: BinaryIO) -> int:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def mark(marks: Path, part: Part) -> Path:
    return marks / f"{part.number:06d}.npy"


def read_mark(marks: Path, part: Part, coefficients: int) -> np.ndarray | None:
    """The statistics of a finished part; None where it has yet to be computed."""
    path = mark(marks, part)
    if not path.exists():
        return None
    stats = read_array(path)
    fits = stats.shape == (len(part.clips), 1 + 2 * coefficients) and stats[:, 0].tolist() == list(part.counts)
    return stats if fits else None
