"""Which number format trains faster on this device: measured, not guessed from its name."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from asr_distill.acoustic.config import PrecisionName, TrainerConfig
from asr_distill.files import read_json, write_json

Clock = Callable[[], float]

RECORD = "precision.json"  # of a folder of trainings: the format that they have in common
ROUNDS, PAUSE = 8, 0.05  # looks at every format, and seconds between two: longer than other work's turn on a core

log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class Precision:
    """The chosen training format and the rates that decided it (GFLOP/s of a product; empty where set by hand)."""

    dtype: torch.dtype
    rates: dict[str, float]

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """`auto` takes the faster of bfloat16 and float32 in a product of 1024 rows by 1024 x 1024 on `device`."""
    if name != "auto":
        return Precision({"bfloat16": torch.bfloat16, "float32": torch.float32}[name], {})
    return _fastest(str(device))


def settled(trainer: TrainerConfig, device: torch.device, folder: Path) -> TrainerConfig:
    """The same settings with a format in place of `auto`: what the trainings of `folder` began with, else the faster.

    It is noted there: frames are held in it before a checkpoint is looked at, and another measurement, of another
    day or beside other work, might choose differently. Raises UserError where the note is damaged.
    """
    if trainer.precision != "auto":
        return trainer
    record = folder / RECORD
    if not record.is_file():
        write_json(record, {"precision": choose_precision("auto", device).name})
    return replace(trainer, precision=read_json(record)["precision"])


@lru_cache
def _fastest(device: str) -> Precision:
    """Rounds of both formats in turn, the best of each: other work on the cores can slow some looks, not all."""
    rates = {"float32": 0.0, "bfloat16": 0.0}
    for _ in range(ROUNDS):
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            rates[name] = max(rates[name], matmul_rate(torch.device(device), dtype, 1024, 1024, repeats=3))
        time.sleep(PAUSE)
    # float32 is more exact: bfloat16 must be clearly faster, not within the noise of the measurement
    dtype = torch.bfloat16 if rates["bfloat16"] > 1.2 * rates["float32"] else torch.float32
    log.info("networks train in %s: a product goes at %.0f GFLOP/s in bfloat16, %.0f in float32",
             str(dtype).removeprefix("torch."), rates["bfloat16"], rates["float32"])
    return Precision(dtype, rates)


def matmul_rate(device: torch.device, dtype: torch.dtype, rows: int, width: int, *, repeats: int = 10,
                clock: Clock = time.perf_counter) -> float:
    """GFLOP/s of (rows, width) @ (width, width), the best of `repeats`."""
    left = torch.randn(rows, width, device=device).to(dtype)
    right = torch.randn(width, width, device=device).to(dtype)
    seconds = best_seconds(lambda: torch.mm(left, right), device, repeats, clock)
    return 2 * rows * width * width / seconds / 1e9


def best_seconds(function: Callable[[], object], device: torch.device, repeats: int,
                 clock: Clock = time.perf_counter) -> float:
    """Least time of one call, after one call to warm up: what the device can do when nobody disturbs it."""
    function()
    best = float("inf")
    for _ in range(repeats):
        synchronise(device)
        start = clock()
        function()
        synchronise(device)
        best = min(best, clock() - start)
    return best


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
