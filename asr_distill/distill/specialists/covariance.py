"""Mean and covariance of a model's posteriors over the frames of a store: which senones it takes for each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.progress import Progress

BLOCK = 4096  # frames of one product


@dataclass(frozen=True)
class PosteriorMoments:
    """Of `frames` posteriors, on the model's device."""

    mean: torch.Tensor  # float64 (pdfs,)
    covariance: torch.Tensor  # float64 (pdfs, pdfs)
    frames: int


def posterior_moments(model: PosteriorModel, store: FrameStore, most: int = 0, *,
                      label: str = "covariance of posteriors") -> PosteriorMoments:
    """One pass over the store, or over evenly spread utterances of about `most` frames (0: all).

    Products of a block of frames are made in the posteriors' precision (float32) and summed in float64. Raises
    UserError where the store has no frame.
    """
    step = -(-store.num_frames // most) if most else 1
    chosen = range(0, len(store.utterances), max(step, 1))
    lengths = [int(store.offsets[index + 1] - store.offsets[index]) for index in chosen]
    frames = sum(lengths)
    if not frames:
        raise UserError(f"{store.directory}: no frames to find the confusable senones on")
    total = torch.zeros(model.num_pdfs, dtype=torch.float64, device=model.device)
    products = torch.zeros(model.num_pdfs, model.num_pdfs, dtype=torch.float64, device=model.device)
    with Progress(label, frames, "frames") as progress:
        for index, length in zip(chosen, lengths, strict=True):
            for posteriors in model.log_posteriors(store.features(index, model.device)).exp().split(BLOCK):
                total += posteriors.sum(0, dtype=torch.float64)
                products += posteriors.T @ posteriors
            progress.update(length)
    mean = total / frames
    return PosteriorMoments(mean, products.div_(frames).addr_(mean, mean, alpha=-1), frames)
