"""Log-mel frames while the sound is still coming: those of `Fbank`, each as soon as its window is heard."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from asr_distill.features.fbank import Fbank, FbankConfig


class OnlineFbank:
    """`accept` samples as they come, `finish` at the end: together the frames of Fbank of the whole waveform.

    Equal to them up to float32 rounding (products of other sizes are summed in another order): 1e-4 at most, of values
    between -16 and 10. Where `dither` is set its noise has the same distribution, but is other noise. On the CPU.
    """

    def __init__(self, config: FbankConfig):
        self.config = config
        # edges are laid out here, so that every window lies inside
        self._inside = Fbank(dataclasses.replace(config, snip_edges=True, dither=0.0), torch.device("cpu"))
        self._before = 0 if config.snip_edges else config.frame_length // 2 - config.frame_shift // 2
        self.reset()

    def reset(self) -> None:
        """Begin a new waveform."""
        self._held = np.zeros(0, np.float32)  # from the first sample under the next frame's window on
        self._total = 0  # samples heard
        self._frames = 0  # given out
        self._noise = np.random.default_rng(0)

    def accept(self, samples: np.ndarray) -> torch.Tensor:
        """Samples (n,) in [-1, 1], any number -> the frames that they complete, float32 (frames, num_mel_bins)."""
        samples = np.asarray(samples, np.float32)
        if self.config.dither:
            noise = self._noise.standard_normal(len(samples), np.float32)
            samples = samples + np.float32(self.config.dither) * noise
        self._held = np.concatenate([self._held, samples])
        self._total += len(samples)
        if not self._frames:
            if self._total < self.config.frame_length:
                return self._inside([torch.zeros(0)])[0]
            if self._before:  # the first windows reach before the first sample: the waveform is reflected there
                self._held = np.concatenate([self._held[:self._before][::-1], self._held])
        return self._complete(self._held)

    def finish(self) -> torch.Tensor:
        """The last frames, whose windows reach beyond the end; then a new waveform begins."""
        left = self.config.num_frames(self._total) - self._frames
        if left <= 0:
            last = self._inside([torch.zeros(0)])[0]
        elif not self._frames:
            undithered = dataclasses.replace(self.config, dither=0.0)
            last = Fbank(undithered, torch.device("cpu"))([torch.from_numpy(self._held)])[0]
        else:
            needed = (left - 1) * self.config.frame_shift + self.config.frame_length
            last = self._complete(np.pad(self._held, (0, max(0, needed - len(self._held))), mode="symmetric"))[:left]
        self.reset()
        return last

    def _complete(self, signal: np.ndarray) -> torch.Tensor:
        """The frames whose windows lie in `signal`, which begins with the next one's; what later ones need is held."""
        frames = self._inside([torch.from_numpy(signal)])[0]
        self._held = signal[len(frames) * self.config.frame_shift:]
        self._frames += len(frames)
        return frames
