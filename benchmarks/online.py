"""The same student on targets asked of the teachers as it learns, on stored ones of each form, and on hard ones.

    python benchmarks/online.py --exp exp/mini_librispeech [--frames 60000] [--updates 80] [--seeds 1 2] [--device cpu]

A small student on a part of the experiment's frames; seeds, batches and updates are alike: what differs is the targets.
Printed: frame accuracy and cross-entropy on held-out utterances after the last update, and the run's own seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from distill_worlds import PartOfStore, finished  # the script beside this one

from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.acoustic.trainer import train
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.online import OnlineTargets
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.targets import SoftTargets
from asr_distill.features.cmvn import Cmvn
from asr_distill.hmm.align import Alignment


def part_of_alignment(exp: Path, part: PartOfStore) -> Alignment:
    """The senones of the chosen utterances' frames."""
    (folder,) = exp.glob(f"[0-9][0-9]_align/{part.directory.name}")
    whole, offsets = Alignment.load(folder), part.whole.offsets
    rows = np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in part.chosen])
    return Alignment(whole.pdf_ids[rows], whole.phone_ids[rows], whole.states[rows], whole.aligned[part.chosen],
                     whole.num_pdfs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", type=Path, required=True, help="a finished experiment: teachers, frames, alignment")
    for name, default in (("frames", 60_000), ("updates", 80), ("layers", 2), ("width", 256), ("batch", 2048),
                          ("chunk", 30), ("pilot", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    world = finished(options.exp, options.frames, device)
    part = world.store
    assert isinstance(part, PartOfStore)
    shape = NetworkConfig(layers=options.layers, width=options.width, left=10, right=5)
    trainer = TrainerConfig(batch=options.batch, chunk=options.chunk, max_updates=options.updates, warmup_updates=10,
                            learning_rate=2e-3, evaluate_updates=options.updates, tensorboard=False)
    data = TrainingData.build(part, part_of_alignment(options.exp, part), Cmvn("online", part.whole.total_stats),
                              DataConfig(heldout_fraction=0.15), device, choose_precision("auto", device).dtype,
                              left=shape.left, right=shape.right)
    loss = DistillConfig(hard_weight=0.5)
    base = SoftTargetConfig(temperature=options.temperature, precision="auto", pilot_frames=options.pilot)
    print(f"{world.about}; {len(data.train)} trained on, {len(data.heldout)} held out")

    def targets(work: Path) -> Iterator[tuple[str, Targets]]:
        yield "hard", HardTargets(data.pdf_ids)
        yield "online", OnlineTargets(world.ensemble, part, base, loss, data.pdf_ids, device)
        for name, config in (("compact 64", replace(base, form="compact", max_error=1e-9)),
                             ("top 64", replace(base, top_k=64)), ("dense", replace(base, form="dense"))):
            write_soft_targets(world.ensemble, part, work / name, config, device)
            yield name, SoftTargets.open(work / name, loss, data.pdf_ids)

    with tempfile.TemporaryDirectory() as folder:
        for name, target in targets(Path(folder)):
            for seed in options.seeds:
                start = time.process_time()
                network = build_network(shape, data.num_coefficients, data.num_pdfs, seed=seed)
                result = train(network, data, target, trainer, seed=seed, work=Path(folder) / f"{name} {seed}",
                               device=device)
                print(f"{name:12} seed {seed}: {100 * result.accuracy:6.2f} %  {result.cross_entropy:7.4f} nats"
                      f"  {time.process_time() - start:6.1f} s of this process")


if __name__ == "__main__":
    main()
