"""The interface that everything turns on: log p(x_t | pdf) up to a constant, for every frame and pdf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from asr_distill.features.cmvn import UtteranceFeatures

# Unscaled log-likelihoods of some frames of an utterance under some pdfs, float32 (frames, pdfs), a tensor of its own.
Scorer = Callable[[slice, np.ndarray], torch.Tensor]


@runtime_checkable
class EmissionModel(Protocol):
    """A GMM, one network, an ensemble, an ONNX session: aligner, decoder and scorer take any of them."""

    @property
    def num_pdfs(self) -> int:
        """How many pdfs (S)."""

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log p(x_t | s) + c_t, float32 (frames, pdfs), unscaled, on the model's device.

        The model normalises the raw features itself (its own form of CMVN).
        """


@runtime_checkable
class SelectiveEmission(Protocol):
    """An emission model that is quicker where little is asked for (a GMM: alignment needs one pdf in fifty)."""

    def scorer(self, utterance: UtteranceFeatures) -> Scorer:
        """As `log_likelihoods`, of what is asked for alone."""


def scorer_of(model: EmissionModel, utterance: UtteranceFeatures) -> Scorer:
    """Whichever way the model offers."""
    if isinstance(model, SelectiveEmission):
        return model.scorer(utterance)
    return from_matrix(model.log_likelihoods(utterance))


def from_matrix(scores: torch.Tensor) -> Scorer:
    """Parts of log-likelihoods (frames, pdfs)."""
    return lambda rows, pdfs: scores[rows].index_select(1, torch.as_tensor(pdfs, device=scores.device).long())
