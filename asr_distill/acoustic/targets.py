"""What a frame is trained towards. The trainer takes any target, so student and teachers share one trainer."""

from __future__ import annotations

from typing import Protocol

import torch

from asr_distill.acoustic.losses import cross_entropy_rows, mean_over_rows


class Targets(Protocol):
    """A loss for a batch of frames, named by their rows in the frame store."""

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Mean loss, scalar: logits (batch, pdfs) in the training precision, frames int64 (batch,)."""

    def to(self, device: torch.device) -> Targets:
        """The same targets with their data on `device`."""


class HardTargets:
    """One senone per frame: pdf_ids (num_frames,); the loss is cross-entropy in nats."""

    def __init__(self, pdf_ids: torch.Tensor):
        self.pdf_ids = pdf_ids.long()

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return mean_over_rows(logits, cross_entropy_rows(self.pdf_ids[frames]))

    def to(self, device: torch.device) -> HardTargets:
        return HardTargets(self.pdf_ids.to(device))
