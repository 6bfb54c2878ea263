"""Is this audio file whole? Decoded to its end and compared with what its own header promises.

Workers of `librispeech.prepare` import this module, so it stays light (no lhotse, no torch).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import soundfile

BLOCK_SAMPLES = 1 << 18  # bounds the memory of a check, whatever the header says about the length
AUDIO_SUFFIXES = (".flac", ".wav")
MEND = "copy or unpack it again"
# libsndfile reads nothing from a FLAC that was written to a pipe, whose header states no length.
NO_SAMPLES = "no audio samples, or a FLAC header without length; encode it again (flac -f IN) or remove it"
AudioJob = tuple[str, tuple[str, ...], int]  # corpus root, files relative to it, sample rate


@dataclass(frozen=True)
class AudioFacts:
    """What one file holds. `problem` says, in one line with its mend, why it cannot be used."""

    num_samples: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class AudioHeader:
    """What the container promises."""

    stated: bool = False  # the header was found
    num_samples: int = 0  # 0: none, or written by a program that did not know the length yet
    md5: bytes | None = None  # FLAC: of the decoded samples, little-endian, interleaved


def check_audio(path: Path, sample_rate: int) -> AudioFacts:
    """Decode `path` to its end and check rate, channels, length and (16-bit FLAC) the MD5 of the samples.

    libsndfile alone is not enough: it shortens a truncated WAV without a word and never compares the MD5.
    """
    try:
        with open(path, "rb") as file:
            header = read_header(file)
            size = file.seek(0, 2)
    except OSError as error:
        return AudioFacts(problem=f"cannot be read ({error.strerror}); mend the file or its permissions")
    if size == 0:
        return AudioFacts(problem=f"empty file (0 bytes); {MEND}")
    decoded = 0
    try:
        with soundfile.SoundFile(path) as audio:
            if audio.samplerate != sample_rate:
                return AudioFacts(problem=f"sample rate {audio.samplerate} Hz, expected {sample_rate} Hz; "
                                          f"resample it (sox IN -r {sample_rate} OUT)")
            if audio.channels != 1:
                return AudioFacts(problem=f"{audio.channels} channels, expected 1; keep one (sox IN OUT remix 1)")
            # The MD5 is over samples in the file's own width; other widths are checked by their length.
            digest = hashlib.md5(usedforsecurity=False) if header.md5 and audio.subtype == "PCM_16" else None
            while len(block := audio.read(BLOCK_SAMPLES, dtype="int16")):  # (samples,)
                decoded += len(block)
                if digest:
                    digest.update(block.astype("<i2", copy=False))
    except soundfile.LibsndfileError as error:
        if header.stated and header.num_samples == decoded == 0:
            return AudioFacts(problem=NO_SAMPLES)
        promised = f" of {header.num_samples}" if header.num_samples else ""
        return AudioFacts(problem=f"truncated or damaged: decoding stopped after {decoded}{promised} samples "
                                  f"({error.error_string.strip() or 'no reason given'}); {MEND}")
    if decoded == 0:
        return AudioFacts(problem=NO_SAMPLES)
    if header.num_samples and header.num_samples != decoded:
        return AudioFacts(problem=f"truncated: the header promises {header.num_samples} samples, {decoded} are "
                                  f"there; {MEND}")
    if digest and digest.digest() != header.md5:
        return AudioFacts(problem=f"damaged: the samples do not have the MD5 in the FLAC header; {MEND}")
    return AudioFacts(num_samples=decoded)


def check_files(job: AudioJob) -> list[AudioFacts]:
    """`check_audio` over one job of the executor."""
    root, files, sample_rate = job
    return [check_audio(Path(root) / file, sample_rate) for file in files]


def read_header(file: BinaryIO) -> AudioHeader:
    """STREAMINFO of a FLAC file (RFC 9639, section 8.2) or the `data` chunk of a RIFF/WAVE file."""
    start = file.read(42)
    if start[:4] == b"fLaC" and len(start) == 42:
        # From byte 18: 20 bits of rate, 3 of channels, 5 of width, 36 of length; then the MD5, all zero if unknown.
        num_samples = int.from_bytes(start[18:26], "big") & ((1 << 36) - 1)
        return AudioHeader(True, num_samples, start[26:42] if any(start[26:42]) else None)
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return _wav_header(file)
    return AudioHeader()


def _wav_header(file: BinaryIO) -> AudioHeader:
    """Walks the RIFF chunks up to `data`."""
    file.seek(12)
    block_align = 0
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            known = block_align and size != 0xFFFFFFFF  # what a writer to a pipe leaves behind
            return AudioHeader(True, size // block_align if known else 0)
        body = file.read(size + size % 2)
        if name == b"fmt " and len(body) >= 14:
            block_align = struct.unpack("<H", body[12:14])[0]
    return AudioHeader()
