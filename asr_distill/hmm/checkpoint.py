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
from asr_distill.hmm.gmm import Mixtures

log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class TrainingState:
    """After `iteration`: the mixtures, and the alignment that they were estimated on."""

    iteration: int
    mixtures: Mixtures
    paths: np.ndarray  # int64 (frames,): state in the graphs laid end to end
    log_likelihoods: list[float]  # a frame, of each iteration's alignment under the mixtures before it


def save_state(directory: Path, digest: str, state: TrainingState) -> None:
    """Replace the state that is there. `digest` stands for the settings and data."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.mixtures.tensors().items()}
    facts = {"digest": digest, "iteration": state.iteration, "log_likelihoods": state.log_likelihoods}
    with atomic_path(directory / "state.safetensors") as temporary:
        save_file({**tensors, "paths": torch.from_numpy(state.paths)}, temporary, {"facts": json.dumps(facts)})


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
        return TrainingState(facts["iteration"], Mixtures.from_tensors(tensors, device),
                             tensors["paths"].numpy(), facts["log_likelihoods"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error!r}); delete it to begin anew") from None
