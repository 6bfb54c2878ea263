"""Soft targets: bytes and error of each form against dense float16, rates, the price in training, memory by hours.

    python benchmarks/distill.py [--exp exp/mini_librispeech --frames 100000 --pilot 40000] [--temperatures 1 2 5]
                                 [--sizes 32 64 96] [--bytes 64] [--top-k 20 64] [--online --chunk 30]
                                 [--device cpu] [--out FILE]

With --exp the teachers are those of a finished experiment; else random networks stand in, whose errors mean little.
Error, twice: `nats` is the Kullback-Leibler divergence of what is stored from the teachers' mean posterior, on
utterances that the form was not fitted to; `loss` is by how much the soft loss (without T^2) of another network, the
experiment's baseline, is off, mean of the frames' absolute differences. Updates of the student are timed in turns: the
ratio is of the best of each. Teachers' own time is not part of the forms' writing rates; it stands beside them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill_worlds import PartOfStore, Recorded, World, finished, random_store, random_world
from trainer import random_data, update_times  # scripts beside this one

from asr_distill.acoustic.checkpoint import TrainerState
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.precision import choose_precision, synchronise
from asr_distill.acoustic.run import TrainingRun
from asr_distill.acoustic.targets import HardTargets, Targets
from asr_distill.distill.compact.codec import CodecSearch
from asr_distill.distill.compact.form import pilot_of
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.online import OnlineTargets
from asr_distill.distill.soft_writer import write_soft_targets
from asr_distill.distill.stored_targets import StoredTargets
from asr_distill.distill.targets import SoftTargets
from asr_distill.files import write_json

SOFT = DistillConfig(hard_weight=0.0)


def forms(options: argparse.Namespace, temperature: float) -> dict[str, SoftTargetConfig]:
    base = SoftTargetConfig(temperature=temperature, precision="auto", pilot_frames=options.pilot)
    return {"dense float16": replace(base, form="dense"),
            **{f"top {k}": replace(base, top_k=k) for k in options.top_k},
            f"compact {options.bytes}": replace(base, form="compact", max_error=1e-9, max_bytes=options.bytes)}


def measure_forms(world: World, options: argparse.Namespace, device: torch.device, work: Path) -> list[dict[str, Any]]:
    """A line for each form at each temperature."""
    lines = []
    for temperature in options.temperatures:
        start = time.perf_counter()
        recorded = Recorded(world.ensemble, world.store, temperature, f"{temperature}")
        synchronise(device)
        asking = world.store.num_frames / (time.perf_counter() - start)
        held_out = PartOfStore(world.store, world.store.num_frames // 8)
        for name, config in forms(options, temperature).items():
            folder = work / f"{temperature:g}_{name.replace(' ', '_')}"
            start = time.perf_counter()
            figures = write_soft_targets(recorded, world.store, folder, config, device)
            seconds = time.perf_counter() - start
            targets = SoftTargets.open(folder, SOFT, None).to(device)
            lines.append({
                "T": temperature, "form": name, "bytes": figures["bytes_per_frame"],
                "nats": figures.get("check_nats", figures["truncation_nats"]),
                "loss": loss_error(world, recorded, targets, held_out), "codes": figures.get("codes", 0),
                "write": figures["frames_per_second"], "fit_s": seconds - world.store.num_frames
                / figures["frames_per_second"], "read": read_rate(targets, world.store.num_frames, device),
                "asking": asking, "entropy": figures["entropy_nats"]})
    return lines


def measure_sizes(world: World, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Error of the compact form against its size, at each temperature."""
    lines: list[dict[str, Any]] = []
    for temperature in options.temperatures if options.sizes else ():
        def ask(index: int, temperature: float = temperature) -> torch.Tensor:
            return world.ensemble.log_posteriors(world.store.features(index, device), temperature)

        search = CodecSearch(*pilot_of(ask, world.store, options.pilot), max(options.sizes))
        for size in sorted(options.sizes):
            lines.append({"T": temperature, "bytes": size, "nats": search.nats(size), "codes": search.tried[size][0]})
    return lines


def loss_error(world: World, recorded: Recorded, targets: StoredTargets, part: PartOfStore) -> float:
    """Mean absolute error of a frame's soft loss at the other network, from whole posteriors and from stored ones."""
    total, frames = 0.0, 0
    for index, at in enumerate(part.chosen):
        utterance = part.features(index, recorded.device)
        logits = world.other.logits(utterance)  # (frames, pdfs)
        rows = torch.arange(len(logits)) + int(world.store.offsets[at])
        exact = recorded.log_posteriors(utterance).exp()
        wanted = -(exact * torch.log_softmax(logits / targets.temperature, 1)).sum(1)
        soft = targets.soft_loss(rows, logits.dtype)
        found = torch.stack([soft(logits[row:row + 1].clone(), slice(row, row + 1))[0] for row in range(len(logits))])
        total += float((found / targets.temperature**2 - wanted).abs().double().sum())
        frames += len(logits)
    return total / frames


def read_rate(targets: StoredTargets, frames: int, device: torch.device) -> float:
    """Frames a second, in batches of random rows, up to what the loss takes."""
    batches = torch.randperm(frames, device=device).split(4096)
    synchronise(device)
    start = time.perf_counter()
    for batch in batches:
        targets.soft_loss(batch, choose_precision("auto", device).dtype)
    synchronise(device)
    return frames / (time.perf_counter() - start)


def measure_updates(world: World, options: argparse.Namespace, device: torch.device, work: Path) -> dict[str, float]:
    """Milliseconds of an update of the student on hard targets and on each form, in turns; best of each."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    precision = choose_precision("auto", device)
    data = random_data(world.store.num_frames, world.ensemble.num_pdfs, device, precision.dtype)
    frames = len(data.begins)
    temperature = options.temperatures[len(options.temperatures) // 2]
    pdf_ids = data.pdf_ids.cpu()
    mixed = DistillConfig(hard_weight=0.5)
    targets: dict[str, Targets] = {"plain": HardTargets(pdf_ids)}
    for name in forms(options, temperature):
        rows = np.arange(frames) % world.store.num_frames
        targets[name] = SoftTargets.open(work / f"{temperature:g}_{name.replace(' ', '_')}", mixed, pdf_ids, rows=rows)
    if options.online:
        targets["online"] = OnlineTargets(world.ensemble, world.store, SoftTargetConfig(temperature, precision="auto"),
                                          mixed, pdf_ids, device, rows=np.arange(frames) % world.store.num_frames)
    shape = NetworkConfig(layers=options.layers, width=options.width)
    config = TrainerConfig(batch=options.batch, chunk=options.chunk, max_updates=10**6, epochs=1, tensorboard=False,
                           checkpoint_seconds=1e9, evaluate_updates=10**6)
    runs = {}
    for name, target in targets.items():
        network = build_network(shape, data.num_coefficients, data.num_pdfs).to(device)
        state = TrainerState(precision=precision.name)
        runs[name] = TrainingRun(network, data, target.to(device), config, state, 0, "", work / "run", device, name)
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(options.updates // 4 + 1):
        for name, run in runs.items():
            times = update_times(run, 4, device, clock)
            if turn:  # the first to warm up
                best[name] = min(best[name], *times)
    return {name: 1e3 * seconds for name, seconds in best.items()}


@contextmanager
def private_memory() -> Iterator[Callable[[], float]]:
    """Greatest memory of this process inside the block, in MiB, without what is but mapped from files (Linux)."""
    status, peak, done = Path("/proc/self/status"), [0.0], threading.Event()

    def look() -> None:
        text = status.read_text()
        peak[0] = max(peak[0], int(text.split("RssAnon:")[1].split()[0]) / 1024)

    def watch() -> None:
        while not done.wait(0.01):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: (look(), peak[0])[1]
    finally:
        done.set()
        thread.join()


def memory_of(hours: float, sharpness: float, folder: Path) -> dict[str, float]:
    """Greatest memory while compact targets of so much audio are written and read by row, through memory maps."""
    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    world = random_world(folder, 0, 300, 1, sharpness, cpu)
    config = SoftTargetConfig(form="compact", max_bytes=32, pilot_frames=2000, precision="auto")
    with private_memory() as peak:
        write_soft_targets(world.ensemble, world.store, folder / "soft", config, cpu)
        targets = SoftTargets.open(folder / "soft", SOFT, None)
        for batch in torch.randperm(world.store.num_frames).split(4096):
            targets.soft_loss(batch, torch.float32)
        return {"hours": hours, "MiB": peak()}


def measure_memory(options: argparse.Namespace, work: Path) -> list[dict[str, float]]:
    """Each in a process of its own; what it reads was made in another."""
    lines = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for hours in options.hours:
            folder = work / f"memory{hours:g}"
            pool.apply(random_store, (folder, int(hours * 360_000)))
            lines.append(pool.apply(memory_of, (hours, options.sharpness, folder)))
    return lines


def report(figures: dict[str, Any]) -> None:
    print(f"{figures['about']}, on {figures['device']}")
    dense = {line["T"]: line for line in figures["forms"] if line["form"].startswith("dense")}
    print(f"{'T':>4}  {'form':14} {'bytes':>6} {'of dense':>8} {'nats':>9} {'loss':>9} {'codes':>5}"
          f" {'write/s':>9} {'of asking':>9} {'fit s':>6} {'read/s':>11}")
    for line in figures["forms"]:
        print(f"{line['T']:4g}  {line['form']:14} {line['bytes']:6d} {line['bytes'] / dense[line['T']]['bytes']:8.4f}"
              f" {line['nats']:9.5f} {line['loss']:9.5f} {line['codes'] or '':>5} {line['write']:9.0f}"
              f" {line['asking'] / line['write']:9.3f} {line['fit_s']:6.1f} {line['read']:11.0f}")
    for line in figures["sizes"]:
        print(f"{line['T']:4g}  compact, {line['bytes']:4d} bytes: {line['codes']:4d} codes, {line['nats']:.5f} nats")
    if figures["updates"]:
        plain = figures["updates"]["plain"]
        for name, ms in figures["updates"].items():
            print(f"update on {name:16} {ms:8.2f} ms  {ms / plain:6.3f} x plain")
    for line in figures["memory"]:
        print(f"memory of a process that writes and reads targets of {line['hours']:g} h: {line['MiB']:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", type=Path, help="a finished experiment: its teachers, its frames, its baseline")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[2.0])
    parser.add_argument("--top-k", type=int, nargs="*", default=[64])
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 48, 64, 96], help="compact: bytes of the curve")
    for name, default in (("pdfs", 2000), ("teachers", 3), ("frames", 12_000), ("pilot", 8000), ("layers", 4),
                          ("width", 512), ("batch", 2048), ("chunk", 1), ("updates", 20), ("bytes", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sharpness", type=float, default=3.0)
    parser.add_argument("--hours", type=float, nargs="*", default=[0.1, 0.4, 1.6], help="of audio, for the memory")
    parser.add_argument("--online", action="store_true", help="time updates with the teachers asked too")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: this process's own time, for one thread on a machine that others use too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        world = finished(options.exp, options.frames, device) if options.exp else random_world(
            work / "store", options.frames, options.pdfs, options.teachers, options.sharpness, device)
        figures: dict[str, Any] = {"about": world.about, "device": str(device)}
        figures["forms"] = measure_forms(world, options, device, work)
        figures["sizes"] = measure_sizes(world, options, device)
        figures["updates"] = measure_updates(world, options, device, work) if options.updates else {}
        figures["memory"] = measure_memory(options, work)
    report(figures)
    if options.out:
        write_json(options.out, {"settings": {k: str(v) for k, v in vars(options).items()}, "figures": figures})


if __name__ == "__main__":
    main()
