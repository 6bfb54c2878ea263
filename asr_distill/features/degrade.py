"""Clean audio as it is heard in a room with noise, so that a student can hear that while its teachers hear the clean.

An utterance keeps its length, and the direct sound its place: frames and their senones stay where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from asr_distill.errors import UserError
from asr_distill.features.noise import EXPONENTS, babble_noise, coloured_noise, mix
from asr_distill.features.rooms import impulse_response, reverberate
from asr_distill.features.waveform import Clip

_NOISES = (*EXPONENTS, "babble")


@dataclass(frozen=True)
class DegradeConfig:
    """How often and how strongly. Every utterance draws evenly from each range; none has two noises."""

    reverb: float = 0.5  # share of utterances heard in a room
    white: float = 0.1  # share with noise of this kind; what all four leave has none
    pink: float = 0.2
    brown: float = 0.1
    babble: float = 0.4  # other utterances of the same split
    rt60: tuple[float, ...] = (0.2, 0.8)  # s, in which reverberation falls by 60 dB
    direct: tuple[float, ...] = (0.0, 12.0)  # dB, direct sound over reverberation
    snr: tuple[float, ...] = (5.0, 20.0)  # dB, speech over noise
    babble_snr: tuple[float, ...] = (8.0, 20.0)
    voices: tuple[int, ...] = (3, 6)  # of a babble
    seed: int = 0  # another seed, another copy

    def __post_init__(self) -> None:
        for name in ("reverb", *_NOISES):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, not {getattr(self, name)}")
        if sum(getattr(self, name) for name in _NOISES) > 1 + 1e-9:
            raise ValueError(f"{', '.join(_NOISES)} must be 1 or less together")
        for name, least, most in (("rt60", 0.05, 3.0), ("direct", -30.0, 60.0), ("snr", -30.0, 100.0),
                                  ("babble_snr", -30.0, 100.0), ("voices", 1, 100)):
            limits = getattr(self, name)
            if len(limits) != 2 or not least <= limits[0] <= limits[1] <= most:
                raise ValueError(f"{name} must be two rising numbers from {least} to {most}, not {list(limits)}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, not {self.seed}")

    @property
    def active(self) -> bool:
        return any(getattr(self, name) for name in ("reverb", *_NOISES))


@dataclass(frozen=True)
class Treatment:
    """What happens to one utterance."""

    rt60: float | None  # s; None: no room
    direct: float  # dB
    noise: str | None  # one of white, pink, brown, babble
    snr: float  # dB
    voices: int


def treatment_of(utterance_id: str, config: DegradeConfig) -> Treatment:
    """Drawn from (config.seed, utterance id) alone; other shares of noise leave the rooms as they are."""
    random = _random(utterance_id, config, 0)
    in_room, which, voices = random.random(3)
    rt60, direct, level = random.random(3)
    ends = accumulate(getattr(config, name) for name in _NOISES)
    noise = next((name for name, end in zip(_NOISES, ends, strict=True) if which < end), None)
    low, high = config.voices
    return Treatment(
        _between(config.rt60, rt60) if in_room < config.reverb else None, _between(config.direct, direct), noise,
        _between(config.babble_snr if noise == "babble" else config.snr, level), low + int(voices * (high - low + 1)))


class Degrader:
    """`Degrader(config, sample_rate, device, clips)(waveforms, batch)`: each utterance as if it were alone.

    clips: the split's utterances at their own speed, of which babble is made. An instance may be called from several
    threads at once. Raises UserError where babble is asked for and there are fewer than two.
    """

    def __init__(self, config: DegradeConfig, sample_rate: int, device: torch.device, clips: Sequence[Clip]):
        if config.babble and len(clips) < 2:
            raise UserError("degrade.babble: babble is made of other utterances, and this split has but one; set it to "
                            "0")
        self.config, self.sample_rate, self.device, self.clips = config, sample_rate, device, clips

    def __call__(self, waveforms: Sequence[torch.Tensor], batch: Sequence[Clip]) -> list[torch.Tensor]:
        """Float32 waveforms (samples,) on the CPU, of the batch's clips, to others of the same lengths, there too."""
        return [self._degraded(waveform, clip) for waveform, clip in zip(waveforms, batch, strict=True)]

    def _degraded(self, waveform: torch.Tensor, clip: Clip) -> torch.Tensor:
        """The room first; the noise's level is against the speech as heard in it (Kaldi's wav-reverberate)."""
        treatment = treatment_of(clip.id, self.config)
        if not len(waveform) or (treatment.rt60 is None and treatment.noise is None):
            return waveform
        heard = waveform.to(self.device)
        if treatment.rt60 is not None:
            response = impulse_response(treatment.rt60, treatment.direct, self.sample_rate,
                                        _random(clip.id, self.config, 1))
            heard = reverberate(heard, torch.from_numpy(response).to(self.device))
        if treatment.noise is not None:
            heard = mix(heard, self._noise(treatment, len(heard), clip), treatment.snr)
        return heard.cpu()

    def _noise(self, treatment: Treatment, samples: int, clip: Clip) -> torch.Tensor:
        random = _random(clip.id, self.config, 2)
        if treatment.noise == "babble":
            return babble_noise(samples, clip, self.clips, treatment.voices, random, self.device)
        return coloured_noise(samples, EXPONENTS[str(treatment.noise)], self.sample_rate, random, self.device)


def _random(utterance_id: str, config: DegradeConfig, stream: int) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:16], "big")
    return np.random.default_rng([config.seed, key, stream])


def _between(limits: Sequence[float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])
