"""SpecAugment (Park et al. 2019) on windows of normalised frames: times and mel bands set to the mean."""

from __future__ import annotations

import numpy as np
import torch

from asr_distill.acoustic.config import AugmentConfig


def spec_augment(windows: torch.Tensor, config: AugmentConfig, random: np.random.Generator) -> torch.Tensor:
    """windows (batch, frames, mels), 0 = mean -> the same with other masks for each sample, on the same device."""
    batch, frames, mels = windows.shape
    for axis, size, masks, width in ((2, frames, config.time_masks, config.time_width),
                                     (1, mels, config.mel_masks, config.mel_width)):
        if masks:
            kept = _kept(batch, size, masks, min(width, size), random).to(windows.device, windows.dtype)
            windows = windows * kept.unsqueeze(axis)
    return windows


def _kept(batch: int, size: int, masks: int, width: int, random: np.random.Generator) -> torch.Tensor:
    """bool (batch, size): False under one of `masks` masks of 0 to `width` places, uniform in width and place."""
    widths = random.integers(0, width + 1, (batch, masks, 1))
    begins = random.integers(0, size - widths + 1)
    place = np.arange(size)
    return torch.from_numpy(~((place >= begins) & (place < begins + widths)).any(1))
