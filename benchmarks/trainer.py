"""How much of the machine's own matrix-product rate the trainer reaches, by width or by kind of network.

    python benchmarks/trainer.py [--widths 256 512 1024 2048] [--kinds tdnn conv_tdnn attention] [--batch 4096]
                                 [--device cpu] [--processes N] [--out FILE.json]

Feed-forward networks of the given widths, then one network of each kind at the size proposed for a teacher (SHAPES), on
chunks. The rate of a product (rows, width) @ (width, width) in the trainer's own number format (rows 512, 1024 and the
batch: the best counts) is measured before and after every trainer run, in the same process; the trainer's is its
arithmetic (2 operations a weight forward, 4 backward; 2 in the first layer, whose input needs no gradient) over the
time of a whole update: gathering, forward, loss, backward, clipping, optimizer. Best update against best product:
other work on the machine disturbs both. What is computed for a chunk's context alone counts as no work.

--processes N: frames/s of N processes that train together beside one process with all cores, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.acoustic.base import Network
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


# Teachers of five to eight million weights, and the chunks that suit them.
TDNN = NetworkConfig(kind="tdnn", layers=6, width=512, stride=3, norm="batch", dropout=0.1, skip=0.66)
SHAPES = {
    "tdnn": (TDNN, 150),
    "tdnn_wide": (replace(TDNN, width=640), 150),
    "tdnn_10ms": (replace(TDNN, stride=1, splices=((-1, 0, 1),) * 2 + ((-3, 0, 3),) * 4), 150),
    "tdnn_f": (replace(TDNN, layers=9, width=1024, bottleneck=128), 150),
    "conv_tdnn": (replace(TDNN, kind="conv_tdnn", layers=5), 150),
    "attention": (replace(TDNN, kind="attention", layers=3, reach=5, skip=1.0), 240),
}


def random_data(frames: int, pdfs: int, device: torch.device, dtype: torch.dtype) -> TrainingData:
    """Noise in utterances of 10 seconds: speed does not depend on what is said."""
    count, length = frames // 1000, 1000
    everything = torch.arange(count * length)
    begins = everything + torch.arange(count).repeat_interleave(length) * (LEFT + RIGHT)
    rows = torch.randn(len(everything) + count * (LEFT + RIGHT), COEFFICIENTS, device=device).to(dtype)
    return TrainingData(rows, begins.to(device), torch.randint(0, pdfs, (len(everything),), device=device), everything,
                        everything[:0], LEFT, RIGHT, pdfs, device, np.arange(0, len(everything) + 1, length))


def operations(network: Network, shape: NetworkConfig) -> float:
    """Floating-point operations per frame of one update: every weight is used once a frame, or once a stride."""
    products = {name: float(weight.numel()) for name, weight in network.named_parameters() if weight.ndim > 1}
    if network.stride > 1:  # the output layer alone works on every frame
        products = {name: count if name.startswith("output.") else count / network.stride
                    for name, count in products.items()}
    if shape.kind == "conv_tdnn":  # a kernel is used at every mel
        mels = network.num_coefficients
        for number in range(len(shape.channels)):
            mels = mels if number == 0 else -(-mels // 2)
            products[f"front.convolutions.{number}.weight"] *= mels
    first = next(iter(products.values()))
    return 6 * sum(products.values()) - 2 * first


def update_times(run: TrainingRun, updates: int, device: torch.device, clock: Callable[[], float]) -> list[float]:
    """Seconds of each of `updates` whole updates."""
    times = []
    for _ in range(updates):
        start = clock()
        run.advance()
        synchronise(device)
        times.append(clock() - start)
    return times


def measure(shape: NetworkConfig, options: argparse.Namespace, device: torch.device, chunk: int = 1) -> dict[str, Any]:
    precision = choose_precision(options.precision, device)
    data = random_data(max(50_000, 4 * options.batch * (1 if chunk == 1 else 2)), options.pdfs, device, precision.dtype)
    network = build_network(shape, COEFFICIENTS, options.pdfs).to(device)
    config = TrainerConfig(batch=options.batch, chunk=chunk, max_updates=options.updates + 1, tensorboard=False,
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
    frames = run.sampler.frames
    reached = operations(network, shape) * frames / best / 1e9
    return {"kind": shape.kind, "layers": shape.layers, "width": shape.width, "stride": shape.stride,
            "context": [network.left, network.right], "parameters": num_parameters(network),
            "precision": precision.name, "product_gflops": round(max(rates)), "trainer_gflops": round(reached),
            "share": round(reached / max(rates), 3), "frames_per_second": round(frames / best),
            "frames_per_second_median": round(frames / median), "update_ms": round(1e3 * best, 2)}


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


def line(row: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in row.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[256, 512, 1024, 2048])
    parser.add_argument("--kinds", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pdfs", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--updates", type=int, default=15)
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw")
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: this process's own time, for one thread on a machine that others use too")
    parser.add_argument("--processes", type=int, default=1, help="N processes beside one, in place of the rest")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{device}, {torch.get_num_threads()} threads, {options.layers} layers, {options.pdfs} pdfs, "
          f"batch {options.batch}, {options.optimizer}")
    if options.processes > 1:
        from trainer_processes import compare
        rows = compare(options)
        if options.out:
            write_json(options.out, {"device": str(device), "batch": options.batch, "rows": rows})
        return
    rows = []
    for width in options.widths:
        rows.append(measure(NetworkConfig(layers=options.layers, width=width), options, device))
        print(line(rows[-1]), flush=True)
    for name in options.kinds:
        shape, chunk = SHAPES[name]
        rows.append(measure(shape, options, device, chunk) | {"name": name, "chunk": chunk})
        print(line(rows[-1]), flush=True)
    print(dropout_row(options.batch, 1024, device, choose_precision(options.precision, device).dtype))
    if options.out:
        write_json(options.out, {"device": str(device), "threads": torch.get_num_threads(), "layers": options.layers,
                                 "pdfs": options.pdfs, "batch": options.batch, "rows": rows})


if __name__ == "__main__":
    main()
