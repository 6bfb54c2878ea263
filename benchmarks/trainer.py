"""How much of the machine's own matrix-product rate the trainer reaches, by width of the network.

    python benchmarks/trainer.py [--widths 256 512 1024 2048] [--batch 4096] [--device cpu] [--out FILE.json]

The rate of a product (rows, width) @ (width, width) in the trainer's own number format (rows 512, 1024 and the batch:
the best counts) is measured before and after every trainer run, in the same process; the trainer's is its arithmetic
(6 operations per weight and frame, 4 in the first layer, whose input needs no gradient) over the time of a whole
update: gathering, forward, loss, backward, clipping, optimizer. Best update against best product: other work on the
machine disturbs both.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.acoustic.checkpoint import TrainerState
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.dropout import Dropout
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.acoustic.precision import choose_precision, matmul_rate, synchronise
from asr_distill.acoustic.run import TrainingRun
from asr_distill.acoustic.targets import HardTargets
from asr_distill.files import write_json

COEFFICIENTS, LEFT, RIGHT = 40, 20, 5


def random_data(frames: int, pdfs: int, device: torch.device, dtype: torch.dtype) -> TrainingData:
    """Noise in one long utterance: speed does not depend on what is said."""
    rows = torch.randn(frames + LEFT + RIGHT, COEFFICIENTS, device=device).to(dtype)
    everything = torch.arange(frames)
    return TrainingData(rows, everything.to(device), torch.randint(0, pdfs, (frames,), device=device), everything,
                        everything[:0], LEFT, RIGHT, pdfs, device, np.array([0, frames]))


def operations(shape: NetworkConfig, pdfs: int) -> int:
    """Floating-point operations per frame of one update."""
    sizes = [COEFFICIENTS * (LEFT + 1 + RIGHT)] + [shape.width] * shape.layers + [pdfs]
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 4 * products[0] + 6 * sum(products[1:])


def update_times(run: TrainingRun, updates: int, device: torch.device, clock: Callable[[], float]) -> list[float]:
    """Seconds of each of `updates` whole updates."""
    times = []
    for _ in range(updates):
        start = clock()
        run.advance()
        synchronise(device)
        times.append(clock() - start)
    return times


def measure(shape: NetworkConfig, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    precision = choose_precision(options.precision, device)
    data = random_data(max(50_000, 4 * options.batch), options.pdfs, device, precision.dtype)
    network = build_network(shape, COEFFICIENTS, options.pdfs).to(device)
    config = TrainerConfig(batch=options.batch, max_updates=options.updates + 1, tensorboard=False,
                           optimizer=options.optimizer)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    shapes = sorted({512, 1024, options.batch})
    rates = [matmul_rate(device, precision.dtype, rows, shape.width, repeats=20, clock=clock) for rows in shapes]
    with tempfile.TemporaryDirectory() as work:
        run = TrainingRun(network, data, HardTargets(data.pdf_ids).to(device), config,
                          TrainerState(precision=precision.name), 0, "", Path(work), device, "benchmark")
        times = update_times(run, options.updates, device, clock)
    rates += [matmul_rate(device, precision.dtype, rows, shape.width, repeats=20, clock=clock) for rows in shapes]
    best, median = min(times), sorted(times)[len(times) // 2]
    reached = operations(shape, options.pdfs) * options.batch / best / 1e9
    return {"width": shape.width, "parameters": num_parameters(network), "precision": precision.name,
            "product_gflops": round(max(rates)), "trainer_gflops": round(reached),
            "share": round(reached / max(rates), 3), "frames_per_second": round(options.batch / best),
            "frames_per_second_median": round(options.batch / median), "update_ms": round(1e3 * best, 2)}


def dropout_row(rows: int, width: int, device: torch.device, dtype: torch.dtype) -> str:
    """One layer's mask: torch's and ours, in turns, milliseconds."""
    units = torch.randn(rows, width, device=device).to(dtype)
    best = {"torch": float("inf"), "ours": float("inf")}
    layers = {"torch": torch.nn.Dropout(0.2), "ours": Dropout(0.2)}
    for _ in range(20):
        for name, layer in layers.items():
            start = time.perf_counter()
            layer(units)
            synchronise(device)
            best[name] = min(best[name], time.perf_counter() - start)
    return (f"dropout of {rows} x {width}: torch {1e3 * best['torch']:.2f} ms, ours {1e3 * best['ours']:.2f} ms, "
            f"ratio {best['torch'] / best['ours']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pdfs", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--updates", type=int, default=15)
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw")
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: this process's own time, for one thread on a machine that others use too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{device}, {torch.get_num_threads()} threads, {options.layers} layers, {options.pdfs} pdfs, "
          f"batch {options.batch}, {options.optimizer}")
    rows = []
    for width in options.widths:
        rows.append(measure(NetworkConfig(layers=options.layers, width=width), options, device))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(dropout_row(options.batch, 1024, device, choose_precision(options.precision, device).dtype))
    if options.out:
        write_json(options.out, {"device": str(device), "threads": torch.get_num_threads(), "layers": options.layers,
                                 "pdfs": options.pdfs, "batch": options.batch, "rows": rows})


if __name__ == "__main__":
    main()
