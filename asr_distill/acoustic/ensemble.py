"""Several models as one: their posteriors averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from asr_distill.acoustic.model import AcousticModel
from asr_distill.features.cmvn import UtteranceFeatures

Mean = Literal["arithmetic", "geometric"]


class Ensemble:
    """Models over the same pdfs (shapes, contexts and CMVN may differ), averaged frame by frame.

    `arithmetic` is the paper's mean of the (tempered) posteriors; `geometric` is the normalised mean of their logs.
    Raises ValueError where there is no model or they do not share their pdfs.
    """

    def __init__(self, models: Sequence[AcousticModel], mean: Mean = "arithmetic"):
        if not models:
            raise ValueError("an ensemble needs at least one model")
        if len({model.num_pdfs for model in models}) > 1:
            raise ValueError(f"models of an ensemble must share their pdfs, not {[m.num_pdfs for m in models]}")
        self.models, self.mean = tuple(models), mean
        self.log_priors = torch.stack([m.log_priors for m in models]).logsumexp(0) - math.log(len(models))

    @property
    def num_pdfs(self) -> int:
        return self.models[0].num_pdfs

    @property
    def device(self) -> torch.device:
        return self.models[0].device

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """Log of the mean posterior at `temperature`, float32 (frames, pdfs)."""
        total = self.models[0].log_posteriors(utterance, temperature)
        for model in self.models[1:]:  # one by one: two matrices in memory, however many models
            more = model.log_posteriors(utterance, temperature)
            total = torch.logaddexp(total, more) if self.mean == "arithmetic" else total + more
        if self.mean == "arithmetic":
            return total - math.log(len(self.models))
        return torch.log_softmax(total / len(self.models), 1)

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log posterior - log prior, float32 (frames, pdfs)."""
        return self.log_posteriors(utterance) - self.log_priors


