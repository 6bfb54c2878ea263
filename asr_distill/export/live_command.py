"""`asr-distill transcribe DIR --stream`: text of what comes through standard input, while it comes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asr_distill.errors import UserError

if TYPE_CHECKING:
    from asr_distill.export.live import FinalText, Latency, PartialText

OPTIONS = ("rate", "block", "pause")  # of --stream alone
BLOCK, PAUSE = 60.0, 0.5
RATES = range(1000, 384_001)  # Hz
CLEAR = "\r\x1b[K"  # to the line's beginning, and erase it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("live", "sox talk.flac -t raw -r 16000 -c 1 -b 16 -e signed-integer - | "
                                      "asr-distill transcribe DIR --stream")
    group.add_argument("--stream", action="store_true",
                       help="read 16-bit little-endian PCM of one channel from standard input; what is said so far "
                            "comes as lines that end in ' ...' (on a terminal the line is rewritten), with --json as "
                            "objects")
    group.add_argument("--rate", type=int, metavar="HZ", help="sample rate of --stream (default: the recogniser's)")
    group.add_argument("--block", type=float, metavar="MS",
                       help="recognise so much sound at a time (default 60): less comes sooner and costs more")
    group.add_argument("--pause", type=float, metavar="SECONDS",
                       help="silence that ends an utterance whose sentence may be over (default 0.5; Kaldi's rules); "
                            "0: an utterance ends with the stream (memory grows with it)")


def run(arguments: argparse.Namespace) -> int:
    """Print partial and final texts until the stream ends, or Ctrl-C (then 130)."""
    if arguments.files:
        raise UserError("--stream reads standard input and takes no files; leave one of the two out")
    block = BLOCK if arguments.block is None else arguments.block
    pause = PAUSE if arguments.pause is None else arguments.pause
    if not 0 <= pause < math.inf:
        raise UserError(f"--pause {pause:g}: must be a number of seconds, not negative (0: an utterance ends with the "
                        "stream)")
    if not 0 < block <= 10_000:
        raise UserError(f"--block {block:g}: must be above 0 and at most 10,000 ms")
    if arguments.rate is not None and arguments.rate not in RATES:
        raise UserError(f"--rate {arguments.rate}: must be {RATES[0]} to {RATES[-1]} Hz")
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    if sys.stdin is None or os.isatty(sys.stdin.fileno()):
        raise UserError("--stream reads sound from a pipe: arecord -q -t raw -f S16_LE -r 16000 -c 1 | asr-distill ...")

    import torch  # heavy: not for --help

    from asr_distill.export.endpoint import EndpointConfig
    from asr_distill.export.live import LiveRecogniser
    from asr_distill.export.pcm import read_pcm, resampled, resampler_delay

    torch.set_num_threads(arguments.threads)
    recogniser = LiveRecogniser(arguments.directory, block_ms=block, word_times=arguments.json,
                                endpoints=EndpointConfig.of_pause(pause),
                                check_graph=not arguments.skip_graph_check)
    rate = arguments.rate or recogniser.sample_rate
    show = _json_lines if arguments.json else _Lines(sys.stdout.isatty())
    latency = recogniser.latency.resampled(1000 * resampler_delay(rate, recogniser.sample_rate))
    _say_ready(latency, rate, as_json=arguments.json)
    with _interrupt_noted() as interrupted:
        for samples in resampled(read_pcm(sys.stdin.fileno(), interrupted), rate, recogniser.sample_rate):
            for event in recogniser.accept(samples):
                show(event)
    for event in recogniser.finish():
        show(event)
    return 130 if interrupted() else 0


def _say_ready(latency: Latency, rate: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"stream": {"rate": rate, **dataclasses.asdict(latency)}}), flush=True)
    print(f"listening at {rate:,} Hz; a sound's text can come {latency.latency_ms:.0f} ms after it at the latest "
          f"(block {latency.block_ms:g}, look-ahead {latency.look_ahead_ms:g}"
          f"{f', resampler {latency.resampler_ms:.0f}' if latency.resampler_ms else ''})", file=sys.stderr, flush=True)


def _json_lines(event: PartialText | FinalText) -> None:
    from asr_distill.export.live import PartialText

    fields = dataclasses.asdict(event)
    text = fields.pop("text")
    kind = "partial" if isinstance(event, PartialText) else "final"
    print(json.dumps({kind: text, **fields}, ensure_ascii=False), flush=True)


class _Lines:
    """Text for people: on a terminal an utterance's line is written again and again, else every change is a line."""

    def __init__(self, terminal: bool):
        self.terminal = terminal

    def __call__(self, event: PartialText | FinalText) -> None:
        from asr_distill.export.live import FinalText

        final = isinstance(event, FinalText)
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            text = event.text if final else event.text[-width:]  # a longer line could not be taken back
            print(CLEAR + text, end="\n" if final else "", flush=True)
        else:
            print(event.text if final else f"{event.text} ...".lstrip(), flush=True)


@contextmanager
def _interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Ctrl-C within the block is noted, not raised: nothing is torn in the middle."""
    asked = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
