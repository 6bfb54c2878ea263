"""Several processes that train one network beside one process with all cores: `trainer.py --processes N` calls this.

Both work on the same batches; they take turns, so that other work on the machine disturbs both. A row is the best and
the median update of all turns. Run as a program it is one of the processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from trainer import COEFFICIENTS, SHAPES, random_data, update_times

from asr_distill.acoustic.checkpoint import TrainerState
from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import SharedTraining
from asr_distill.executor import available_cpus
from asr_distill.files import read_json, write_json
from asr_distill.parallel.crew import Crew, joined

TURNS = 2


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and return a row for each network and number of processes."""
    rows = []
    names = [f"feed_forward {width}" for width in options.widths] + list(options.kinds)
    for name in names:
        times: dict[int, list[float]] = {1: [], options.processes: []}
        facts: dict[int, dict[str, Any]] = {}
        for _ in range(TURNS):
            for processes in times:
                facts[processes] = one_turn(name, processes, options)
                times[processes] += facts[processes]["times"]
        for processes, all_times in times.items():
            frames, threads = facts[processes]["frames"], facts[processes]["threads"]
            best, median = min(all_times), sorted(all_times)[len(all_times) // 2]
            rows.append({"network": name, "parameters": facts[processes]["parameters"], "processes": processes,
                         "threads_each": threads, "precision": facts[processes]["precision"],
                         "frames_per_second": round(frames / best),
                         "frames_per_second_median": round(frames / median)})
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def one_turn(name: str, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    launch = "import sys; from asr_distill.parallel.launch import launch; sys.exit(launch(sys.argv[2:], " \
             "int(sys.argv[1])))"
    with tempfile.TemporaryDirectory() as folder:
        job = {"name": name, "layers": options.layers, "pdfs": options.pdfs, "batch": options.batch,
               "updates": options.updates, "optimizer": options.optimizer, "precision": options.precision,
               "device": options.device}
        command = [sys.executable, "-c", launch, str(processes), str(Path(__file__).resolve()), folder, json.dumps(job)]
        if processes == 1:
            command = [sys.executable, *command[4:]]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return read_json(Path(folder) / "turn.json")


def member(crew: Crew, folder: Path, job: dict[str, Any]) -> None:
    """Rank 0 of a turn: measures, and leaves turn.json."""
    device = crew.device(torch.device(job["device"]))
    if job["name"] in SHAPES:
        shape, chunk = SHAPES[job["name"]]
    else:
        shape, chunk = NetworkConfig(layers=job["layers"], width=int(job["name"].split()[1])), 1
    precision = choose_precision(job["precision"], device)
    data = random_data(max(50_000, 8 * job["batch"]), job["pdfs"], device, precision.dtype)
    network = build_network(shape, COEFFICIENTS, job["pdfs"]).to(device)
    config = TrainerConfig(batch=job["batch"], chunk=chunk, max_updates=job["updates"], tensorboard=False,
                           optimizer=job["optimizer"])
    shared = SharedTraining(network, data, HardTargets(data.pdf_ids), config, TrainerState(precision=precision.name),
                            None, 0, "benchmark")
    with crew.call(lambda: shared, folder, device) as peers:
        threads = torch.get_num_threads()
        run = shared.start(peers, "", folder, device)
        times = update_times(run, job["updates"], device, time.perf_counter)
    write_json(folder / "turn.json", {"times": times[1:], "frames": run.sampler.frames, "threads": threads,
                                      "precision": precision.name, "parameters": num_parameters(network)})


def main() -> int:
    torch.set_num_threads(available_cpus())
    with joined() as crew:
        if crew.rank:
            return crew.serve()
        member(crew, Path(sys.argv[1]), json.loads(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
