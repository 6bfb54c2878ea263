"""Frames of sound that comes bit by bit against those of the whole waveform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr_distill.features.fbank import Fbank, FbankConfig
from asr_distill.features.online_fbank import OnlineFbank

CPU = torch.device("cpu")
CONFIGS = {
    "default": FbankConfig(),
    "snip": FbankConfig(snip_edges=True),
    "8 kHz": FbankConfig(sample_rate=8000, num_mel_bins=23),
    "odd sizes": FbankConfig(sample_rate=11025, frame_length_ms=25.3, frame_shift_ms=7.1, num_mel_bins=20),
    "no overlap": FbankConfig(frame_length_ms=10.0, num_mel_bins=12),
}


def in_pieces(online: OnlineFbank, samples: np.ndarray, random: np.random.Generator, longest: int) -> torch.Tensor:
    found, begin = [], 0
    while begin < len(samples):
        end = begin + int(random.integers(0, longest + 1))
        found.append(online.accept(samples[begin:end]))
        begin = end
    return torch.cat([*found, online.finish()])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("longest", [50, 700, 100_000])
def test_frames_are_those_of_the_whole(name: str, longest: int) -> None:
    config, random = CONFIGS[name], np.random.default_rng(longest)
    online, whole = OnlineFbank(config), Fbank(config, CPU)
    for seconds in (0.9, 0.31):
        noise = random.normal(0, 0.1, int(seconds * config.sample_rate)).astype(np.float32)
        samples = noise * np.linspace(0, 1, len(noise), dtype=np.float32) ** 4  # silence too
        found, wanted = in_pieces(online, samples, random, longest), whole([torch.from_numpy(samples)])[0]
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_short_length_has_its_edges(name: str) -> None:
    config, random = CONFIGS[name], np.random.default_rng(1)
    online, whole = OnlineFbank(config), Fbank(config, CPU)
    samples = random.normal(0, 0.1, 900).astype(np.float32)
    for length in (*range(0, 900, 23), config.frame_length - 1, config.frame_length, config.frame_length + 1):
        found = in_pieces(online, samples[:length], random, 160)
        wanted = whole([torch.from_numpy(samples[:length].copy())])[0]
        assert found.shape == wanted.shape, length
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_a_frame_comes_as_soon_as_its_window_is_heard() -> None:
    config = FbankConfig()
    online, heard, given = OnlineFbank(config), 0, 0
    for _ in range(60):
        heard += 160
        given += len(online.accept(np.full(160, 0.1, np.float32)))
        if heard >= config.frame_length:  # centre of frame i: 80 + 160 i; 200 samples more
            assert given == (heard - 280) // 160 + 1
    assert len(online._held) < 2 * config.frame_length


def test_dither_is_noise_of_the_same_power() -> None:
    config = FbankConfig(dither=1e-3)
    found = OnlineFbank(config).accept(np.zeros(32_000, np.float32))
    wanted = Fbank(config, CPU)([torch.zeros(32_000)])[0]
    assert abs(float(found.mean() - wanted.mean())) < 0.05 and float(found.std()) > 0.1
