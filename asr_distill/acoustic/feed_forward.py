"""The paper's network: spliced log-mel frames, L hidden layers of W ReLU units, one logit per senone."""

from __future__ import annotations

import math

import torch
from torch import nn

from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.dropout import Dropout

# Frames of one utterance that are spliced at once: bounds the memory of hour-long recordings.
UTTERANCE_BLOCK = 8192


class FeedForward(nn.Module):
    """Hinton, Vinyals, Dean 2015, section 4. Normalised frames in, logits (not normalised) out."""

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int):
        super().__init__()
        self.left, self.right = config.left, config.right
        self.num_coefficients, self.num_pdfs = num_coefficients, num_pdfs
        size = (config.left + 1 + config.right) * num_coefficients
        layers: list[nn.Module] = []
        for _ in range(config.layers):
            layers.append(nn.Linear(size, config.width))
            if config.norm != "none":
                layers.append(Float32Norm(config.norm, config.width))
            layers.append(nn.ReLU(inplace=True))
            if config.dropout:
                layers.append(Dropout(config.dropout))
            size = config.width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(size, num_pdfs)

    def reset(self, generator: torch.Generator) -> None:
        """He initialisation (variance kept through ReLU); a small output layer, so that training starts at log S."""
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_features), generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.output.weight, std=0.1 / math.sqrt(self.output.in_features), generator=generator)
        nn.init.zeros_(self.output.bias)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """windows (batch, left + 1 + right, coefficients) -> logits (batch, pdfs)."""
        return self.output(self.hidden(windows.flatten(1)))

    def forward_utterance(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (T, coefficients) -> logits (T, pdfs); the first and last frame are repeated at the edges."""
        padded = torch.cat([frames[:1].expand(self.left, -1), frames, frames[-1:].expand(self.right, -1)])
        windows = padded.unfold(0, self.left + 1 + self.right, 1).transpose(1, 2)  # a view (T, window, coefficients)
        return torch.cat([self(block) for block in windows.split(UTTERANCE_BLOCK)])


class Float32Norm(nn.Module):
    """Batch or layer normalisation whose parameters and running statistics stay float32 in a bfloat16 network.

    A running mean in bfloat16 would stop moving: a step of a tenth is below its resolution.
    """

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (batch, width) -> the same shape and dtype."""
        return self.norm(hidden.float()).to(hidden.dtype)
