"""Many recordings transcribed side by side, their transcripts in the order of the recordings.

Threads, not processes: network and search hold no interpreter lock while they compute, and the search graph (hundreds
of megabytes) is in memory once.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import torch

from asr_distill.errors import UserError
from asr_distill.export.recordings import Recording
from asr_distill.export.transcribe import Transcriber, Transcript
from asr_distill.progress import Progress

AHEAD = 32  # recordings a thread that may wait for an earlier one: what is in memory is bounded


class Outcome(NamedTuple):
    """Of a recording: a transcript, or why there is none."""

    recording: Recording
    transcript: Transcript | None
    error: UserError | None = None


class _Stopped(Exception):
    """Nobody waits for the transcript any more."""


def transcribe_all(transcriber: Transcriber, recordings: Sequence[Recording], *, jobs: int = 1, word_times: bool = True,
                   nbest: int = 0, watch: Watch | None = None) -> Iterator[Outcome]:
    """Outcomes in the order of `recordings`, `jobs` of which are worked on at a time.

    Where the iteration is left early, the threads end after their present pieces of audio.
    """
    if word_times:
        _ = transcriber.language  # once, before several threads ask for it
    stopped = threading.Event()

    def progress(seconds: float) -> None:
        if stopped.is_set():
            raise _Stopped
        if watch:
            watch.advance(seconds)

    def work(recording: Recording) -> Outcome:
        try:
            return Outcome(recording, transcriber.transcribe(recording.path, word_times=word_times, nbest=nbest,
                                                             progress=progress))
        except UserError as error:
            return Outcome(recording, None, error)

    # Also for one job: this thread stays free for Ctrl-C. PyTorch keeps a number of threads for each thread.
    threads = ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Outcome]] = deque()
    try:
        for recording in recordings:
            waiting.append(threads.submit(work, recording))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stopped.set()
        threads.shutdown(wait=False, cancel_futures=True)


class Watch:
    """Seconds of audio done, rate and time left, on a terminal; nothing elsewhere. Threads may call it."""

    def __init__(self, recordings: Sequence[Recording]):
        self._lock = threading.Lock()
        self.live = sys.stderr.isatty()
        self._progress = Progress("transcribe", sum(each.seconds() for each in recordings), "s of audio") \
            if self.live else None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.clear()
        if self._progress and kind is None:
            print(self._progress.line(final=True), file=sys.stderr)

    def advance(self, seconds: float) -> None:
        if self._progress:
            with self._lock:
                self._progress.update(seconds)

    def clear(self) -> None:
        """Take the line off the terminal, before other lines are written there."""
        if self.live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
