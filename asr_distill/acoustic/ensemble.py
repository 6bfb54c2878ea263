"""Several models as one: their posteriors averaged."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.together import posteriors_together
from asr_distill.features.cmvn import UtteranceFeatures

Mean = Literal["arithmetic", "geometric"]


class Ensemble:
    """Models over the same pdfs (shapes, contexts and CMVN may differ), averaged frame by frame.

    `arithmetic` is the paper's mean of the (tempered) posteriors; `geometric` is the normalised mean of their logs.
    `weights`: relative, one a model (empty: equal). Raises ValueError where there is no model, they do not share their
    pdfs, or the weights are not one positive number for each.
    """

    def __init__(self, models: Sequence[PosteriorModel], mean: Mean = "arithmetic", weights: Sequence[float] = ()):
        if not models:
            raise ValueError("an ensemble needs at least one model")
        if len({model.num_pdfs for model in models}) > 1:
            raise ValueError(f"models of an ensemble must share their pdfs, not {[m.num_pdfs for m in models]}")
        if weights and (len(weights) != len(models) or min(weights) <= 0):
            raise ValueError(f"weights must be one number > 0 for each of {len(models)} models, not {list(weights)}")
        self.models, self.mean = tuple(models), mean
        self.weights = tuple(weights) or (1.0,) * len(models)

    @property
    def num_pdfs(self) -> int:
        return self.models[0].num_pdfs

    @property
    def device(self) -> torch.device:
        return self.models[0].device

    @functools.cached_property
    def log_priors(self) -> torch.Tensor:
        """Log of the models' mean priors, float32 (pdfs,). Raises AttributeError where a model has none."""
        priors: list[Any] = [model.log_priors for model in self.models]  # type: ignore[attr-defined]
        return mean_log_posteriors(priors, "arithmetic", self.weights)

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        """Log of the mean posterior at `temperature`, float32 (frames, pdfs)."""
        # an exported model is on the CPU, whatever the others are on
        each = (model.log_posteriors(utterance, temperature).to(self.device) for model in self.models)
        return mean_log_posteriors(each, self.mean, self.weights)

    def log_posteriors_of(self, utterances: Sequence[UtteranceFeatures], temperature: float = 1.0) -> torch.Tensor:
        """The same of several utterances, each model asked about all at once, float32 (frames of all, pdfs)."""
        each = (posteriors_together(model, utterances, temperature).to(self.device) for model in self.models)
        return mean_log_posteriors(each, self.mean, self.weights)

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log posterior - log prior, float32 (frames, pdfs)."""
        return self.log_posteriors(utterance) - self.log_priors

    def cast(self, dtype: torch.dtype) -> Ensemble:
        """A copy whose networks compute in `dtype`; models of a fixed precision stay as they are."""
        models = [model.cast(dtype) if hasattr(model, "cast") else model for model in self.models]
        return Ensemble(models, self.mean, self.weights)


def mean_log_posteriors(each: Iterable[torch.Tensor], mean: Mean, weights: Sequence[float]) -> torch.Tensor:
    """Log of the weighted mean of posteriors whose logs `each` gives, (..., pdfs).

    `each` may be lazy: two matrices are in memory, however many models.
    """
    total: torch.Tensor | None = None
    for weight, log_posteriors in zip(weights, each, strict=True):
        if mean == "arithmetic":
            term = log_posteriors if weight == 1 else log_posteriors + math.log(weight)
            total = term if total is None else torch.logaddexp(total, term)
        else:
            term = log_posteriors if weight == 1 else log_posteriors * weight
            total = term if total is None else total + term
    assert total is not None
    if mean == "arithmetic":
        return total - math.log(math.fsum(weights))
    return torch.log_softmax(total / math.fsum(weights), -1)
