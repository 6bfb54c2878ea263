"""Recordings as they are embedded: FLAC, one channel, at most 16 kHz, without what their files say of themselves."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import soundfile
import soxr

from asr_distill.errors import UserError

RATE = 16_000  # recognisers hear no more


def flac_of(path: Path, start: float = 0.0, seconds: float | None = None) -> bytes:
    """A stretch of a sound file (all of it from `start` where `seconds` is None).

    Raises UserError where it is missing or not readable.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such sound file")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            file.seek(min(round(start * rate), file.frames))
            samples = file.read(-1 if seconds is None else round(seconds * rate), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UserError(f"{path}: not a readable sound file ({error})") from None
    mono = samples.mean(1)  # (samples,)
    if rate > RATE:
        mono, rate = soxr.resample(mono, rate, RATE), RATE
    encoded = io.BytesIO()
    soundfile.write(encoded, mono, rate, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def data_url(flac: bytes) -> str:
    return "data:audio/flac;base64," + base64.b64encode(flac).decode("ascii")
