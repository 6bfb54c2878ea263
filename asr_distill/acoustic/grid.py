"""Networks of a front, hidden blocks and a head, that work on a grid: every `stride`-th frame, `stride` frames each.

The hidden layers of a frame classifier change slowly in time: on a grid of 30 ms they cost a third. The head gives
each grid step's frames vectors of their own, so that logits still come at every frame (10 ms).
Hidden activations are time-major, (steps, batch, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm, Network
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.dropout import SequenceDropout
from asr_distill.acoustic.spliced import SplicedLinear


class Piece(nn.Module):
    """A part of the network that reads `left` and `right` more steps (a front: frames) than it gives."""

    left: int
    right: int

    def reset(self, generator: torch.Generator) -> None:
        raise NotImplementedError


class GridNetwork(Network):
    """front: windows (batch, frames, coefficients) -> (steps, batch, width); blocks keep (steps, batch, width).

    `right` is the exact look-ahead: a grid step's logits come with its last frame, so that its first waits for
    stride - 1 frames more than the front and the layers ask for.
    """

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int, front: Piece,
                 blocks: Sequence[Piece]):
        super().__init__()
        self.num_coefficients, self.num_pdfs, self.stride = num_coefficients, num_pdfs, config.stride
        self.left = front.left + self.stride * sum(block.left for block in blocks)
        self.right = front.right + self.stride * sum(block.right for block in blocks)
        self.front, self.blocks = front, nn.ModuleList(blocks)
        self.head = Affine(config.width, self.stride * config.final, (0,), config)
        self.output = nn.Linear(config.final, num_pdfs)

    def reset(self, generator: torch.Generator) -> None:
        """He initialisation; a small output layer, so that training starts at log S."""
        for piece in (self.front, *self.blocks, self.head):
            piece.reset(generator)  # type: ignore[operator]
        nn.init.normal_(self.output.weight, std=0.1 / math.sqrt(self.output.in_features), generator=generator)
        nn.init.zeros_(self.output.bias)

    def forward(self, windows: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """windows (batch, left + n + right, coefficients) -> logits (batch * n, pdfs), or those of `rows`."""
        batch, frames = len(windows), windows.shape[1] - self.left - self.right  # frames: n
        steps = -(-frames // self.stride)
        hidden = self.front(windows[:, :self.left + (steps - 1) * self.stride + 1 + self.right])
        for block in self.blocks:
            hidden = block(hidden)
        final = self.head(hidden).view(-1, self.output.in_features)  # (steps * batch * stride, final)
        if rows is None:
            rows = torch.arange(batch * frames, device=windows.device)
        sample, frame = rows // frames, rows % frames
        index = ((frame // self.stride) * batch + sample) * self.stride + frame % self.stride
        return self.output(final.index_select(0, index))


class SplicedFront(Piece):
    """A grid step's frames, config.front_left before and front_right after, spliced into one affine layer with ReLU."""

    def __init__(self, config: NetworkConfig, num_coefficients: int):
        super().__init__()
        self.left, self.right, self.stride = config.front_left, config.stride - 1 + config.front_right, config.stride
        self.affine = Affine((self.left + 1 + self.right) * num_coefficients, config.width, (0,), config)

    def reset(self, generator: torch.Generator) -> None:
        self.affine.reset(generator)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """windows (batch, frames, coefficients) -> (steps, batch, width)."""
        spliced = windows.unfold(1, self.left + 1 + self.right, self.stride)  # (batch, steps, coefficients, reach)
        return self.affine(spliced.permute(1, 0, 3, 2).flatten(2))


class Affine(Piece):
    """A spliced affine layer, normalisation, ReLU, dropout; `bottleneck` > 0: in two factors (TDNN-F)."""

    def __init__(self, inputs: int, outputs: int, offsets: Sequence[int], config: NetworkConfig, bottleneck: int = 0):
        super().__init__()
        biased = config.norm == "none"
        layers: list[nn.Module]
        if bottleneck:
            # the first factor looks back, the second ahead (Povey et al. 2018, section 3)
            first = SplicedLinear(inputs, bottleneck, [offset for offset in offsets if offset <= 0], bias=False)
            second = SplicedLinear(bottleneck, outputs, [offset for offset in offsets if offset >= 0], bias=biased)
            layers = [first, second]
        else:
            layers = [SplicedLinear(inputs, outputs, offsets, bias=biased)]
        self.left, self.right = max(0, -min(offsets)), max(0, *offsets)
        self.factored = bool(bottleneck)
        if config.norm != "none":
            layers.append(Float32Norm(config.norm, outputs))
        layers.append(nn.ReLU(inplace=True))
        if config.dropout:
            layers.append(SequenceDropout(config.dropout))
        self.layers = nn.Sequential(*layers)

    def reset(self, generator: torch.Generator) -> None:
        for layer in self.layers:
            if isinstance(layer, SplicedLinear):
                layer.reset(generator, gain=1.0 if self.factored and layer is self.layers[0] else 2.0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (steps, batch, inputs) -> (steps - left - right, batch, outputs)."""
        return self.layers(hidden)
