"""What every network is: classifies n >= 1 contiguous frames of a window at once, and whole utterances in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.acoustic.global_norm import global_batch_norm
from asr_distill.parallel.peers import ALONE, Peers

# Frames of one utterance that are classified at once: bounds the memory of hour-long recordings.
UTTERANCE_BLOCK = 2048


class Network(nn.Module):
    """A frame classifier. A new kind derives from it, says its context and writes `reset` and `forward`.

    `stride`: the network works on groups of so many frames, counted from the first classified frame of a window. Where
    it is 1 a frame's logits do not depend on where its window begins.
    """

    left: int  # frames before the first classified one
    right: int  # frames after the last one
    stride: int
    num_coefficients: int
    num_pdfs: int
    output: nn.Linear  # the last layer, (pdfs, hidden)

    @property
    def device(self) -> torch.device:
        return self.output.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in; its input must have it (normalisation layers may be float32)."""
        return self.output.weight.dtype

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial weights from `generator`."""
        raise NotImplementedError

    def forward(self, windows: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """windows (batch, left + n + right, coefficients) -> logits (batch * n, pdfs), a window's frames side by side.

        rows int64 (k,): only these rows of the result, (k, pdfs); what the others alone need may be left out.
        """
        raise NotImplementedError

    def semi_orthogonal(self) -> Sequence[nn.Parameter]:
        """Parameters (offsets, out, in) that the trainer keeps semi-orthogonal."""
        return ()

    def forward_utterance(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (T, coefficients) -> logits (T, pdfs); the first and last frame are repeated at the edges."""
        padded = torch.cat([frames[:1].expand(self.left, -1), frames, frames[-1:].expand(self.right, -1)])
        block = max(1, UTTERANCE_BLOCK // self.stride) * self.stride
        margin = self.left + self.right
        return torch.cat([self(padded[begin:begin + block + margin].unsqueeze(0))
                          for begin in range(0, len(frames), block)])


class Float32Norm(nn.Module):
    """Batch or layer normalisation whose parameters and running statistics stay float32 in a bfloat16 network.

    A running mean in bfloat16 would stop moving: a step of a tenth is below its resolution. Batch normalisation reads
    and writes bfloat16 and computes in float32 inside; layer normalisation does so only on a copy. With `peers` batch
    statistics are over the rows of all of them.
    """

    peers: Peers = ALONE

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (..., width) -> the same shape and dtype; batch statistics are taken over all rows."""
        if isinstance(self.norm, nn.BatchNorm1d):
            if self.training and self.peers.size > 1:
                return global_batch_norm(hidden.flatten(0, -2), self.norm, self.peers).view(hidden.shape)
            return self.norm(hidden.flatten(0, -2)).view(hidden.shape)
        return self.norm(hidden.float()).to(hidden.dtype)
