"""Noise to be added to speech: white, pink, brown, and babble made of other utterances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lhotse.augmentation.utils import next_fast_len
from torchaudio.functional import add_noise

from asr_distill.features.speed import perturbed_name
from asr_distill.features.waveform import Clip, read_samples

# Power over frequency falls with this exponent: 0, 3 and 6 dB an octave.
EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
# Below it every colour is flat: a rumble that nobody hears would take all of the noise's power.
_LOWEST = 50.0  # Hz
_TRIES = 8  # utterances drawn for each voice, in search of as many speakers


def coloured_noise(samples: int, exponent: float, sample_rate: int, random: np.random.Generator,
                   device: torch.device) -> torch.Tensor:
    """Gaussian noise (samples,), float32 on the device, of power 1 / frequency^exponent."""
    if not exponent:
        return torch.from_numpy(random.standard_normal(samples, np.float32)).to(device)
    size = next_fast_len(samples)
    frequencies = torch.fft.rfftfreq(size, 1 / sample_rate, device=device)
    weights = frequencies.clamp_(min=_LOWEST).pow_(-exponent / 2)
    weights[0] = 0  # no offset
    parts = torch.from_numpy(random.standard_normal((len(weights), 2), np.float32)).to(device)
    return torch.fft.irfft(torch.view_as_complex(parts) * weights, n=size)[:samples]


def babble_noise(samples: int, own: Clip, clips: Sequence[Clip], voices: int, random: np.random.Generator,
                 device: torch.device) -> torch.Tensor:
    """The sum (samples,) of `voices` other utterances of equal power, each from a random moment on and over again.

    Of other speakers than that of `own`, each of another, as far as there are such. Raises UserError where an audio
    file is unusable.
    """
    total = np.zeros(samples, np.float32)
    for clip in choose_voices(own, clips, voices, random):
        read = read_samples(clip)
        voice = np.resize(np.roll(read, -int(random.integers(max(1, len(read))))), samples)
        power = float(np.square(voice).mean())
        if power > 0:
            total += voice / np.float32(np.sqrt(power))
    return torch.from_numpy(total).to(device)


def choose_voices(own: Clip, clips: Sequence[Clip], voices: int, random: np.random.Generator) -> list[Clip]:
    """`voices` of the clips (fewer where there are no more), never that of the same recording as `own`."""
    drawn = random.choice(len(clips), min(len(clips), _TRIES * voices + 1), replace=False)
    others = [clips[i] for i in drawn if (clips[i].path, clips[i].start) != (own.path, own.start)]
    speakers = {own.speaker}
    first: list[Clip] = []
    rest: list[Clip] = []
    for clip in others:
        speaker = perturbed_name(clip.speaker, own.speed)
        (rest if speaker in speakers else first).append(clip)
        speakers.add(speaker)
    return (first + rest)[:voices]


def mix(waveform: torch.Tensor, noise: torch.Tensor, snr: float) -> torch.Tensor:
    """waveform (samples,) and so much of noise (samples,) that their energies over the utterance differ by snr dB."""
    if not noise.any():
        return waveform
    return add_noise(waveform, noise, waveform.new_tensor(snr))
