"""Log-mel filterbank frames by Kaldi's definition (feature-fbank, feature-window, mel-computations), in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

EPSILON = float(np.finfo(np.float32).eps)  # Kaldi's floor under every mel energy
_DITHER_SEED = 0
# Frames per block: on a CPU the buffers of one block stay in the second-level cache.
_BLOCK_FRAMES_CPU = 512
_BLOCK_FRAMES_ACCELERATOR = 16384
# Difference of a frame's largest and smallest log energies (70 dB) up to which float32 keeps them right to 2e-4.
_TRUSTED_SPAN = math.log(1e7)


@dataclass(frozen=True)
class FbankConfig:
    """Settings of the features, named as in Kaldi's compute-fbank-feats.

    Samples are expected in [-1, 1] (as sherpa-onnx feeds them), the window is Povey's, the mean of each window
    is removed, the power spectrum is used, and there is no energy coefficient. `high_freq` <= 0 counts from
    the Nyquist frequency. Raises ValueError for settings that Kaldi would refuse.
    """

    sample_rate: int = 16000  # Hz
    num_mel_bins: int = 40
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    low_freq: float = 20.0  # Hz
    high_freq: float = -400.0  # Hz
    preemphasis: float = 0.97
    dither: float = 0.0  # standard deviation of the noise, on the scale of the samples
    snip_edges: bool = False

    def __post_init__(self) -> None:
        if self.sample_rate < 1000:
            raise ValueError(f"sample_rate must be at least 1000 Hz, not {self.sample_rate}")
        if not 0 < self.frame_shift_ms <= self.frame_length_ms:
            raise ValueError(f"frame_shift_ms must lie in (0, frame_length_ms], not {self.frame_shift_ms}")
        if self.frame_length < 2 or self.frame_shift < 1:
            raise ValueError(f"frame_length_ms {self.frame_length_ms} holds fewer than two samples")
        if not 0 <= self.preemphasis <= 1:
            raise ValueError(f"preemphasis must lie in [0, 1], not {self.preemphasis}")
        if not 0 <= self.dither <= 0.1:
            raise ValueError(f"dither must lie in [0, 0.1] for samples in [-1, 1] (Kaldi's 1.0 is 3e-5 here), "
                             f"not {self.dither}")
        if self.num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be positive, not {self.num_mel_bins}")
        if not 0 <= self.low_freq < self.top_freq <= self.sample_rate / 2:
            raise ValueError(f"low_freq {self.low_freq} and high_freq {self.high_freq} must lie in order between 0 and "
                             f"{self.sample_rate / 2:g} Hz, half the sample rate")
        if not (mel_filters(self).sum(0) > 0).all():
            raise ValueError(f"num_mel_bins {self.num_mel_bins} is too many: some filters would hold no FFT bin")

    @property
    def frame_length(self) -> int:
        """Samples per window."""
        return int(self.sample_rate * 0.001 * self.frame_length_ms)

    @property
    def frame_shift(self) -> int:
        """Samples from one window to the next."""
        return int(self.sample_rate * 0.001 * self.frame_shift_ms)

    @property
    def fft_size(self) -> int:
        """The window padded to a power of two."""
        return 1 << (self.frame_length - 1).bit_length()

    @property
    def top_freq(self) -> float:
        """The upper edge of the last filter in Hz."""
        return self.high_freq if self.high_freq > 0 else self.sample_rate / 2 + self.high_freq

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform gives (Kaldi's NumFrames); 0 where it is too short for one."""
        if self.snip_edges:
            return max(0, 1 + (num_samples - self.frame_length) // self.frame_shift)
        return (num_samples + self.frame_shift // 2) // self.frame_shift


def mel_filters(config: FbankConfig) -> np.ndarray:
    """Triangular weights, even on the mel scale 1127 ln(1 + f / 700): float64 (fft_size / 2 + 1, num_mel_bins).

    As in Kaldi the bin at the Nyquist frequency has no weight.
    """
    bins = _mel(np.arange(config.fft_size // 2) * (config.sample_rate / config.fft_size))[:, None]
    edges = _edges(config)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(min=0)
    return np.concatenate([weights, np.zeros((1, config.num_mel_bins))])


def mel_centres(config: FbankConfig) -> np.ndarray:
    """The filters' middle frequencies in Hz: float64 (num_mel_bins,)."""
    return 700.0 * np.expm1(_edges(config)[1:-1] / 1127.0)


def _edges(config: FbankConfig) -> np.ndarray:
    """Where filters begin, peak and end, on the mel scale (num_mel_bins + 2,)."""
    return np.linspace(_mel(config.low_freq), _mel(config.top_freq), config.num_mel_bins + 2)


def _mel(frequency: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)


class Fbank:
    """`Fbank(config, device)(waveforms)`: whole utterances in one call.

    A frame's value depends on its own utterance alone, never on the batch. An instance may be called from
    several threads at once.
    """

    def __init__(self, config: FbankConfig, device: torch.device):
        self.config, self.device = config, device
        # On a CPU utterances go one by one: samples and work buffers stay in the cache. Elsewhere the batch is one long
        # array, worked through in blocks of one shape, so that a frame's bytes do not depend on the batch around it.
        self.packed = device.type != "cpu"
        length = config.frame_length
        phase = np.arange(length) * (2 * math.pi / (length - 1))
        povey = (0.5 - 0.5 * np.cos(phase)) ** 0.85
        self.window64 = torch.tensor(povey[1:], dtype=torch.float64, device=device)  # povey[0] is 0
        self.window = self.window64.float()
        self._straddling = -(-(length - config.frame_shift) // config.frame_shift)  # rows between two utterances
        filters = mel_filters(config)
        used = np.flatnonzero(filters.any(1))
        self.bins = slice(2 * int(used[0]), 2 * int(used[-1]) + 2)  # of the interleaved real and imaginary parts
        # every row twice: squares of real and imaginary parts are added up by the matrix product itself
        rows = filters[used[0] : used[-1] + 1].repeat(2, axis=0)
        self.filters64 = torch.tensor(rows, dtype=torch.float64, device=device)
        self.filters = self.filters64.float()

    def __call__(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Float waveforms (samples,) in [-1, 1] to log-mel frames, float32 (frames, num_mel_bins), on the device.

        A waveform too short for one frame gives (0, num_mel_bins). Raises ValueError for a waveform that is
        not one-dimensional or not floating-point.
        """
        for waveform in waveforms:
            _check(waveform)
        counts = [self.config.num_frames(len(waveform)) for waveform in waveforms]
        # in a packed batch a few rows of windows straddle two utterances; they are not returned
        lengths = [count + self._straddling if self.packed else count for count in counts]
        frames = torch.empty((sum(lengths), self.config.num_mel_bins), device=self.device)
        results = frames.split(lengths)
        if self.packed:
            self._fill(frames, waveforms, counts, [range(len(waveforms))], lengths)
        else:
            self._fill(frames, waveforms, counts, [[i] for i in range(len(waveforms))], lengths)
        return [result[:count] for result, count in zip(results, counts, strict=True)]

    def _fill(self, frames: torch.Tensor, waveforms: Sequence[torch.Tensor], counts: Sequence[int],
              groups: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Fill frames (sum of lengths, num_mel_bins), one group of utterances after the other."""
        shift, length = self.config.frame_shift, self.config.frame_length
        rows = [sum(lengths[i] for i in group) for group in groups]
        if not sum(counts):
            return
        signal = torch.zeros(max(rows) * shift + length)
        differences = torch.empty(len(signal), device=self.device)
        block = _BLOCK_FRAMES_ACCELERATOR if self.packed else min(_BLOCK_FRAMES_CPU, max(rows))
        padded = torch.zeros((block, self.config.fft_size), device=self.device)
        unsure: list[tuple[torch.Tensor, torch.Tensor]] = []  # rows of frames, their windows
        first = 0
        for group, count in zip(groups, rows, strict=True):
            begin = 0
            for i in group:
                if counts[i]:
                    self._lay_out(waveforms[i], counts[i], signal[begin : begin + (counts[i] - 1) * shift + length])
                begin += lengths[i] * shift
            if count:
                samples = signal.to(self.device, non_blocking=True)
                windows = samples.as_strided((count, length), (shift, 1))
                result = frames[first : first + count]
                self._log_mel(samples, windows, differences, padded, result)
                chosen = _unsure(result)
                unsure.append((chosen + first, windows[chosen]))
            first += count
        self._refine(frames, *(torch.cat(parts) for parts in zip(*unsure, strict=True)))
        frames.clamp_(min=math.log(EPSILON))

    def _lay_out(self, waveform: torch.Tensor, count: int, out: torch.Tensor) -> None:
        """Write the samples under `count` windows to `out`, edges reflected unless snip_edges."""
        config, total = self.config, len(waveform)
        samples = waveform.detach().to("cpu", torch.float32)
        if config.dither:
            # Once a sample, where Kaldi draws anew for every window: each window sees the same distribution. The same
            # noise for every utterance keeps results independent of order and batch.
            generator = torch.Generator().manual_seed(_DITHER_SEED)
            samples = samples + config.dither * torch.randn(total, generator=generator)
        before = 0 if config.snip_edges else config.frame_length // 2 - config.frame_shift // 2
        needed = (count - 1) * config.frame_shift + config.frame_length
        inside = min(total, needed - before)
        out[before : before + inside] = samples[:inside]
        outside = torch.cat([torch.arange(-before, 0), torch.arange(inside, needed - before)])
        if len(outside):
            mirrored = outside.remainder(2 * total)  # reflection repeats where the waveform is shorter than the edge
            out[outside + before] = samples[torch.minimum(mirrored, 2 * total - 1 - mirrored)]

    def _log_mel(self, samples: torch.Tensor, windows: torch.Tensor, differences: torch.Tensor, padded: torch.Tensor,
                 frames: torch.Tensor) -> None:
        """Fill frames (rows, num_mel_bins) from windows (rows, frame_length) on `samples`, in blocks of len(padded)."""
        shift, length = self.config.frame_shift, self.config.frame_length
        used = (len(frames) - 1) * shift + length - 1
        torch.sub(samples[1 : used + 1], samples[:used], alpha=self.config.preemphasis, out=differences[:used])
        emphasised = differences.as_strided((len(frames), length - 1), (shift, 1))
        for begin in range(0, len(frames), len(padded)):
            block = slice(begin, begin + len(padded))
            window, count = windows[block], len(frames[block])
            work = padded if self.packed else padded[:count]
            energies = self._energies(emphasised[block], window.mean(1, keepdim=True), work, self.window, self.filters)
            torch.log(energies[:count].clamp_(min=EPSILON / 2), out=frames[block])

    def _refine(self, frames: torch.Tensor, rows: torch.Tensor, windows: torch.Tensor) -> None:
        """Compute the given rows of frames again from their windows in float64."""
        step = _BLOCK_FRAMES_ACCELERATOR if self.packed else _BLOCK_FRAMES_CPU // 4
        for begin in range(0, len(rows), step):
            window = windows[begin : begin + step].double()
            work = window.new_zeros((len(window), self.config.fft_size))
            energies = self._energies(window[:, 1:] - self.config.preemphasis * window[:, :-1],
                                      window.mean(1, keepdim=True), work, self.window64, self.filters64)
            frames[rows[begin : begin + len(window)]] = energies.clamp_(min=EPSILON / 2).log_().float()

    def _energies(self, emphasised: torch.Tensor, mean: torch.Tensor, padded: torch.Tensor, povey: torch.Tensor,
                  filters: torch.Tensor) -> torch.Tensor:
        """Mel energies (rows, num_mel_bins) in the precision of the arguments.

        emphasised: x_i - a x_{i-1} of each window (up to rows, frame_length - 1); mean: of each window's samples;
        padded: (rows, fft_size) to work in, where column 0 and the columns behind the window are and stay zero.
        """
        # (x_i - m) - a (x_{i-1} - m) = (x_i - a x_{i-1}) - (1 - a) m
        inside = padded[: len(emphasised), 1 : self.config.frame_length]
        torch.sub(emphasised, mean, alpha=1 - self.config.preemphasis, out=inside).mul_(povey)
        spectrum = torch.fft.rfft(padded)  # without out=, which would copy
        power = torch.view_as_real(spectrum).view(len(padded), -1)[:, self.bins].square_()  # (rows, 2 * used bins)
        return torch.mm(power, filters)


def _unsure(frames: torch.Tensor) -> torch.Tensor:
    """Rows whose weak filters may hold float32 rounding of the strong ones. What lies well under the floor is the floor
    either way."""
    under = frames <= math.log(EPSILON / 1.9)
    span = frames.amax(1) - frames.masked_fill(under, torch.inf).amin(1)
    return (span > _TRUSTED_SPAN).nonzero().squeeze(1)


def _check(waveform: torch.Tensor) -> None:
    if waveform.dim() != 1:
        raise ValueError(f"a waveform must be one-dimensional (samples,), not of shape {tuple(waveform.shape)}")
    if not waveform.is_floating_point():
        raise ValueError(f"samples must be floating-point in [-1, 1], not {waveform.dtype}")
