"""What a frame is trained towards. The trainer takes any target, so student and teachers share one trainer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from asr_distill.acoustic.losses import cross_entropy_rows, mean_over_rows
from asr_distill.errors import UserError


class Targets(Protocol):
    """A loss for a batch of frames, named by their rows in the frame store."""

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Mean loss, scalar: logits (batch, pdfs) in the training precision, frames int64 (batch,)."""

    def to(self, device: torch.device) -> Targets:
        """The same targets with their data on `device`."""


@runtime_checkable
class OverPdfs(Protocol):
    """Targets that say over how many pdfs they are: those of teachers."""

    num_pdfs: int


def check_pdfs(targets: Targets, num_pdfs: int, label: str) -> None:
    """Raises UserError where the teachers' pdfs are not as many as the alignment's `num_pdfs`.

    So a teacher over phones is refused to a student over sentencepiece units, as of any two senone trees.
    """
    if isinstance(targets, OverPdfs) and targets.num_pdfs != num_pdfs:
        raise UserError(f"{label}: the teachers tell {targets.num_pdfs} senones apart, the alignment has {num_pdfs}: "
                        "they are of two senone trees (other units, or another tree); train the teachers and write the "
                        "soft targets with this alignment's tree")


class HardTargets:
    """One senone per frame: pdf_ids (num_frames,); the loss is cross-entropy in nats."""

    def __init__(self, pdf_ids: torch.Tensor):
        self.pdf_ids = pdf_ids.long()

    def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return mean_over_rows(logits, cross_entropy_rows(self.pdf_ids[frames]))

    def to(self, device: torch.device) -> HardTargets:
        return HardTargets(self.pdf_ids.to(device))
