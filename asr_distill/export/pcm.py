"""Sound from a pipe: 16-bit little-endian PCM of one channel, as arecord, sox and ffmpeg write it."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Iterator

import numpy as np
import soxr

from asr_distill.errors import UserError

log = logging.getLogger("asr_distill")
READ_BYTES = 1 << 16
POLL_SECONDS = 0.2  # how long a wish to stop may wait while no sound comes
FILES = {b"RIFF": "a wav file", b"fLaC": "a flac file", b"OggS": "an ogg file", b"ID3": "an mp3 file",
         b"FORM": "an aiff file", b".snd": "an au file", b"caff": "a caf file", b"\x1aE\xdf\xa3": "a webm file",
         b"NIST": "a sphere file"}
MP3_KILOBITS = ((32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
                (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))  # MPEG 2 and 2.5
HEAD_BYTES = 4 * 1024  # enough for two frames of an mp3 file


def read_pcm(descriptor: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[np.ndarray]:
    """float32 samples (n,) in [-1, 1), as soon as some have come, until the pipe ends or `stopped` says so.

    An odd byte at the end is left out, and the log says so. Raises UserError where the stream begins as a sound file
    with a header does.
    """
    held = b""
    begun = False
    while not stopped():
        if not select.select([descriptor], [], [], POLL_SECONDS)[0]:
            continue
        data = os.read(descriptor, READ_BYTES)
        held += data
        if not begun and (len(held) >= HEAD_BYTES or (len(held) >= 4 and _mp3_frame(held) is None) or not data):
            _check_headerless(held)
            begun = True
        if begun and len(held) >= 2:
            whole = len(held) // 2 * 2
            yield np.frombuffer(held[:whole], "<i2").astype(np.float32) / 32768
            held = held[whole:]
        if not data:
            break
    if len(held) % 2:
        log.warning("the stream ends with half a sample (an odd number of bytes): 16-bit samples are expected")


def resampled(blocks: Iterator[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """float32 samples (n,) from one rate (Hz) to another by libsoxr, block by block."""
    if rate == wanted:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def resampler_delay(rate: int, wanted: int) -> float:
    """Seconds of sound that `resampled` holds back at most, measured on one second of noise."""
    if rate == wanted:
        return 0.0
    block = np.random.default_rng(0).normal(0, 0.1, max(1, rate // 100)).astype(np.float32)
    heard = given = longest = 0.0
    for samples in resampled(iter([block] * 100), rate, wanted):
        heard += len(block) / rate
        given += len(samples) / wanted
        if heard <= 1.0 + 1e-9:  # the last piece brings what is left
            longest = max(longest, heard - given)
    return longest


def _is_mp3(begin: bytes) -> bool:
    """Whether two frames of one kind stand one after the other (of samples that begin so, 1 in 100,000 does)."""
    length = _mp3_frame(begin)
    if length is None:
        return False
    second = begin[length:length + 4]
    return _mp3_frame(second) is not None and second[1] == begin[1] and second[2] & 0x0C == begin[2] & 0x0C


def _mp3_frame(head: bytes) -> int | None:
    """Bytes of the MPEG layer III frame with this header, or None where it is none (ISO 11172-3, 2.4.2.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate, number = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate == 3 or number in (0, 15) or head[3] & 3 == 2:
        return None
    kilobits = (MP3_KILOBITS[0] if version == 3 else MP3_KILOBITS[1])[number - 1]
    hertz = (44100, 48000, 32000)[rate] >> (3 - version if version else 2)
    return (144 if version == 3 else 72) * 1000 * kilobits // hertz + (head[2] >> 1 & 1)


def _check_headerless(begin: bytes) -> None:
    kind = next((name for head, name in FILES.items() if begin.startswith(head)), "")
    if begin[4:8] == b"ftyp":
        kind = "an mp4 file"
    if not kind and _is_mp3(begin):
        kind = "an mp3 file"
    if kind:
        raise UserError(f"standard input is {kind}, not a stream of samples: transcribe it as a file, or take its "
                        "header off (sox FILE -t raw -r 16000 -c 1 -b 16 -e signed-integer -)")
