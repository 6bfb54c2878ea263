"""How soon a live recogniser's first word comes, and what it costs.

    python benchmarks/latency.py RECOGNISER --dev DEV_CLEAN [--dev-ids FILE] [--utterances N] [--block MS]

RECOGNISER: what a recipe's export stage wrote, or the experiment's folder. Every utterance is a stream of its own, fed
10 ms at a time without waiting; delays are seconds of sound, from where a forced alignment of the reference says that
the first word begins to the first partial text. Real-time factors are CPU time on one core. The streamed text is held
against that of the whole utterance at once.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from dev_arguments import dev_parser

from asr_distill.command import guarded
from asr_distill.decode.decoder import Decoder
from asr_distill.errors import UserError
from asr_distill.export.devset import DevSet
from asr_distill.export.endpoint import NO_ENDPOINTS
from asr_distill.export.exporter import Spoken
from asr_distill.export.live import FinalText, LiveRecogniser
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.fbank import Fbank
from asr_distill.hmm.align import AlignConfig, align_words

STEP_SECONDS = 0.01


def main() -> int:
    parser = dev_parser(__doc__)
    parser.add_argument("--block", type=float, default=60.0, metavar="MS")
    return guarded(run, parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    recogniser = LiveRecogniser(arguments.recogniser, block_ms=arguments.block, endpoints=NO_ENDPOINTS,
                                word_times=False)
    dev = DevSet.open(arguments.dev, ids=arguments.dev_ids, utterances=arguments.utterances)
    offline = _Offline(recogniser)
    delays, right, same, cpu, sound, worst = [], 0, 0, 0.0, 0.0, 0.0
    for spoken in dev.speech(recogniser.sample_rate):
        reference = dev.references[spoken.id]
        wanted, begin = offline.text_and_begin(spoken, reference)
        first, text, seconds, slowest = _stream(recogniser, spoken.samples)
        same += text == wanted
        cpu, sound, worst = cpu + seconds, sound + len(spoken.samples) / recogniser.sample_rate, max(worst, slowest)
        if begin is not None and first is not None:
            delays.append(first[0] - begin)
            right += first[1].split()[0] == reference[0]
    if not delays:
        raise UserError("no utterance had both an aligned first word and a partial text")
    latency, number, soon = recogniser.latency, len(dev.utterances), sum(delay <= 0.4 for delay in delays)
    print(f"{number} utterances, {sound:,.0f} s of sound; block {latency.block_ms:g} ms, look-ahead "
          f"{latency.look_ahead_ms:g} ms: a sound's text can come {latency.latency_ms:g} ms after it at the latest\n"
          f"first partial text after the first word's begin, seconds: median {np.median(delays):.2f}, 90 % within "
          f"{np.quantile(delays, 0.9):.2f}, largest {max(delays):.2f}; within 0.4 s: {soon} of "
          f"{len(delays)}; begins with the word that was said: {right} of {len(delays)}\n"
          f"streamed text = text of the whole utterance at once: {same} of {number}\n"
          f"real-time factor of the stream {cpu / sound:.4f}, of the whole utterances {offline.cpu / sound:.4f}; "
          f"slowest 10 ms of sound took {1000 * worst:.1f} ms")
    return 0


def _stream(recogniser: LiveRecogniser, samples: np.ndarray) -> tuple[tuple[float, str] | None, str, float, float]:
    """((seconds of sound heard, text) of the first partial text, the whole text, CPU seconds, most time for a step)."""
    step = int(STEP_SECONDS * recogniser.sample_rate)
    first, slowest, began = None, 0.0, time.process_time()
    for begin in range(0, len(samples), step):
        arrived = time.perf_counter()
        events = [*recogniser.accept(samples[begin:begin + step])]
        slowest = max(slowest, time.perf_counter() - arrived)
        if first is None and events:
            first = (events[0].time, events[0].text)  # type: ignore[union-attr]  # there are no endpoints
    finals = [event.text for event in recogniser.finish() if isinstance(event, FinalText)]
    return first, " ".join(finals), time.process_time() - began, slowest


class _Offline:
    """The exported network over whole utterances, with the same search."""

    def __init__(self, recogniser: LiveRecogniser):
        self.source, self.cpu = recogniser.source, 0.0
        self.model = OnnxModel(self.source.directory)
        self.fbank = Fbank(self.source.features, torch.device("cpu"))
        self.decoder: Decoder = recogniser.search.decoder

    def text_and_begin(self, spoken: Spoken, reference: tuple[str, ...]) -> tuple[str, float | None]:
        """The text, and when the reference's first word begins (None where it cannot be aligned)."""
        began = time.process_time()
        frames = self.fbank([torch.from_numpy(spoken.samples)])[0]
        log_likelihoods = self.model.log_likelihoods(UtteranceFeatures(frames))
        text = " ".join(self.decoder.decode(log_likelihoods.numpy(), spoken.id).words)
        self.cpu += time.process_time() - began
        try:
            spans = align_words(log_likelihoods, reference, self.source.hmm, self.source.lang,
                                AlignConfig(acoustic_scale=self.source.search.acoustic_scale))
        except UserError:
            return text, None
        return text, spans[0].start_frame * self.source.features.frame_shift_ms / 1000


if __name__ == "__main__":
    sys.exit(main())
