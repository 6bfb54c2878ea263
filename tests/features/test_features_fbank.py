"""Log-mel frames against kaldi-native-fbank (Kaldi's C++) and a float64 discrete Fourier transform."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr_distill.features.fbank import Fbank, FbankConfig, mel_filters

CPU = torch.device("cpu")
DEFAULT = FbankConfig()


def kaldi(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """The same settings through kaldi-native-fbank: float32 (frames, bins)."""
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq, frame.dither, frame.snip_edges = config.sample_rate, 0.0, config.snip_edges
    frame.frame_length_ms, frame.frame_shift_ms = config.frame_length_ms, config.frame_shift_ms
    frame.preemph_coeff, frame.window_type, frame.remove_dc_offset = config.preemphasis, "povey", True
    mel.num_bins, mel.low_freq, mel.high_freq = config.num_mel_bins, config.low_freq, config.high_freq
    options.use_energy, options.use_log_fbank, options.use_power = False, True, True
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(config.sample_rate, samples)
    extractor.input_finished()
    frames = [extractor.get_frame(i) for i in range(extractor.num_frames_ready)]
    return np.stack(frames) if frames else np.zeros((0, config.num_mel_bins), np.float32)


def ours(samples: np.ndarray, config: FbankConfig = DEFAULT) -> np.ndarray:
    (frames,) = Fbank(config, CPU)([torch.from_numpy(samples)])
    return frames.numpy()


def speech_like(seconds: float = 1.0, rate: int = 16000, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise with a falling spectrum and a loudness that comes and goes, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(int(seconds * rate))
    for _ in range(2):
        noise = np.convolve(noise, 0.9 ** np.arange(40), "same")
    loudness = np.abs(np.sin(np.arange(len(noise)) / rate * 6)) ** 3
    return (level * noise / np.abs(noise).max() * loudness).astype(np.float32)


def test_real_speech(librispeech: Path) -> None:
    files = sorted(librispeech.rglob("*.flac"))[::60]
    assert len(files) >= 6
    waveforms = [soundfile.read(file, dtype="float32")[0] for file in files]
    frames = Fbank(DEFAULT, CPU)([torch.from_numpy(waveform) for waveform in waveforms])
    for waveform, result in zip(waveforms, frames, strict=True):
        expected = kaldi(waveform, DEFAULT)
        assert result.shape == expected.shape and result.dtype == torch.float32
        assert np.abs(result.numpy() - expected).max() <= 1e-3


@pytest.mark.parametrize("change", [
    {}, {"snip_edges": True}, {"num_mel_bins": 23}, {"num_mel_bins": 80}, {"high_freq": 0.0}, {"high_freq": 5000.0},
    {"low_freq": 64.0}, {"low_freq": 0.0}, {"preemphasis": 0.0}, {"preemphasis": 0.9}, {"frame_length_ms": 32.0},
    {"frame_shift_ms": 12.5}, {"frame_length_ms": 20.0, "frame_shift_ms": 20.0},
    {"sample_rate": 8000, "num_mel_bins": 23}, {"sample_rate": 8000, "high_freq": 0.0, "snip_edges": True},
    {"sample_rate": 44100, "num_mel_bins": 80},
], ids=str)
def test_every_option_as_kaldi(change: dict) -> None:
    config = replace(DEFAULT, **change)
    samples = speech_like(1.3, config.sample_rate)
    expected = kaldi(samples, config)
    result = ours(samples, config)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-3


SIGNALS = {
    "silence": np.zeros(8000), "constant": np.full(8000, 0.25), "one impulse": np.eye(1, 8000, 4000)[0],
    "faint noise": np.random.default_rng(1).standard_normal(8000) * 1e-5,
    "loud noise": np.random.default_rng(2).uniform(-1, 1, 8000),
    "clipped tone": np.sign(np.sin(np.arange(8000) * 0.3)),
    "noise on an offset": 0.2 + np.random.default_rng(3).standard_normal(8000) * 1e-3,
    "digital silence, then noise": np.r_[np.zeros(4000), np.random.default_rng(4).uniform(-0.5, 0.5, 4000)],
}


@pytest.mark.parametrize("name", SIGNALS)
def test_synthetic_signals_as_kaldi(name: str) -> None:
    samples = SIGNALS[name].astype(np.float32)
    result = ours(samples)
    assert np.isfinite(result).all()
    assert np.abs(result - kaldi(samples, DEFAULT)).max() <= 1e-3


@pytest.mark.parametrize("snip_edges", [False, True])
@pytest.mark.parametrize("length", [0, 1, 79, 80, 119, 160, 239, 240, 399, 400, 401, 559, 560, 3999, 4000, 4001])
def test_every_length_as_kaldi(length: int, snip_edges: bool) -> None:
    config = replace(DEFAULT, snip_edges=snip_edges)
    samples = speech_like(1.0)[5000 : 5000 + length]
    expected = kaldi(samples, config)
    result = ours(samples, config)
    assert result.shape == expected.shape == (config.num_frames(length), 40)
    if len(expected):
        assert np.abs(result - expected).max() <= 1e-3


def float64(samples: np.ndarray) -> np.ndarray:
    """The default settings' definition written out in float64, with a plain discrete Fourier transform."""
    count = (len(samples) + 80) // 160
    extended = np.concatenate([samples[:120][::-1], samples, samples[-400:][::-1]]).astype(np.float64)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(257)) / 512)
    frames = np.stack([extended[160 * t : 160 * t + 400] for t in range(count)])
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.c_[frames[:, :1], frames[:, :-1]]
    power = np.abs((frames * window) @ fourier) ** 2
    return np.log(np.maximum(power @ mel_filters(DEFAULT), 2.0**-23))


def test_against_float64(librispeech: Path) -> None:
    """Also where a loud frame has weak filters; float32 alone would be wrong by 1e-3 there."""
    speech = [soundfile.read(file, dtype="float32")[0] for file in sorted(librispeech.rglob("526-*.flac"))[:4]]
    tone = np.sin(np.arange(16000) * 0.5) + np.random.default_rng(0).standard_normal(16000) * 1e-5
    for samples in (*speech, speech_like(), (0.5 * tone).astype(np.float32)):
        assert np.abs(ours(samples) - float64(samples)).max() <= 2.5e-4


@pytest.mark.parametrize("packed", [False, True])
def test_batch_changes_no_bit(packed: bool) -> None:
    """Alone or among others, one by one (CPU) or as one packed array (GPU)."""
    fbank = Fbank(DEFAULT, CPU)
    fbank.packed = packed
    lengths = [5000, 0, 16000, 79, 400, 130000]
    waveforms = [torch.from_numpy(speech_like(9, seed=i))[:length] for i, length in enumerate(lengths)]
    together = fbank(waveforms)
    for waveform, frames in zip(waveforms, together, strict=True):
        assert torch.equal(fbank([waveform])[0], frames)
        assert np.abs(frames.numpy() - ours(waveform.numpy())).max(initial=0) <= 1e-4
    assert fbank([]) == []
    assert fbank([torch.zeros(10)])[0].shape == (0, 40)


def test_dither_is_noise_of_the_given_size() -> None:
    """On digital silence: the mean log energy of noise alone, the same from call to call."""
    config = replace(DEFAULT, dither=1e-3)
    noise = np.random.default_rng(0).standard_normal(160000).astype(np.float32) * 1e-3
    frames = ours(np.zeros(160000, np.float32), config)
    assert np.abs(frames.mean(0) - kaldi(noise, DEFAULT).mean(0)).max() < 0.15
    assert np.array_equal(frames, ours(np.zeros(160000, np.float32), config))


@pytest.mark.parametrize("change, told", [
    ({"num_mel_bins": 0}, "num_mel_bins"), ({"num_mel_bins": 200}, "too many"), ({"high_freq": 9000.0}, "half"),
    ({"low_freq": 8000.0}, "low_freq"), ({"high_freq": -8000.0}, "high_freq"), ({"dither": 1.0}, "dither"),
    ({"preemphasis": 1.5}, "preemphasis"), ({"frame_shift_ms": 30.0}, "frame_shift_ms"), ({"sample_rate": 8}, "rate"),
    ({"frame_length_ms": 0.05, "frame_shift_ms": 0.05}, "two samples"),
])
def test_wrong_settings(change: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(DEFAULT, **change)


def test_wrong_waveforms() -> None:
    fbank = Fbank(DEFAULT, CPU)
    with pytest.raises(ValueError, match="one-dimensional"):
        fbank([torch.zeros(1, 800)])
    with pytest.raises(ValueError, match="floating-point"):
        fbank([torch.zeros(800, dtype=torch.int16)])
