"""What decides a model's posteriors, as a digest: so that targets of other teachers are never taken for these."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol, runtime_checkable

import numpy as np

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel


@runtime_checkable
class Fingerprinted(Protocol):
    """A model that says itself what its posteriors depend on."""

    def fingerprint(self) -> str:
        """Equal for equal posteriors on every utterance: a digest of weights and settings, or of files."""


def fingerprint_of(model: PosteriorModel) -> str:
    """Digest of a model's weights and normalisation, or what it says itself (`Fingerprinted`).

    Raises TypeError for a kind of model that is not known and says nothing.
    """
    if isinstance(model, Fingerprinted):
        return model.fingerprint()
    if isinstance(model, Ensemble):
        parts = [model.mean, model.weights, [fingerprint_of(part) for part in model.models]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    if isinstance(model, AcousticModel):
        cmvn = model.cmvn
        digest = hashlib.sha256(json.dumps(
            [cmvn.kind, cmvn.window, cmvn.prior_frames, cmvn.stream, cmvn.train.count]).encode())
        digest.update(cmvn.train.total.tobytes() + cmvn.train.squares.tobytes())
        for value in model.network.state_dict().values():
            digest.update(np.ascontiguousarray(value.cpu().numpy()).data)
        return digest.hexdigest()
    raise TypeError(f"{type(model).__name__} has no fingerprint(): give it one, or hand one to the caller")
