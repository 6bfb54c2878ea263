"""A time-delay network behind 2-D convolutions over time and mel (the CNN-TDNN of Kaldi's recipes)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.grid import Affine, GridNetwork, Piece
from asr_distill.acoustic.tdnn import first_factors, tdnn_blocks


class ConvTdnn(GridNetwork):
    """ConvFront, then config.layers time-delay layers."""

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int):
        super().__init__(config, num_coefficients, num_pdfs, ConvFront(config, num_coefficients), tdnn_blocks(config))

    def semi_orthogonal(self) -> Sequence[nn.Parameter]:
        return first_factors(self.blocks)


class ConvFront(Piece):
    """Convolutions of 3 x 3: the first strides in time, the others halve the mel axis; then an affine layer.

    In time they are of the frames that exist (the window's edges shrink), in mel the edges are padded with zeros.
    """

    def __init__(self, config: NetworkConfig, num_coefficients: int):
        super().__init__()
        self.stride = config.stride
        reach = self.stride * (len(config.channels) - 1)
        self.left, self.right = 1 + reach, self.stride + reach
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        inputs, mels = 1, num_coefficients
        for number, channels in enumerate(config.channels):
            first = number == 0
            self.convolutions.append(nn.Conv2d(
                inputs, channels, (self.stride + 2 if first else 3, 3), (self.stride, 1) if first else (1, 2), (0, 1),
                bias=config.norm == "none"))
            self.norms.append(Float32Norm(config.norm, channels) if config.norm != "none" else nn.Identity())
            inputs, mels = channels, mels if first else -(-mels // 2)
        self.affine = Affine(inputs * mels, config.width, (0,), config)

    def reset(self, generator: torch.Generator) -> None:
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.affine.reset(generator)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """windows (batch, frames, mels) -> (steps, batch, width)."""
        image = windows.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (batch, 1, frames, mels)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            image = convolution(image)
            # normalised with the channels last, as they lie in memory: (batch, time, mels, channels)
            image = norm(image.permute(0, 2, 3, 1).contiguous()).relu_().permute(0, 3, 1, 2)
        return self.affine(image.permute(2, 0, 3, 1).flatten(2))  # (steps, batch, mels * channels)
