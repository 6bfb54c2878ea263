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
         b"FORM": "an aiff file"}


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
        if not begun and (len(held) >= 4 or not data):
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


def _check_headerless(begin: bytes) -> None:
    kind = next((name for head, name in FILES.items() if begin.startswith(head)), "")
    if kind:
        raise UserError(f"standard input is {kind}, not a stream of samples: transcribe it as a file, or take its "
                        "header off (sox FILE -t raw -r 16000 -c 1 -b 16 -e signed-integer -)")
