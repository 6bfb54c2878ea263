"""CPU threads for many small tensor operations: a thread for each batch pays, two inside one operation do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operations on one thread: on a busy machine, small ones wait for the second many times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> Iterator[Result]:
    """Results in order; on a CPU as many items at a time as PyTorch has threads, each on one thread of its own.

    PyTorch releases the interpreter's lock inside its operations. No gradients.
    """
    def run(item: Item) -> Result:
        with torch.no_grad():
            return function(item)

    if device.type != "cpu":
        yield from map(run, items)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(run, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' setting reaches parts of PyTorch that all threads share
