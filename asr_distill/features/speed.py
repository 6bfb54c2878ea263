"""Speed perturbation: tempo and pitch changed together by resampling (Ko et al. 2015; Kaldi's `sox speed`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from asr_distill.errors import UserError

SLOWEST, FASTEST = 0.5, 2.0
_LARGEST_DENOMINATOR = 1000
# Windowed sinc: zero crossings a side, pass band as a share of the lower Nyquist frequency, Kaiser's beta (100 dB).
_CROSSINGS, _ROLLOFF, _BETA = 64, 0.95, 10.0
_BLOCK_ROWS_CPU = 512  # the rows of one product stay in the second-level cache
_BLOCK_ROWS_ACCELERATOR = 32768


def check_speeds(speeds: Sequence[float]) -> None:
    """Raises UserError where there is no factor, or one is out of range, too fine, or given twice."""
    if not speeds:
        raise UserError("speeds: no factor is given; write [1.0] for the audio as it is")
    for factor in speeds:
        if not SLOWEST <= factor <= FASTEST:
            raise UserError(f"speeds: factor {factor:g} does not lie between {SLOWEST} and {FASTEST}")
        if abs(_ratio(factor) - Fraction(factor)) > Fraction(1, 10**9):
            raise UserError(f"speeds: factor {factor!r} is too fine; three decimals at most")
    twice = [factor for factor in speeds if list(speeds).count(factor) > 1]
    if twice:
        raise UserError(f"speeds: factor {twice[0]:g} is given twice")


def perturbed_name(name: str, factor: float) -> str:
    """Of an utterance or a speaker: sp0.9-NAME; the name itself for factor 1 (Kaldi's convention)."""
    return name if factor == 1 else f"sp{float(factor)!r}-{name}"


def perturbed_samples(samples: int, factor: float) -> int:
    """Length after the change, rounded half up (as lhotse's perturb_speed)."""
    ratio = _ratio(factor)
    return (2 * samples * ratio.denominator + ratio.numerator) // (2 * ratio.numerator)


class SpeedPerturbation:
    """Plays waveforms `factor` times as fast, on the device; above the lower Nyquist frequency nothing is left.

    With factor p / q, every p samples in give q samples out by the same q filters: one matrix product.
    """

    def __init__(self, factor: float, device: torch.device):
        check_speeds([factor])
        self.factor, self.device = factor, device
        # As in Fbank: elsewhere than on a CPU the batch is one long array, worked through in blocks of one shape.
        self.packed = device.type != "cpu"
        self.step, self.phases = _ratio(factor).as_integer_ratio()
        width = min(1.0, self.phases / self.step) * _ROLLOFF
        self.reach = math.ceil(_CROSSINGS / width)  # samples that a filter sees on each side
        self.filters = torch.tensor(_filters(self.step, self.phases, width, self.reach), dtype=torch.float32,
                                    device=device)

    def __call__(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Float32 waveforms (samples,) on the CPU to others of `perturbed_samples` samples, there too."""
        if self.packed:
            return self._change(waveforms)
        return [self._change([waveform])[0] for waveform in waveforms]

    def _change(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        rows = [-(-len(waveform) // self.step) for waveform in waveforms]
        gap = -(-self.reach // self.step)  # rows of silence: no filter sees two waveforms
        first = [0]
        for count in rows:
            first.append(first[-1] + count + gap)
        total, block = first[-1], _BLOCK_ROWS_CPU
        if self.packed:
            block = _BLOCK_ROWS_ACCELERATOR
            total = -(-total // block) * block
        signal = torch.zeros(total * self.step + len(self.filters))
        for waveform, row in zip(waveforms, first, strict=False):
            begin = self.reach + row * self.step
            signal[begin : begin + len(waveform)] = waveform
        seen = signal.to(self.device).as_strided((total, len(self.filters)), (self.step, 1))
        result = torch.empty(total, self.phases, device=self.device)
        for at in range(0, total, block):
            torch.mm(seen[at : at + block], self.filters, out=result[at : at + block])
        samples = result.flatten().cpu()
        return [samples[row * self.phases :][: perturbed_samples(len(waveform), self.factor)]
                for waveform, row in zip(waveforms, first, strict=False)]


def _ratio(factor: float) -> Fraction:
    return Fraction(factor).limit_denominator(_LARGEST_DENOMINATOR)


def _filters(step: int, phases: int, width: float, reach: int) -> np.ndarray:
    """float64 (2 * reach + step, phases): column c makes the sample at c * step / phases, row `reach` weighs sample 0.

    width: the filters' pass band as a share of the input's Nyquist frequency.
    """
    taps = np.arange(-reach, reach + step)[:, None]
    times = width * (taps - np.arange(phases) * step / phases)  # in zero crossings
    window = np.i0(_BETA * np.sqrt(np.maximum(1 - (times / _CROSSINGS) ** 2, 0))) * (np.abs(times) < _CROSSINGS)
    filters = np.sinc(times) * window
    return filters / filters.sum(0)  # a constant stays what it is
