"""An exponential average of the weights along a run: often better than the last ones, and steadier."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from asr_distill.acoustic.optimizer import MasterOptimizer

# Updates between two steps of the average: a step is a pass over all weights.
AVERAGE_UPDATES = 8


class WeightAverage:
    """Averages the float32 masters and the running statistics of `network` over about `updates` updates."""

    def __init__(self, network: nn.Module, optimizer: MasterOptimizer, updates: int):
        self.updates, self.optimizer = updates, optimizer
        self.buffers = {name: value for name, value in network.named_buffers() if value.is_floating_point()}
        self.sources = {f"average.{index}": flat.master.data for index, flat in enumerate(optimizer.groups)} | {
            f"average.{name}": value for name, value in self.buffers.items()}
        self.tensors = {name: value.clone() for name, value in self.sources.items()}

    def step(self, update: int) -> None:
        """After `update` updates; a plain mean of all weights so far until there were enough of them."""
        if update % AVERAGE_UPDATES == 0:
            rate = min(1.0, AVERAGE_UPDATES / min(update, self.updates))
            for name, source in self.sources.items():
                self.tensors[name].lerp_(source, rate)

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network (and its masters) have the averaged weights within."""
        current = {name: value.clone() for name, value in self.sources.items()}
        self._write(self.tensors)
        try:
            yield
        finally:
            self._write(current)

    @torch.no_grad()
    def _write(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, source in self.sources.items():
            source.copy_(tensors[name])
        for flat in self.optimizer.groups:
            flat.publish()
