"""One trainer for teachers, baseline and student: any network, any targets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.checkpoint import TrainerState, load_state, read_tensors
from asr_distill.acoustic.config import TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.run import TrainingRun
from asr_distill.acoustic.targets import Targets
from asr_distill.parallel.crew import current
from asr_distill.parallel.peers import Peers
from asr_distill.progress import Progress

__all__ = ["TrainResult", "TrainerConfig", "train"]
log = logging.getLogger("asr_distill")

# Neither changes what is learnt: a run goes on where only these differ.
NOT_IDENTITY = ("checkpoint_seconds", "checkpoint_updates", "tensorboard", "precision")


@dataclass(frozen=True)
class TrainResult:
    """The network with its best weights (float32, evaluation mode, on the device) and how it came about."""

    network: Network
    updates: int
    best_update: int
    accuracy: float  # held-out frame accuracy of the best weights, 0 to 1; nan without held-out frames
    cross_entropy: float  # there, nats per frame
    frames_per_second: float  # over updates alone
    seconds: float
    precision: str
    stopped_early: bool
    history: list[dict[str, Any]]


def train(network: Network, data: TrainingData, targets: Targets, config: TrainerConfig, *, seed: int, work: Path,
          device: torch.device, label: str = "training") -> TrainResult:
    """Train `network` (in place) and return it with the weights of its best held-out evaluation.

    Files in `work`: checkpoint.safetensors (all state), best.safetensors, history.json, tensorboard/. Killed at any
    moment, the same call goes on from the last checkpoint to the same bits as an uninterrupted run (same device and
    number of threads). The order of frames and dropout depend on `seed` alone. Where this process has joined others
    (parallel.crew) they train along, each on its part of every batch; how many they are changes nothing but rounding,
    and a run may go on with another number of them.

    Raises UserError where the loss is no longer a number, or a checkpoint is damaged.
    """
    identity = _identity(network, data, targets, config, seed)
    network.to(device)
    resumed = _resume(work / "checkpoint.safetensors", identity, device, label)
    state = resumed[0] if resumed else TrainerState(precision=choose_precision(config.precision, device).name)
    shared = SharedTraining(network, data, targets, config, state, resumed[1] if resumed else None, seed, label)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), \
            current().call(lambda: shared, work, device) as peers:
        run = shared.start(peers, identity, work, device)
        peers.note(label, state.update)
        frames = run.batch
        with contextlib.closing(run), Progress(label, run.total * frames, "frames",
                                               done=state.update * frames) as progress:
            while not run.finished:
                run.advance()
                progress.update(frames, run.note())
    return _result(network, state, run, work, device)


@dataclass(frozen=True)
class SharedTraining:
    """All that a process needs to take part in a training, as the first one hands it to the others."""

    network: Network
    data: TrainingData
    targets: Targets
    config: TrainerConfig
    state: TrainerState  # its precision is what the first process chose
    tensors: dict[str, torch.Tensor] | None  # of the checkpoint that it goes on from
    seed: int
    label: str

    def start(self, peers: Peers, identity: str, work: Path, device: torch.device) -> TrainingRun:
        run = TrainingRun(self.network, self.data, self.targets.to(device), self.config, self.state, self.seed,
                          identity, work, device, self.label, peers)
        if self.tensors is not None:
            run.restore(self.tensors)
        return run

    def join(self, peers: Peers, device: torch.device) -> None:
        """Train along as one of the other processes, to the end."""
        with contextlib.closing(self.start(peers, "", Path(), device)) as run:
            while not run.finished:
                run.advance()


def _result(network: Network, state: TrainerState, run: TrainingRun, work: Path,
            device: torch.device) -> TrainResult:
    tensors, facts = read_tensors(work / "best.safetensors", device)
    for name, parameter in network.named_parameters():
        parameter.data = tensors[name]
        parameter.grad = None
    network.load_state_dict(tensors)
    network.eval()
    return TrainResult(network, state.update, state.best_update, _number(facts["heldout_accuracy"]),
                       _number(facts["heldout_cross_entropy"]),
                       state.update * run.batch / max(state.seconds, 1e-9), state.seconds, state.precision,
                       state.stopped, state.history)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _resume(path: Path, identity: str, device: torch.device,
            label: str) -> tuple[TrainerState, dict[str, torch.Tensor]] | None:
    for stale in path.parent.glob(".*.safetensors.*.tmp"):  # what a killed run was writing
        stale.unlink(missing_ok=True)
    if not path.exists():
        return None
    loaded = load_state(path, identity, device)
    if loaded is None:
        log.warning("%s: %s is of other settings, data or weights: starting anew", label, path)
        return None
    if loaded[0].update:
        log.info("%s: goes on at update %d", label, loaded[0].update)
    return loaded


def _identity(network: nn.Module, data: TrainingData, targets: Targets, config: TrainerConfig, seed: int) -> str:
    """Digest of what decides the result: settings, seed, first weights, which frames, and the kind of targets."""
    digest = hashlib.sha256()
    settings = {key: value for key, value in asdict(config).items()
                if key not in NOT_IDENTITY and (key, value) != ("accumulate", 1)}  # what came later changes no identity
    digest.update(json.dumps([settings, seed, type(targets).__name__, data.num_frames, data.num_pdfs,
                              data.left, data.right], sort_keys=True).encode())
    arrays = [data.train, data.heldout, *network.state_dict().values()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array.detach().cpu().numpy()).data)
    return digest.hexdigest()
