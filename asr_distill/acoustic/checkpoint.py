"""The whole state of a training run in one safetensors file: killed at any moment, it goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr_distill.errors import UserError
from asr_distill.files import atomic_path


@dataclass
class TrainerState:
    """Where a run stands. Shuffling and dropout are functions of (seed, position): no generator state is kept."""

    precision: str = ""  # of the run, so that `auto` cannot change its mind when it goes on
    update: int = 0  # updates done; the position in the epoch follows from it
    newbob_scale: float = 1.0
    best_accuracy: float = -1.0
    best_update: int = 0
    last_accuracy: float = 0.0
    since_best: int = 0  # evaluations since the best one
    loss_sum: float = 0.0  # since the last evaluation
    loss_updates: int = 0
    seconds: float = 0.0  # spent in updates
    stopped: bool = False  # early
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry per evaluation


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Tensors and a JSON record (in the file's header), whole or not at all."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary,
                  metadata={"facts": json.dumps(facts)})


def read_tensors(path: Path, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The reverse of `write_tensors`. Raises UserError where the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            facts = json.loads(file.metadata()["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run again") from None


def save_state(path: Path, state: TrainerState, tensors: Mapping[str, torch.Tensor], identity: str) -> None:
    write_tensors(path, tensors, {"identity": identity, "state": asdict(state)})


def load_state(path: Path, identity: str, device: torch.device) -> tuple[TrainerState, dict[str, torch.Tensor]] | None:
    """State and tensors, or None where `path` belongs to a run with other settings, data or shape."""
    tensors, facts = read_tensors(path, device)
    if facts.get("identity") != identity:
        return None
    known = {entry.name for entry in fields(TrainerState)}
    return TrainerState(**{key: value for key, value in facts["state"].items() if key in known}), tensors
