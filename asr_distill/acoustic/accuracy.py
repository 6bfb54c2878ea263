"""Frame accuracy and cross-entropy of any model that gives posteriors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore
    from asr_distill.hmm.align import Alignment


class PosteriorModel(Protocol):
    """One network, an ensemble, an exported model: what can be scored frame by frame."""

    @property
    def num_pdfs(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """log p(pdf | frame), float32 (frames, pdfs)."""


@dataclass(frozen=True)
class FrameScore:
    """Over the aligned frames: share classified as aligned (0 to 1) and mean -log p(aligned pdf) in nats."""

    accuracy: float
    cross_entropy: float
    frames: int
    reliability: ReliabilityBins


def frame_accuracy(model: PosteriorModel, store: FrameStore, alignment: Alignment,
                   utterances: Iterable[int] | None = None) -> FrameScore:
    """Score `model` on the aligned frames of the store's utterances (all, or those of the given indices).

    Raises UserError where the alignment is of another store or other pdfs, or no frame is aligned.
    """
    if len(alignment.pdf_ids) != store.num_frames or alignment.num_pdfs != model.num_pdfs:
        raise UserError(f"{store.directory}: the alignment ({len(alignment.pdf_ids)} frames, {alignment.num_pdfs} "
                        f"pdfs) is not of this store ({store.num_frames} frames) and model ({model.num_pdfs} pdfs): "
                        "align again")
    correct = torch.zeros((), dtype=torch.float64, device=model.device)
    nats = torch.zeros_like(correct)
    frames, reliability = 0, ReliabilityBins.empty()
    for index in range(len(store.offsets) - 1) if utterances is None else utterances:
        pdf_ids = torch.as_tensor(alignment.pdf_ids[store.offsets[index]:store.offsets[index + 1]]).long()
        rows = (pdf_ids >= 0).nonzero().squeeze(1)
        if not len(rows):
            continue
        rows, pdf_ids = rows.to(model.device), pdf_ids[rows].to(model.device)
        scores = model.log_posteriors(store.features(index, model.device))[rows]  # (aligned, pdfs)
        correct += (scores.argmax(1) == pdf_ids).sum()
        nats -= scores.gather(1, pdf_ids.unsqueeze(1)).sum()
        frames += len(rows)
        reliability += ReliabilityBins.of(scores, pdf_ids)
    if not frames:
        raise UserError(f"{store.directory}: no aligned frame to score: check the alignment")
    return FrameScore(float(correct) / frames, float(nats) / frames, frames, reliability)
