"""Time-delay networks (Peddinti et al. 2015), plain or factorised (TDNN-F, Povey et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.grid import Affine, GridNetwork, Piece, SplicedFront


class Tdnn(GridNetwork):
    """config.layers spliced layers behind a spliced front, each over config.splices (in grid steps)."""

    def __init__(self, config: NetworkConfig, num_coefficients: int, num_pdfs: int):
        super().__init__(config, num_coefficients, num_pdfs, SplicedFront(config, num_coefficients),
                         tdnn_blocks(config))

    def semi_orthogonal(self) -> Sequence[nn.Parameter]:
        return first_factors(self.blocks)


class TdnnBlock(Piece):
    """One time-delay layer, and `skip` times its input at the same time."""

    def __init__(self, config: NetworkConfig, offsets: Sequence[int]):
        super().__init__()
        self.affine = Affine(config.width, config.width, offsets, config, config.bottleneck)
        self.left, self.right, self.skip = self.affine.left, self.affine.right, config.skip

    def reset(self, generator: torch.Generator) -> None:
        self.affine.reset(generator)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (steps, batch, width) -> (steps - left - right, batch, width)."""
        out = self.affine(hidden)
        if not self.skip:
            return out
        return torch.add(out, hidden[self.left:hidden.shape[0] - self.right], alpha=self.skip)


def tdnn_blocks(config: NetworkConfig) -> list[TdnnBlock]:
    return [TdnnBlock(config, offsets) for offsets in config.layer_offsets()]


def first_factors(blocks: nn.ModuleList) -> list[nn.Parameter]:
    """The first factor of every factorised layer."""
    return [block.affine.layers[0].weight for block in blocks if block.affine.factored]  # type: ignore[union-attr,index,misc]
