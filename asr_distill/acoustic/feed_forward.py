"""The paper's network: spliced log-mel frames, L hidden layers of W ReLU units, one logit per senone."""

from __future__ import annotations

import math

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm, Network
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.dropout import Dropout


class FeedForward(Network):
    """Hinton, Vinyals, Dean 2015, section 4. Normalised frames in, logits (not normalised) out."""

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int):
        super().__init__()
        self.left, self.right, self.stride = config.left, config.right, 1
        self.num_coefficients, self.num_pdfs = num_coefficients, num_pdfs
        self.input_dropout = Dropout(config.input_dropout)
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

    def forward(self, windows: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """windows (batch, left + n + right, coefficients) -> logits (batch * n, pdfs), or those of `rows`."""
        length = self.left + 1 + self.right
        if not torch.jit.is_tracing() and windows.shape[1] > length:  # an exported graph gets single frames
            # (batch, n, coefficients, length), a view
            windows = windows.unfold(1, length, 1).transpose(2, 3).flatten(0, 1)
        spliced = windows.flatten(1)  # (batch * n, length * coefficients)
        inputs = self.input_dropout(spliced if rows is None else spliced.index_select(0, rows))
        return self.output(self.hidden(inputs))
