"""The way from mouth to file: small room, noise, level."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.signal import fftconvolve, resample_poly

SAMPLE_RATE = 16000
SILENCE_AMPLITUDE = 0.01
LEAD_SECONDS, TAIL_SECONDS = 0.15, 0.2
EARLIEST_REFLECTION, LATEST_FIRST_REFLECTION = 20, 60  # samples: 0.4 to 1.3 m of detour
DIRECT_TO_REVERBERANT_DB = (3.0, 9.0)
LEVEL_DB = (-26.0, -16.0)  # RMS below full scale
PEAK = 0.98


@dataclass(frozen=True)
class Channel:
    snr_db: tuple[float, float]
    reverberation_seconds: tuple[float, float]  # T60
    room_probability: float


# Whisper tiny.en hears test-other about three times as badly as test-clean, as with LibriSpeech's own.
CHANNELS = {
    "clean": Channel((18.0, 32.0), (0.1, 0.25), 0.5),
    "copy": Channel((12.0, 30.0), (0.1, 0.4), 0.5),
    "other": Channel((6.0, 16.0), (0.2, 0.5), 1.0),
}


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """Cut silence at both ends down to a short lead and tail."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE_AMPLITUDE)
    if not len(loud):
        return samples
    return samples[max(0, loud[0] - int(LEAD_SECONDS * rate)):loud[-1] + int(TAIL_SECONDS * rate)]


def to_corpus_rate(samples: np.ndarray, rate: int, speed: float = 1.0) -> np.ndarray:
    """Resample to 16 kHz; `speed` 1.1 plays it 1.1 times as fast (and as high). Steps of 0.01."""
    ratio = Fraction(SAMPLE_RATE, rate) / Fraction(round(speed * 100), 100)
    return resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator)


def record(samples: np.ndarray, channel: Channel, rng: np.random.Generator) -> np.ndarray:
    """Room (exponentially decaying noise as impulse response), coloured noise at an SNR, level. Float64 in [-1, 1]."""
    if rng.random() < channel.room_probability:
        samples = _reverberate(samples, rng.uniform(*channel.reverberation_seconds), rng)
    noise = _coloured_noise(len(samples), rng)
    snr = rng.uniform(*channel.snr_db)
    mixed = samples + noise * np.sqrt(np.mean(samples ** 2) / np.mean(noise ** 2)) * 10 ** (-snr / 20)
    mixed *= 10 ** (rng.uniform(*LEVEL_DB) / 20) / np.sqrt(np.mean(mixed ** 2))
    return mixed * min(1.0, PEAK / np.max(np.abs(mixed)))


def _reverberate(samples: np.ndarray, t60: float, rng: np.random.Generator) -> np.ndarray:
    length = int(t60 * SAMPLE_RATE)
    response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)  # -60 dB at its end
    response[:rng.integers(EARLIEST_REFLECTION, LATEST_FIRST_REFLECTION)] = 0
    response *= 10 ** (-rng.uniform(*DIRECT_TO_REVERBERANT_DB) / 20) / np.sqrt(np.sum(response ** 2))
    response[0] = 1
    return fftconvolve(samples, response)[:len(samples) + length // 3]


def _coloured_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, its power between flat and 3 dB an octave downward."""
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(length)) / np.maximum(frequencies, 60) ** rng.uniform(0, 0.5)
    return np.fft.irfft(spectrum, length)
