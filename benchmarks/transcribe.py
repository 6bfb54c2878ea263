"""The whole recogniser on one core: start, real-time factor and memory, form by form.

    python benchmarks/transcribe.py RECOGNISER AUDIO... [--seconds N] [--rounds N]

RECOGNISER: what a recipe's export stage wrote, or the experiment's folder; AUDIO: sound files and folders of them, of
which --seconds are taken. Every row is a process of its own, bound to one core, with one thread:

    network     features and network alone
    text        plain text
    json        word times and confidences too
    nbest 10    and the ten best texts

RTF is CPU seconds a second of audio (waiting for other programs does not count), the least of the rounds. start: wall
seconds from the process's beginning, with all digests checked, until the text of a first second of sound is there;
open: of these, until the directory was open.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from asr_distill.command import guarded
from asr_distill.errors import UserError
from asr_distill.export.audio import read_pieces
from asr_distill.export.recordings import find_recordings
from asr_distill.export.source import recogniser_in
from asr_distill.export.transcribe import Transcriber
from asr_distill.features.cmvn import UtteranceFeatures

ROWS: dict[str, dict[str, Any]] = {  # settings of Transcriber.transcribe
    "network": {}, "text": {"word_times": False}, "json": {}, "nbest 10": {"nbest": 10}}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Figures:
    rtf: float
    open_seconds: float
    start_seconds: float
    peak_bytes: int
    words: int
    audio_seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio (default 120)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--row", nargs=2, metavar=("NAME", "BEGAN"), help=argparse.SUPPRESS)  # measure it here
    return guarded(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    if arguments.rounds < 1 or not arguments.seconds > 0:
        raise UserError("--rounds and --seconds must be above 0")
    if arguments.row:
        print(json.dumps(vars(measure(arguments, arguments.row[0], float(arguments.row[1])))))
        return 0
    found = {row: in_a_process(row) for row in ROWS}
    print(f"{arguments.recogniser}: {found['text'].audio_seconds:,.0f} s of audio, one core\n")
    print(f"{'':10} {'RTF':>8} {'open s':>8} {'start s':>8} {'peak MB':>8} {'words':>7}")
    for row, each in found.items():
        print(f"{row:10} {each.rtf:8.4f} {each.open_seconds:8.2f} {each.start_seconds:8.2f} "
              f"{each.peak_bytes / 1e6:8,.0f} {each.words:7,}")
    return 0


def in_a_process(row: str) -> Figures:
    """This script once more, for one row."""
    done = subprocess.run([sys.executable, *sys.argv, "--row", row, str(time.time())], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}, check=False)
    if done.returncode:
        raise UserError(f"{row}: could not be measured (its message stands above)")
    return Figures(**json.loads(done.stdout))


def measure(arguments: argparse.Namespace, row: str, began: float) -> Figures:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    transcriber = Transcriber(recogniser_in(arguments.recogniser))
    open_seconds = time.time() - began
    work = network_alone(transcriber) if row == "network" else whole(transcriber, row)
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(f"{folder}/a.wav", np.random.default_rng(0).normal(0, 0.01, 16000), 16000)
        work(Path(folder) / "a.wav")
    start_seconds = time.time() - began
    files, total = [], 0.0
    for recording in find_recordings(arguments.audio):
        if total < arguments.seconds:
            files.append(recording.path)
            total += recording.seconds()
    least, words, heard = float("inf"), 0, 0.0
    for _ in range(arguments.rounds):
        spent = time.process_time()
        results = [work(path) for path in files]
        words, heard = sum(count for count, _ in results), sum(length for _, length in results)
        least = min(least, (time.process_time() - spent) / heard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Figures(least, open_seconds, start_seconds, peak, words, heard)


def whole(transcriber: Transcriber, row: str) -> Callable[[Path], tuple[int, float]]:
    """A file's words and seconds."""
    def work(path: Path) -> tuple[int, float]:
        transcript = transcriber.transcribe(path, **ROWS[row])
        return len(transcript.text.split()), transcript.seconds

    return work


def network_alone(transcriber: Transcriber) -> Callable[[Path], tuple[int, float]]:
    rate = transcriber.bundle.features.sample_rate

    def work(path: Path) -> tuple[int, float]:
        samples = 0
        for piece in read_pieces(path, rate):
            frames = transcriber.fbank([torch.from_numpy(piece.samples)])[0]  # (frames, coefficients)
            transcriber.model.log_likelihoods(UtteranceFeatures(frames))
            samples += len(piece.samples)
        return 0, samples / rate

    return work


if __name__ == "__main__":
    sys.exit(main())
