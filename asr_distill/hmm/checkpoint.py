"""The state of HMM-GMM training between iterations, in one file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr_distill.errors import UserError
from asr_distill.files import atomic_path
from asr_distill.hmm.align import Alignment
from asr_distill.hmm.gmm import Mixtures

log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class TrainingState:
    """After `iteration`: the mixtures, the alignment that they were estimated on, and the features' transforms."""

    iteration: int
    mixtures: Mixtures
    labels: Alignment  # of the training set
    log_likelihoods: list[float]  # a frame, of each iteration's alignment under the mixtures before it; of the features
    # before the transforms, so that iterations can be compared
    transform: np.ndarray | None = None  # float64 (D, D): MLLT
    speakers: np.ndarray | None = None  # float64 (speakers, D, D + 1): fMLLR


_LABELS = ("pdf_ids", "phone_ids", "states")
_TRANSFORMS = ("transform", "speakers")


def save_state(directory: Path, digest: str, state: TrainingState) -> None:
    """Replace the state that is there. `digest` stands for the settings and data."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.mixtures.tensors().items()}
    arrays = {name: getattr(state.labels, name) for name in _LABELS}
    arrays |= {name: getattr(state, name) for name in _TRANSFORMS if getattr(state, name) is not None}
    facts = {"digest": digest, "iteration": state.iteration, "log_likelihoods": state.log_likelihoods,
             "utterances": len(state.labels.aligned)}
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / "state.safetensors") as temporary:
        save_file({**tensors, **{name: torch.from_numpy(array) for name, array in arrays.items()}}, temporary,
                  {"facts": json.dumps(facts)})


def load_state(directory: Path, digest: str, device: torch.device) -> TrainingState | None:
    """None where there is none, or only one of other settings or data. Raises UserError where it is damaged."""
    path = directory / "state.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if facts["digest"] != digest:
            log.info("%s belongs to other settings or data: training begins anew", path)
            return None
        mixtures = Mixtures.from_tensors(tensors, device)
        pdf_ids, phone_ids, states = (tensors[name].numpy() for name in _LABELS)
        labels = Alignment(pdf_ids, phone_ids, states, np.ones(facts["utterances"], bool), mixtures.num_pdfs)
        transforms = {name: tensors[name].numpy() for name in _TRANSFORMS if name in tensors}
        return TrainingState(facts["iteration"], mixtures, labels, facts["log_likelihoods"], **transforms)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error!r}); delete it to begin anew") from None
