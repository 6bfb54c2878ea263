"""Channel and voice warping, measured on signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from local.demo_corpus.channel import CHANNELS, SAMPLE_RATE, Channel, _reverberate, record, to_corpus_rate, trim


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def peak_frequency(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def test_trim_leaves_a_short_lead_and_tail() -> None:
    samples = np.concatenate([np.zeros(8000), tone(300, 1, 16000), np.zeros(8000)])
    assert len(trim(samples, 16000)) == pytest.approx((1 + 0.15 + 0.2) * 16000, abs=20)


@pytest.mark.parametrize("speed", [0.88, 1.0, 1.13])
def test_playing_faster_raises_the_pitch(speed: float) -> None:
    out = to_corpus_rate(tone(440, 2, 24000), 24000, speed)
    assert len(out) == pytest.approx(2 * SAMPLE_RATE / speed, abs=2)
    assert peak_frequency(out, SAMPLE_RATE) == pytest.approx(440 * speed, abs=1)


@pytest.mark.parametrize("snr", [3.0, 20.0])
def test_noise_has_the_asked_snr(snr: float) -> None:
    clean = np.random.default_rng(1).standard_normal(32000) * 0.1
    out = record(clean, Channel((snr, snr), (0.1, 0.2), 0.0), np.random.default_rng(2))
    gain = np.dot(out, clean) / np.dot(clean, clean)
    residual = out - gain * clean
    assert 10 * np.log10(np.sum((gain * clean) ** 2) / np.sum(residual ** 2)) == pytest.approx(snr, abs=0.3)


def test_room_has_the_asked_decay() -> None:
    impulse = np.zeros(SAMPLE_RATE)
    impulse[0] = 1
    response = _reverberate(impulse, 0.5, np.random.default_rng(3))
    tail = response[1:]
    ratio = -10 * np.log10(np.sum(tail ** 2))
    assert 3 <= ratio <= 9, "direct-to-reverberant ratio in dB"
    energy = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1][:6000])  # Schroeder's backward integral
    slope = np.polyfit(np.arange(len(energy)) / SAMPLE_RATE, energy, 1)[0]
    assert -60 / slope == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_recordings_never_clip(name: str) -> None:
    for seed in range(5):
        out = record(tone(200, 1, SAMPLE_RATE), CHANNELS[name], np.random.default_rng(seed))
        assert np.max(np.abs(out)) <= 0.98 + 1e-9 and np.isfinite(out).all()


@pytest.mark.parametrize("pitch", [0.55, 1.2])
def test_warp_moves_pitch_and_formants_apart(pitch: float) -> None:
    """A pulse train of 200 Hz through one resonance at 1 kHz."""
    pytest.importorskip("pyworld")
    pytest.importorskip("hibari")
    from scipy.signal import lfilter

    from local.demo_corpus.speak import warp

    rate, seconds = 24000, 1.0
    pulses = np.zeros(int(rate * seconds))
    pulses[::rate // 200] = 1
    radius, angle = 0.97, 2 * np.pi * 1000 / rate
    voice = lfilter([1], [1, -2 * radius * np.cos(angle), radius ** 2], pulses) * 0.1
    out = warp(voice, rate, pitch, 1.2)[4800:-4800]
    lags = np.correlate(out, out, "full")[len(out) - 1:]
    shortest = rate // 400
    assert rate / (shortest + np.argmax(lags[shortest:rate // 80])) == pytest.approx(200 * pitch, rel=0.03)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert np.argmax(spectrum) * rate / len(out) == pytest.approx(1200, abs=200 * pitch / 2 + 20)
