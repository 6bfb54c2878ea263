"""The interface that everything turns on: log p(x_t | pdf) up to a constant, for every frame and pdf."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch

from asr_distill.features.cmvn import UtteranceFeatures


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
    """An emission model that is quicker where few pdfs are asked for (a GMM: alignment needs a tenth of them)."""

    def log_likelihoods_of(self, utterance: UtteranceFeatures, pdfs: np.ndarray) -> torch.Tensor:
        """As `log_likelihoods`, for `pdfs` alone: float32 (frames, len(pdfs))."""


def log_likelihoods_of(model: EmissionModel, utterance: UtteranceFeatures, pdfs: np.ndarray) -> torch.Tensor:
    """float32 (frames, len(pdfs)), a tensor of its own, whichever way the model offers."""
    if isinstance(model, SelectiveEmission):
        return model.log_likelihoods_of(utterance, pdfs)
    scores = model.log_likelihoods(utterance)
    return scores.index_select(1, torch.as_tensor(pdfs, device=scores.device).long())
