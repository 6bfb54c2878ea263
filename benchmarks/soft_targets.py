"""Soft-target store and distillation step: bytes, rates, what the cut to the top k costs, and the price in training.

    python benchmarks/soft_targets.py [--pdfs 2000] [--top-k 20] [--device cpu] [--out FILE.json]

Teachers are random networks over random frames whose logits are scaled until their posteriors are about as peaked as
trained ones' (entropy is printed). For real teachers the same figures stand in the soft-target stage's record.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trainer import update_times  # the script beside this one

from asr_distill.acoustic.checkpoint import TrainerState
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.precision import choose_precision, synchronise
from asr_distill.acoustic.run import TrainingRun
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.soft_store import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.features.cmvn import Cmvn, CmvnStats
from asr_distill.features.store import FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.files import write_array, write_json

COEFFICIENTS, LEFT, RIGHT, LENGTH = 40, 20, 5, 1200


def random_store(directory: Path, frames: int) -> FrameStore:
    """Smoothed noise in utterances of 12 s."""
    random = np.random.default_rng(0)
    utterances = max(1, frames // LENGTH)
    noise = random.normal(size=(utterances * LENGTH + 8, COEFFICIENTS))
    smooth = np.sum([noise[i:i + utterances * LENGTH] for i in range(8)], axis=0).astype(np.float16)
    write_array(directory / "frames.npy", smooth)
    stats = np.stack([pack_stats(CmvnStats.of(part)) for part in np.split(smooth, utterances)])
    write_store_index(directory, [Utterance(f"u{i}", "s", (), LENGTH / 100) for i in range(utterances)],
                      [LENGTH] * utterances, stats, {"config": {}})
    return FrameStore(directory)


def update_seconds(targets: Targets, data: TrainingData, options: argparse.Namespace, device: torch.device,
                   clock: Callable[[], float]) -> float:
    """Best time of one update of the student on these targets."""
    precision = choose_precision("auto", device)
    network = build_network(NetworkConfig(layers=options.layers, width=options.width), COEFFICIENTS, options.pdfs)
    config = TrainerConfig(batch=options.batch, max_updates=options.updates + 1, tensorboard=False)
    with tempfile.TemporaryDirectory() as work:
        run = TrainingRun(network.to(device), data, targets.to(device), config, TrainerState(precision=precision.name),
                          0, "", Path(work), device, "benchmark")
        times = update_times(run, options.updates, device, clock)
    return min(times)


def measure(options: argparse.Namespace, device: torch.device, work: Path) -> dict[str, Any]:
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    store = random_store(work / "store", options.frames)
    cmvn = Cmvn("global", store.total_stats)
    shape = NetworkConfig(layers=options.layers, width=options.width)
    teachers = []
    for seed in range(options.teachers):
        network = build_network(shape, COEFFICIENTS, options.pdfs, seed=seed).to(device).eval()
        with torch.no_grad():
            network.output.weight.mul_(options.sharpness)
        teachers.append(AcousticModel(network, cmvn, log_priors_of(torch.ones(options.pdfs)).to(device), shape))
    config = SoftTargetConfig(temperature=options.temperature, top_k=options.top_k, precision="auto")
    start = clock()
    figures = write_soft_targets(Ensemble(teachers), store, work / "soft", config, device)
    write_seconds = clock() - start
    pdf_ids = torch.randint(0, options.pdfs, (store.num_frames,))
    soft = SoftTargets.open(work / "soft", DistillConfig(), pdf_ids).to(device)
    batches = torch.randperm(store.num_frames, device=device).split(options.batch)
    start = clock()
    for batch in batches:
        soft.gather(batch)
    synchronise(device)
    read_seconds = clock() - start
    everything = torch.arange(store.num_frames)
    rows = torch.randn(store.num_frames + LEFT + RIGHT, COEFFICIENTS, device=device)
    data = TrainingData(rows.to(choose_precision("auto", device).dtype), everything.to(device), pdf_ids.to(device),
                        everything, everything[:0], LEFT, RIGHT, options.pdfs, device, np.array([0, store.num_frames]))
    plain = update_seconds(HardTargets(pdf_ids), data, options, device, clock)
    distilled = update_seconds(soft, data, options, device, clock)
    return {**figures, "write_frames_per_second": round(store.num_frames / write_seconds),
            "read_frames_per_second": round(store.num_frames / read_seconds),
            "plain_update_ms": round(1e3 * plain, 2), "distillation_update_ms": round(1e3 * distilled, 2),
            "distillation_over_plain": round(distilled / plain, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pdfs", 2000), ("top-k", 20), ("teachers", 3), ("frames", 36_000), ("layers", 4),
                          ("width", 512), ("batch", 4096), ("updates", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--sharpness", type=float, default=90.0)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: this process's own time, for one thread on a machine that others use too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        figures = measure(options, torch.device(options.device), Path(work))
    for key, value in figures.items():
        print(f"{key:28} {value}")
    if options.out:
        write_json(options.out, {"settings": {k: str(v) for k, v in vars(options).items()}, "figures": figures})


if __name__ == "__main__":
    main()
