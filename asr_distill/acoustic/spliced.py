"""A time-delay layer: an affine map of frames at a few offsets, as a sum of products over shifted views.

Hidden activations are time-major, (time, batch, width): a shift in time is then a contiguous piece of memory, and the
layer, forward and backward, is nothing but products that add to one result: no copy of spliced frames is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class SplicedLinear(nn.Module):
    """y[t] = bias + sum over k of weight[k] x[t + offsets[k]], for the times where all of these exist."""

    def __init__(self, inputs: int, outputs: int, offsets: Sequence[int], *, bias: bool = True):
        super().__init__()
        self.left, self.right = -min(offsets), max(offsets)  # >= 0: offsets hold 0 or lie on both sides of it
        self.shifts = tuple(offset + self.left for offset in offsets)
        self.weight = nn.Parameter(torch.empty(len(offsets), outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def reset(self, generator: torch.Generator, gain: float = 2.0) -> None:
        """Normal weights of variance gain / fan-in (2: He, kept through ReLU)."""
        offsets, _, inputs = self.weight.shape
        nn.init.normal_(self.weight, std=math.sqrt(gain / (offsets * inputs)), generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (time, batch, inputs), contiguous -> (time - left - right, batch, outputs)."""
        return _SplicedProduct.apply(hidden, self.weight, self.bias, self.shifts)


class _SplicedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                shifts: tuple[int, ...]) -> torch.Tensor:
        time, batch, _ = hidden.shape
        rows = (time - max(shifts)) * batch
        flat = hidden.reshape(time * batch, -1)
        pieces = [flat[shift * batch:shift * batch + rows] for shift in shifts]  # each (rows, inputs), contiguous
        result = hidden.new_empty(time - max(shifts), batch, weight.shape[1])
        out = result.view(rows, -1)
        if bias is None:
            torch.mm(pieces[0], weight[0].t(), out=out)
        else:
            torch.addmm(bias, pieces[0], weight[0].t(), out=out)
        for piece, matrix in zip(pieces[1:], weight[1:], strict=True):
            out.addmm_(piece, matrix.t())
        ctx.save_for_backward(flat, weight)
        ctx.shifts, ctx.shape, ctx.biased = shifts, hidden.shape, bias is not None
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight = ctx.saved_tensors
        batch = ctx.shape[1]
        slope = gradient.reshape(-1, weight.shape[1])  # (rows, outputs)
        begins = [shift * batch for shift in ctx.shifts]
        weight_gradient = torch.empty_like(weight)
        for begin, matrix in zip(begins, weight_gradient, strict=True):
            torch.mm(slope.t(), flat[begin:begin + len(slope)], out=matrix)
        hidden_gradient = None
        if ctx.needs_input_grad[0]:
            hidden_gradient = torch.empty_like(flat)
            first = begins[0]
            hidden_gradient[:first] = 0
            hidden_gradient[first + len(slope):] = 0
            torch.mm(slope, weight[0], out=hidden_gradient[first:first + len(slope)])
            for begin, matrix in zip(begins[1:], weight[1:], strict=True):
                hidden_gradient[begin:begin + len(slope)].addmm_(slope, matrix)
            hidden_gradient = hidden_gradient.view(ctx.shape)
        return hidden_gradient, weight_gradient, slope.sum(0) if ctx.biased else None, None


@torch.no_grad()
def semi_orthogonalise(weight: torch.Tensor) -> None:
    """One step of `weight` (offsets, out, in), in place, towards M M' = scale^2 I (Povey et al. 2018, section 2).

    M is (out, offsets * in), or its transpose where it has more rows than columns; the scale is the matrix's own.
    """
    matrix = weight.transpose(0, 1).flatten(1)  # (out, offsets * in)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    product = wide @ wide.t()
    trace = product.trace()
    square = (product * product).sum() / trace  # scale^2: the error is then orthogonal to the scale
    # steps of 1/8 diverge far from the manifold, where the eigenvalues of the product differ much
    ratio = square * len(product) / trace
    speed = 0.125 * torch.where(ratio > 1.02, 0.5, 1.0) * torch.where(ratio > 1.1, 0.5, 1.0)
    product.diagonal().sub_(square)
    wide = wide - (4 * speed / square) * (product @ wide)
    matrix = wide if matrix.shape[0] <= matrix.shape[1] else wide.t()
    weight.copy_(matrix.view(weight.shape[1], weight.shape[0], -1).transpose(0, 1))
