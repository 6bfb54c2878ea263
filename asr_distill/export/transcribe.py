"""Sound files to text with an exported recogniser."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asr_distill.decode.decoder import Decoder
from asr_distill.decode.posteriors import word_posteriors
from asr_distill.export.alternatives import NOTHING, Alternative, alternatives, joined
from asr_distill.export.audio import Piece, read_pieces
from asr_distill.export.bundle import Bundle
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.export.word_spans import word_spans
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.fbank import Fbank
from asr_distill.hmm.align import AlignConfig
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import Lang

MAX_PIECE_SECONDS = 30.0
LEAST_SECONDS = 0.12  # shorter than any word


@dataclass(frozen=True)
class Word:
    """A word, where it is spoken (seconds from the file's start), and its lattice posterior in (0, 1]
    (decode.posteriors)."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said in a file of `seconds`; rtf is seconds of work a second of audio.

    `words` is empty where no times were asked for, `nbest` where no alternatives were; its first is `text`.
    """

    text: str
    words: tuple[Word, ...]
    seconds: float
    rtf: float
    nbest: tuple[Alternative, ...] = ()


class _Heard(NamedTuple):
    """Of one piece."""

    text: tuple[str, ...]
    words: list[Word]
    nbest: list[Alternative]


class Transcriber:
    """Opens an exported directory once; `transcribe` may be called any number of times, from several threads.

    Raises UserError where the directory is incomplete, damaged or of another format version. `check_graph` False
    skips the digest of the search graph.
    """

    def __init__(self, directory: Path, *, threads: int = 1, check_graph: bool = True):
        self.bundle = Bundle.load(directory, check_graph=check_graph)
        self.model = OnnxModel(directory, threads=threads)
        self.decoder = Decoder(self.bundle.directory, self.bundle.search)
        self.fbank = Fbank(self.bundle.features, torch.device("cpu"))
        self.align_config = AlignConfig(acoustic_scale=self.bundle.search.acoustic_scale)

    @cached_property
    def language(self) -> tuple[HmmModel, Lang]:
        """What word times need; a second for a large lexicon, so only where they are asked for."""
        return HmmModel.load(self.bundle.directory), Lang(self.bundle.directory)

    def transcribe(self, path: Path, *, word_times: bool = True, nbest: int = 0,
                   progress: Callable[[float], None] | None = None) -> Transcript:
        """Text of one file of any length; long ones are cut in their pauses (pieces of at most 30 s).

        A file without speech, or of a tenth of a second, gives an empty text. `nbest` above 0 asks for that many
        different texts. `progress` is told the seconds of every piece when it is done. Raises UserError where the
        file cannot be read to its end.
        """
        began = time.monotonic()
        rate = self.bundle.features.sample_rate
        samples = 0
        text: list[str] = []
        words: list[Word] = []
        best = list(NOTHING) if nbest else []
        for piece in read_pieces(Path(path), rate, MAX_PIECE_SECONDS):
            samples += len(piece.samples)
            heard = self._recognise(piece, word_times, nbest, str(path))
            text += heard.text
            words += heard.words
            best = joined(best, heard.nbest, nbest)
            if progress:
                progress(len(piece.samples) / rate)
        seconds = samples / rate
        rtf = (time.monotonic() - began) / seconds if seconds else 0.0
        return Transcript(" ".join(text), tuple(words), seconds, rtf, tuple(best))

    def _recognise(self, piece: Piece, word_times: bool, nbest: int, name: str) -> _Heard:
        rate, scale, nothing = self.bundle.features.sample_rate, self.bundle.search.acoustic_scale, list(NOTHING)
        if len(piece.samples) < LEAST_SECONDS * rate or not np.any(piece.samples):  # digital silence
            return _Heard((), [], nothing)
        frames = self.fbank([torch.from_numpy(piece.samples)])[0]  # (frames, coefficients)
        log_likelihoods = self.model.log_likelihoods(UtteranceFeatures(frames))  # (frames, pdfs)
        if not (word_times or nbest):
            return _Heard(self.decoder.decode(log_likelihoods.numpy(), name).words, [], [])
        lattice = self.decoder.lattice(log_likelihoods.numpy(), name)
        if lattice is None:
            return _Heard((), [], nothing)
        found, confidences = word_posteriors(lattice, scale)
        text = tuple(self.decoder.words[word] for word in found)
        return _Heard(text, self._timed(piece, text, confidences, log_likelihoods) if word_times and text else [],
                      alternatives(lattice, nbest, scale, self.decoder.words) if nbest else [])

    def _timed(self, piece: Piece, text: tuple[str, ...], confidences: np.ndarray,
               log_likelihoods: torch.Tensor) -> list[Word]:
        spans = word_spans(log_likelihoods, text, *self.language, self.align_config)
        shift = self.bundle.features.frame_shift_ms / 1000
        return [Word(word, round(piece.start + begin * shift, 3), round(piece.start + end * shift, 3),
                     round(confidence, 4))
                for word, (begin, end), confidence in zip(text, spans, confidences.tolist(), strict=True)]
