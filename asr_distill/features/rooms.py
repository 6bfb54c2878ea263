"""Synthetic rooms: impulse responses that start with the direct sound, and audio as it is heard in them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchaudio.functional import fftconvolve

_SOUND = 343.0  # m/s
_VOLUME = (30.0, 300.0)  # m^3, of rooms in which people speak
_DISTANCE = (0.5, 3.0)  # m from mouth to microphone
# An FFT's length is this many impulse responses or more: three quarters of it are audio.
_SPAN = 4


def impulse_response(rt60: float, direct: float, sample_rate: int, random: np.random.Generator) -> np.ndarray:
    """float32 (1 + rt60 * sample_rate,): the direct sound, of height 1, at sample 0, then reflections.

    rt60: seconds in which the reverberation falls by 60 dB, at all frequencies alike; direct: the direct sound's energy
    over that of all reflections, in dB. Reflections come at random at the rate of a shoebox room's image sources,
    4 pi c^3 t^2 / V (Kuttruff, "Room Acoustics", section 4.1), each as much weaker as its way was longer: single echoes
    first, soon Gaussian noise, under an exponential decay (Polack 1988).
    """
    volume = math.exp(random.uniform(*np.log(_VOLUME)))
    first = random.uniform(*_DISTANCE) / _SOUND  # s, when the direct sound arrives
    later = np.arange(1, int(rt60 * sample_rate) + 1) / sample_rate  # s after it
    time = first + later
    echoes = random.poisson(4 * math.pi * _SOUND**3 * time**2 / (volume * sample_rate))  # within each sample
    heights = random.standard_normal(len(time)) * np.sqrt(echoes) / time * 10 ** (-3 * later / rt60)
    heights *= 10 ** (-direct / 20) / np.linalg.norm(heights)
    return np.concatenate([[1.0], heights]).astype(np.float32)


def reverberate(waveform: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """waveform (samples,) heard through response (taps,), cut to its length and brought back to its energy.

    Convolution by FFTs of one size, a power of two, with overlapping results added: a result reaches into the next
    block alone, as several blocks are each longer than the response.
    """
    taps = len(response)
    whole = len(waveform) + taps - 1
    size = 1 << (min(_SPAN * taps, whole) - 1).bit_length()
    block = size - taps + 1
    count = -(-len(waveform) // block)
    blocks = torch.nn.functional.pad(waveform, (0, count * block - len(waveform))).view(count, block)
    pieces = fftconvolve(blocks, response.unsqueeze(0))  # (count, size)
    heard = pieces.new_zeros(count + 1, block)
    heard[:-1] = pieces[:, :block]
    if count > 1:
        heard[1:, :taps - 1] += pieces[:, block:]
    result = heard.flatten()[:len(waveform)]
    energy = torch.linalg.vector_norm(result)
    return result * (torch.linalg.vector_norm(waveform) / energy) if energy > 0 else result
