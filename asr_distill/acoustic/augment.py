"""Samples that differ from epoch to epoch: masked and warped windows of frames, images shifted a little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from asr_distill.acoustic.config import AugmentConfig

if TYPE_CHECKING:
    from asr_distill.acoustic.sampling import Place


def spec_augment(windows: torch.Tensor, config: AugmentConfig, random: np.random.Generator,
                 place: Place | None = None) -> torch.Tensor:
    """Times and mel bands set to the mean (Park et al. 2019), other ones in each sample.

    windows (batch, frames, mels), 0 = mean -> the same shape, on the same device. place: of a part of a batch, whose
    masks are those that it has in the whole.
    """
    batch, frames, mels = windows.shape
    first, samples = (place.first_sample, place.samples) if place else (0, batch)
    for axis, size, masks, width in ((2, frames, config.time_masks, config.time_width),
                                     (1, mels, config.mel_masks, config.mel_width)):
        if masks:
            kept = _kept(samples, size, masks, min(width, size), random)[first:first + batch]
            kept = kept.to(windows.device, windows.dtype)
            windows = windows * kept.unsqueeze(axis)
    return windows


def warp_frequencies(windows: torch.Tensor, most: float, centres: np.ndarray, random: np.random.Generator,
                     place: Place | None = None) -> torch.Tensor:
    """Each sample with all frequencies multiplied by a factor of its own, uniform in 1 - most to 1 + most.

    Vocal tract length perturbation (Jaitly and Hinton 2013), by interpolation between the bands of frames that are
    normalised already; beyond the ends the last band is repeated. windows (batch, frames, mels) -> the same shape, on
    the same device. centres (mels,): the bands' middle frequencies in Hz. place: as for spec_augment.
    """
    batch, mels = len(windows), len(centres)
    first, samples = (place.first_sample, place.samples) if place else (0, batch)
    factors = 1 + random.uniform(-most, most, samples)[first:first + batch]
    sources = np.stack([np.interp(centres / factor, centres, np.arange(mels)) for factor in factors])  # (batch, mels)
    # mixing[b, i, j]: how much of band i comes to band j
    mixing = (1 - np.abs(np.arange(mels)[:, None] - sources[:, None, :])).clip(min=0)
    return torch.bmm(windows, torch.from_numpy(mixing).to(windows.device, windows.dtype))


def shift_images(images: torch.Tensor, most: int, random: np.random.Generator,
                 place: Place | None = None) -> torch.Tensor:
    """Each image moved by -most to most pixels down and right, uniform; what moves in is 0, the background.

    images (batch, height, width) -> the same shape, on the same device. place: as for spec_augment.
    """
    batch, height, width = images.shape
    first, samples = (place.first_sample, place.samples) if place else (0, batch)
    drawn = random.integers(0, 2 * most + 1, (2, samples))[:, first:first + batch]
    corners = torch.from_numpy(drawn).to(images.device)  # of the piece kept
    padded = torch.nn.functional.pad(images, (most,) * 4)  # (batch, height + 2 most, width + 2 most)
    # every piece at every corner, as a view; one copy takes each image's own
    pieces = padded.unfold(1, height, 1).unfold(2, width, 1)  # (batch, 2 most + 1, 2 most + 1, height, width)
    return pieces[torch.arange(batch, device=images.device), corners[0], corners[1]]


def _kept(batch: int, size: int, masks: int, width: int, random: np.random.Generator) -> torch.Tensor:
    """bool (batch, size): False under one of `masks` masks of 0 to `width` places, uniform in width and place."""
    widths = random.integers(0, width + 1, (batch, masks, 1))
    begins = random.integers(0, size - widths + 1)
    place = np.arange(size)
    return torch.from_numpy(~((place >= begins) & (place < begins + widths)).any(1))
