"""Trainings that the tests do with one process and with several; run as a program: one process of a crew.

    python parallel_cases.py FOLDER CASE [CASE ...] [--slow SECONDS] [--updates N]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "acoustic")]

from acoustic_kinds import KINDS  # noqa: E402
from acoustic_stand_ins import synthetic  # noqa: E402

from asr_distill.acoustic.config import AugmentConfig, DataConfig, NetworkConfig, TrainerConfig  # noqa: E402
from asr_distill.acoustic.data import TrainingData  # noqa: E402
from asr_distill.acoustic.ensemble import Ensemble  # noqa: E402
from asr_distill.acoustic.model import AcousticModel, log_priors_of  # noqa: E402
from asr_distill.acoustic.network import build_network  # noqa: E402
from asr_distill.acoustic.targets import HardTargets, Targets  # noqa: E402
from asr_distill.acoustic.trainer import TrainResult, train  # noqa: E402
from asr_distill.command import guarded  # noqa: E402
from asr_distill.distill.config import DistillConfig, SoftTargetConfig  # noqa: E402
from asr_distill.distill.online import OnlineTargets  # noqa: E402
from asr_distill.distill.soft_writer import write_soft_targets  # noqa: E402
from asr_distill.distill.targets import SoftTargets  # noqa: E402
from asr_distill.parallel.crew import joined  # noqa: E402

CPU = torch.device("cpu")
CONFIG = TrainerConfig(batch=120, max_updates=200, evaluate_updates=20, warmup_updates=5, learning_rate=3e-3,
                       precision="float32", tensorboard=False)


@dataclass(frozen=True)
class Case:
    network: NetworkConfig
    trainer: TrainerConfig = CONFIG
    targets: str = "hard"


CASES = {
    "frames": Case(replace(KINDS["feed_forward"], dropout=0.2, input_dropout=0.1, norm="layer"),
                   replace(CONFIG, optimizer="sgd", learning_rate=3e-2, schedule="newbob")),
    "chunks": Case(replace(KINDS["tdnn_f"], dropout=0.1), replace(
        CONFIG, chunk=12, max_updates=100, average=32,
        augment=AugmentConfig(time_masks=1, time_width=3, mel_masks=1, mel_width=2))),
    "stored": Case(KINDS["conv_tdnn"], replace(CONFIG, chunk=12, max_updates=40), targets="stored"),
    "online": Case(KINDS["tdnn_plain"], replace(CONFIG, chunk=10, accumulate=2, max_updates=40), targets="online"),
}


def train_case(name: str, folder: Path, updates: int = 0, **changes: int) -> TrainResult:
    """One of CASES, in folder/NAME; `updates`: so many in place of its own, and a checkpoint after every fifth."""
    case = CASES[name]
    config = replace(case.trainer, checkpoint_updates=5, **changes)
    if updates:
        config = replace(config, max_updates=updates)
    network = build_network(case.network, 6, 8, seed=3)
    store, alignment, cmvn = synthetic(utterances=16)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=network.left,
                              right=network.right)
    targets: Targets = HardTargets(data.pdf_ids)
    if case.targets != "hard":
        teachers = [AcousticModel(build_network(KINDS["tdnn_stride"], 6, 8, seed=seed).eval(), cmvn,
                                  log_priors_of(data.pdf_frequencies()), KINDS["tdnn_stride"]) for seed in (4, 5)]
        settings, loss = SoftTargetConfig(temperature=2.0), DistillConfig(hard_weight=0.3)
        if case.targets == "online":
            targets = OnlineTargets(Ensemble(teachers), store, replace(settings, precision="float32"), loss,
                                    data.pdf_ids, CPU)
        else:
            write_soft_targets(Ensemble(teachers), store, folder / "soft", settings, CPU)
            targets = SoftTargets.open(folder / "soft", loss, data.pdf_ids)
    return train(network, data, targets, config, seed=1, work=folder / name, device=CPU, label=name)


def slow_down(seconds: float) -> None:
    plain = HardTargets.loss

    def loss(self: HardTargets, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds)
        return plain(self, logits, frames)
    HardTargets.loss = loss  # type: ignore[method-assign]


def main(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    if options.slow:
        slow_down(options.slow)
    with joined() as crew:
        if crew.rank:
            return crew.serve()
        for name in options.cases:
            train_case(name, options.folder, options.updates)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--updates", type=int, default=0)
    sys.exit(guarded(main, parser.parse_args()))
