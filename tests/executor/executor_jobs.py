"""Jobs that tests send to workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.executor import named


def build(offset: int, notes: str) -> int:
    """A context; leaves a note that it was made in this process."""
    with open(Path(notes) / str(os.getpid()), "a", encoding="utf-8") as file:
        file.write("x")
    return offset


def shifted_square(offset: int, value: int) -> int:
    return value * value + offset


def square(value: int) -> int:
    if value < 0:
        raise UserError(f"job {value}: negative")
    return value * value


def divide_all(values: list[int]) -> list[float]:
    results = []
    for value in values:
        with named(f"utterance {value}"):
            results.append(1 / value)
    return results


def slow_square(value: int) -> tuple[int, int]:
    time.sleep(0.2)
    return value * value, os.getpid()


def die_at_three(value: int) -> int:
    time.sleep(0.05)
    if value == 3:
        os._exit(9)
    return value


def folder_and_threads(_: int) -> tuple[str, int]:
    import torch
    return os.getcwd(), torch.get_num_threads()


def card(_: int) -> tuple[int, str]:
    time.sleep(0.2)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
