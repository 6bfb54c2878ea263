"""Losses over rows of logits that write their own gradient, a cache-sized block of rows at a time.

Autograd over log_softmax keeps several float32 copies of (batch, pdfs); here each block is read in the network's
precision, computed in float32 (float64 where the logits are) and left behind as its gradient: two passes over memory.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

# On a CPU a block of float32 logits should stay in a core's second-level cache (2^18 numbers = 1 MiB).
CPU_BLOCK_NUMBERS = 1 << 18


class RowLoss(Protocol):
    """Sum of losses over rows and its gradient: logits (rows, pdfs) float32 -> loss (), gradient (rows, pdfs).

    May overwrite `logits`. `rows` says which rows of the batch these are.
    """

    def __call__(self, logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]: ...


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, loss: RowLoss, block: int) -> torch.Tensor:
        precise = torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros((), dtype=precise, device=logits.device)
        gradient = torch.empty_like(logits)
        share = 1 / len(logits)
        for begin in range(0, len(logits), block):
            rows = slice(begin, min(begin + block, len(logits)))
            value, slope = loss(logits[rows].to(precise, copy=True), rows)
            total += value
            gradient[rows] = slope.mul_(share)
        ctx.save_for_backward(gradient)
        return total * share

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        if upstream.device.type == "cpu" and upstream == 1:  # a look that would stall a GPU, and saves a pass here
            return gradient, None, None
        return gradient * upstream, None, None  # upstream is a scalar: the gradient keeps its type


def mean_over_rows(logits: torch.Tensor, loss: RowLoss, block: int = 0) -> torch.Tensor:
    """Mean of `loss` over the rows of logits (batch, pdfs), `block` rows at a time (0: chosen for the device)."""
    if not block:
        block = max(32, CPU_BLOCK_NUMBERS // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    return _MeanOverRows.apply(logits, loss, block)


def softmax(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of logits (rows, pdfs), and log of the normaliser (rows, 1)."""
    probabilities = torch.softmax(logits, 1)  # one pass in cache: half the time of its steps one by one
    return probabilities, logits.amax(1, keepdim=True).sub_(probabilities.amax(1, keepdim=True).log_())


def cross_entropy_rows(pdf_ids: torch.Tensor) -> RowLoss:
    """-log softmax(logits)[pdf] in nats; pdf_ids int64 (batch,)."""
    def loss(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        values, gradient = cross_entropy(logits, pdf_ids[rows])
        return values.sum(), gradient
    return loss


def cross_entropy(logits: torch.Tensor, pdf_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-log softmax(logits)[pdf] of each row, (rows,), and its gradient (rows, pdfs)."""
    at = pdf_ids.unsqueeze(1)
    score = logits.gather(1, at)
    gradient, normaliser = softmax(logits)
    gradient.scatter_add_(1, at, gradient.new_full((), -1.0).expand(at.shape))
    return (normaliser - score).squeeze(1), gradient
