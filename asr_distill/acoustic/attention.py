"""Self-attention over a few steps before and after (time-restricted, Povey et al. 2018), between time-delay layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.acoustic.base import Float32Norm
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.dropout import SequenceDropout
from asr_distill.acoustic.grid import GridNetwork, Piece, SplicedFront
from asr_distill.acoustic.spliced import SplicedLinear
from asr_distill.acoustic.tdnn import TdnnBlock


class AttentionNetwork(GridNetwork):
    """config.layers blocks: restricted self-attention, then a time-delay layer, each added to its input."""

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int):
        super().__init__(config, num_coefficients, num_pdfs, SplicedFront(config, num_coefficients),
                         [AttentionBlock(config, offsets) for offsets in config.layer_offsets()])


class AttentionBlock(Piece):
    """Steps exchange what they heard (attention), then each is worked on with its neighbours (time-delay layer)."""

    def __init__(self, config: NetworkConfig, offsets: Sequence[int]):
        super().__init__()
        self.attention = RestrictedAttention(config)
        self.layer = TdnnBlock(config, offsets)
        self.left = self.attention.left + self.layer.left
        self.right = self.attention.right + self.layer.right

    def reset(self, generator: torch.Generator) -> None:
        self.attention.reset(generator)
        self.layer.reset(generator)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (steps, batch, width) -> (steps - left - right, batch, width)."""
        return self.layer(self.attention(hidden))


class RestrictedAttention(Piece):
    """x + W concat over heads of softmax(q'k / sqrt(d) + bias[distance]) v, over config.reach steps on each side.

    The bias is learnt for each head and distance: all that tells the head where a step is.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.left = self.right = config.reach
        self.heads, width = config.heads, config.width
        self.norm = Float32Norm(config.norm, width) if config.norm != "none" else nn.Identity()
        self.inputs = SplicedLinear(width, 3 * width, (0,))
        self.outputs = SplicedLinear(width, width, (0,))
        self.bias = nn.Parameter(torch.empty(self.heads, self.left + 1 + self.right))
        self.dropout = SequenceDropout(config.dropout)

    def reset(self, generator: torch.Generator) -> None:
        self.inputs.reset(generator, gain=1.0)
        self.outputs.reset(generator, gain=0.1)  # a block starts near the identity
        nn.init.zeros_(self.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (steps, batch, width) -> (steps - left - right, batch, width)."""
        keys, batch, width = hidden.shape
        queries = keys - self.left - self.right
        query, key, value = (
            part.reshape(keys, batch * self.heads, -1).transpose(0, 1)  # (batch * heads, keys, width / heads)
            for part in self.inputs(self.norm(hidden)).split(width, 2))
        query = query[:, self.left:keys - self.right] / math.sqrt(width / self.heads)
        scores = torch.bmm(query, key.transpose(1, 2)).view(batch, self.heads, queries, keys)
        weights = (scores + self._band(queries, keys)).softmax(3)
        mixed = torch.bmm(weights.flatten(0, 1), value)  # (batch * heads, queries, width / heads)
        mixed = mixed.transpose(0, 1).reshape(queries, batch, width)
        return hidden[self.left:keys - self.right] + self.dropout(self.outputs(mixed))

    def _band(self, queries: int, keys: int) -> torch.Tensor:
        """(heads, queries, keys): the bias of each distance, -inf beyond the reach."""
        distance = torch.arange(keys, device=self.bias.device) - torch.arange(
            queries, device=self.bias.device).unsqueeze(1)  # 0 for the farthest step back
        far = (distance < 0) | (distance > self.left + self.right)
        return self.bias[:, distance.clamp(0, self.left + self.right)].masked_fill(far, -math.inf)
