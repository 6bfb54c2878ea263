"""The interface that everything turns on: log p(x_t | pdf) up to a constant, for every frame and pdf."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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
