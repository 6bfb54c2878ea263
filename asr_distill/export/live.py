"""Speech to text while it is spoken: samples in as they come, partial results and finished utterances out.

Features, normalisation and network run on from utterance to utterance, as one recording: what was said before an
endpoint is the left context of what comes after it. Only the search begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from asr_distill.decode.decoder import Decoder
from asr_distill.decode.online import OnlineSearch
from asr_distill.decode.posteriors import word_posteriors
from asr_distill.errors import UserError
from asr_distill.export.endpoint import EndpointConfig
from asr_distill.export.source import Source
from asr_distill.export.streaming import StreamingEmission
from asr_distill.export.transcribe import LEAST_SECONDS, Word
from asr_distill.export.word_spans import word_spans
from asr_distill.features.fbank import EPSILON, FbankConfig
from asr_distill.features.online_fbank import OnlineFbank
from asr_distill.hmm.align import AlignConfig

BLOCK_MS = 60.0


@dataclass(frozen=True)
class Latency:
    """What keeps a sound from the search, in milliseconds of sound that must come after it.

    latency_ms, the most: the rest of its block, the network's look-ahead, the rest of the last window, and what a
    resampler holds back. What the computer takes for it comes on top.
    """

    block_ms: float
    look_ahead_ms: float
    latency_ms: float
    resampler_ms: float = 0.0

    def resampled(self, delay_ms: float) -> Latency:
        """Of a stream of another rate than the recogniser's."""
        return replace(self, latency_ms=self.latency_ms + delay_ms, resampler_ms=delay_ms)

    @staticmethod
    def of(features: FbankConfig, block: int, ahead: int) -> Latency:
        """`block` and `ahead`: frames."""
        shift = features.frame_shift_ms
        beyond = features.frame_length_ms - shift if features.snip_edges else (features.frame_length_ms - shift) / 2
        return Latency(block * shift, ahead * shift, (block + ahead) * shift + beyond)


@dataclass(frozen=True)
class PartialText:
    """The utterance so far, after `time` seconds of sound since the stream began."""

    text: str
    time: float


@dataclass(frozen=True)
class FinalText:
    """A finished utterance: seconds since the stream began. cause: the endpoint's rule, "end" of the stream, or "lost"
    where no path of the graph survived. `words` is empty where no times are asked for (or the utterance was lost)."""

    text: str
    start: float
    end: float
    cause: str
    words: tuple[Word, ...]


class LiveRecogniser:
    """Opens an exported directory; one stream at a time, from one thread.

    `accept` and `finish` give events as they go: iterate over them to their end. Raises UserError where the directory
    is incomplete or damaged, or the network cannot be streamed (its look-ahead or its CMVN has no bound).
    """

    _samples: int  # heard in the stream
    _start: int  # the utterance's first frame
    _told: tuple[str, ...]  # words of the last partial text
    _log_likelihoods: list[np.ndarray]  # of the utterance so far
    _waiting: torch.Tensor  # (frames, bands) that the network has not heard
    _past: torch.Tensor  # of the emission: (1, history, bands), and how many frames it has heard, (1,)
    _heard: torch.Tensor

    def __init__(self, directory: Path, *, block_ms: float = BLOCK_MS, endpoints: EndpointConfig | None = None,
                 word_times: bool = True, check_graph: bool = True):
        """`block_ms`: of sound that is recognised at a time, rounded to whole frames (and the network's strides).
        `endpoints`: by default Kaldi's. `word_times` needs log-likelihoods kept for the length of an utterance."""
        self.source = source = Source.open(directory, check_graph=check_graph)
        self.endpoints = EndpointConfig() if endpoints is None else endpoints
        self.word_times = word_times
        silence = source.silence_pdfs()
        block = round(block_ms / source.features.frame_shift_ms)
        if block < 1:
            raise UserError(f"a block of {block_ms:g} ms is shorter than a frame; give at least "
                            f"{source.features.frame_shift_ms:g} ms")
        try:
            self.emission = StreamingEmission(source.model, block, silence=silence).eval()
        except UserError as error:
            raise UserError(f"{directory}: cannot be streamed: {error}") from None
        self.latency = Latency.of(source.features, self.emission.block, self.emission.frames - self.emission.block)
        self.fbank = OnlineFbank(source.features)
        self.search = OnlineSearch(Decoder(source.directory, source.search), silence, lattice=word_times)
        self._shift = source.features.frame_shift_ms / 1000
        self._align_config = AlignConfig(acoustic_scale=source.search.acoustic_scale)
        self._reset()
        self._warm_up()

    @property
    def sample_rate(self) -> int:
        return self.source.features.sample_rate

    def accept(self, samples: np.ndarray) -> Iterator[PartialText | FinalText]:
        """Hear samples (n,) in [-1, 1] at `sample_rate`, any number."""
        self._samples += len(samples)
        self._waiting = torch.cat([self._waiting, self.fbank.accept(samples)])
        while len(self._waiting) >= self.emission.frames:
            yield from self._next_block(self.emission.block)

    def finish(self) -> Iterator[PartialText | FinalText]:
        """The stream is over: the rest of it, then its last utterance. The next `accept` begins another stream."""
        self._waiting = torch.cat([self._waiting, self.fbank.finish()])
        left = len(self._waiting)
        # digital silence, around which the network hears the last frame repeated, as at the end of a whole recording
        beyond = torch.full((self.emission.frames, self._waiting.shape[1]), math.log(EPSILON))
        self._waiting = torch.cat([self._waiting, beyond])
        for begin in range(0, left, self.emission.block):
            yield from self._next_block(min(self.emission.block, left - begin))
        yield from self._end("end")
        self._reset()

    def _next_block(self, count: int) -> Iterator[PartialText | FinalText]:
        """The block that waits; only its first `count` frames are of the recording."""
        frames, self._waiting = self._waiting[:self.emission.frames], self._waiting[self.emission.block:]
        with torch.inference_mode():
            found, self._past, self._heard = self.emission(frames[None], self._past, self._heard)
        log_likelihoods = found[0, :count].numpy()  # (count, pdfs)
        self.search.advance(log_likelihoods)
        if self.word_times:
            self._log_likelihoods.append(log_likelihoods)
        partial = self.search.partial()
        if not self.search.alive:
            yield from self._end("lost")
        elif cause := self.endpoints.fired(partial, self._shift):
            yield from self._end(cause)
        elif partial.words != self._told:
            self._told = partial.words
            yield PartialText(" ".join(partial.words), round(self._samples / self.sample_rate, 3))

    def _end(self, cause: str) -> Iterator[FinalText]:
        """Finish the utterance and begin the next one. Without words there is nothing to tell."""
        frames, start = self.search.frames, self._start
        words = self._told if cause == "lost" else self.search.finish().words
        if frames * self._shift < LEAST_SECONDS:
            words = ()
        spans: tuple[Word, ...] = ()
        if words and self.word_times and cause != "lost":
            spans = self._spans(start)
            words = tuple(span.word for span in spans)
        self._start, self._told, self._log_likelihoods = start + frames, (), []
        self.search.reset()
        if words:
            yield FinalText(" ".join(words), round(start * self._shift, 3), round((start + frames) * self._shift, 3),
                            cause, spans)

    def _spans(self, start: int) -> tuple[Word, ...]:
        """The words of the lattice's best path, as they are where a file is transcribed."""
        lattice = self.search.lattice()
        assert lattice is not None
        log_likelihoods = torch.from_numpy(np.concatenate(self._log_likelihoods))
        found, confidences = word_posteriors(lattice, self.source.search.acoustic_scale)
        words = self.search.decoder.named(list(found))
        spans = word_spans(log_likelihoods, words, self.source.hmm, self.source.lang, self._align_config)

        def seconds(frame: float) -> float:
            return round((start + frame) * self._shift, 3)

        return tuple(Word(word, seconds(begin), seconds(end), round(confidence, 4))
                     for word, (begin, end), confidence in zip(words, spans, confidences.tolist(), strict=True))

    def _reset(self) -> None:
        """Before a stream's first sample."""
        bands = self.source.features.num_mel_bins
        self._samples = self._start = 0
        self._told, self._log_likelihoods = (), []
        self._waiting = torch.zeros(0, bands)
        self._past = torch.zeros(1, self.emission.history, bands)
        self._heard = torch.zeros(1, dtype=torch.long)
        self.fbank.reset()
        self.search.reset()

    def _warm_up(self) -> None:
        """Have all that is compiled on its first call compiled before someone speaks."""
        seconds = 2 * self.latency.latency_ms / 1000
        noise = np.random.default_rng(0).normal(0, 1e-3, int(seconds * self.sample_rate)).astype(np.float32)
        for _ in (*self.accept(noise), *self.finish()):
            pass
