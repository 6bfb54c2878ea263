"""Sound files as pieces that a recogniser takes: one channel, its sample rate, no longer than a limit."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from asr_distill.errors import UserError

log = logging.getLogger("asr_distill")
READ_SECONDS = 10.0
ENERGY_SECONDS = 0.2  # a pause between words is longer than this


@dataclass(frozen=True)
class Piece:
    """Consecutive samples of a file, float32 in [-1, 1], and where they begin."""

    start: float  # seconds
    samples: np.ndarray  # (samples,)


def read_pieces(path: Path, sample_rate: int, max_seconds: float = 30.0) -> Iterator[Piece]:
    """Cut a file into pieces of at most `max_seconds`, at the quietest place of each piece's last third.

    Any format, rate and channel count that libsndfile reads (wav, flac, ogg, mp3 ...); channels are averaged;
    resampled by libsoxr. Memory does not grow with the file's length. Raises UserError where the file is missing
    or cannot be read to its end; pieces before the damage have been yielded by then.
    """
    limit = int(max_seconds * sample_rate)
    held = np.zeros(0, np.float32)
    start = 0
    for block in _blocks(path, sample_rate):
        held = np.concatenate([held, block])
        while len(held) > limit:
            cut = quietest(held[:limit], 2 * limit // 3, int(ENERGY_SECONDS * sample_rate))
            yield Piece(start / sample_rate, held[:cut])
            held, start = held[cut:], start + cut
    if len(held):
        yield Piece(start / sample_rate, held)


def quietest(samples: np.ndarray, begin: int, width: int) -> int:
    """The middle of the `width` consecutive samples of least energy in samples[begin:]."""
    power = np.concatenate([[0.0], np.square(samples[begin:], dtype=np.float64).cumsum()])
    energy = power[width:] - power[:-width]  # (positions,)
    return begin + int(energy.argmin()) + width // 2


def _blocks(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """The file's samples at `sample_rate`, one channel, some seconds at a time."""
    if not path.is_file():
        raise UserError(f"{path}: no such sound file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # a name need not be UTF-8
            if any(line.startswith("data") and "should be" in line for line in file.extra_info.splitlines()):
                log.warning("%s: shorter than its header says (truncated?); transcribing what is there", path)
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
            size = int(READ_SECONDS * file.samplerate)
            while len(block := file.read(size, dtype="float32", always_2d=True)):  # (samples, channels)
                if not np.isfinite(block).all():
                    raise UserError(f"{path}: holds samples that are no numbers (NaN or infinity); make it again")
                yield resampler.resample_chunk(np.ascontiguousarray(block.mean(1)))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except soundfile.SoundFileError as error:
        raise UserError(f"{path}: not a readable sound file ({str(error).rsplit(': ', 1)[-1].strip()}); "
                        "give wav, flac, ogg or mp3, or copy it again if it is truncated") from None
    except TypeError:  # soundfile wants to be told what is in a .raw file
        raise UserError(f"{path}: samples without a header; send them to asr-distill transcribe --stream") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
