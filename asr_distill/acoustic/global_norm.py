"""Batch normalisation (Ioffe and Szegedy 2015) over the rows of several processes, as if they were in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from asr_distill.parallel.peers import Peers


def global_batch_norm(rows: torch.Tensor, norm: nn.BatchNorm1d, peers: Peers) -> torch.Tensor:
    """What `norm` gives of rows (n, width) in training, had it all processes' rows; n may differ, and be 0.

    Running statistics move as those of the whole batch. All processes must call it together, and go backward together.
    """
    out, mean, variance, count = _GlobalBatchNorm.apply(rows, norm.weight, norm.bias, norm.eps, peers)
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        momentum = norm.momentum or 0.0
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(variance.dtype), momentum)
    return out


class _GlobalBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float,
                peers: Peers) -> tuple[torch.Tensor, ...]:
        width = rows.shape[1]
        sums = torch.zeros(2 * width + 1, dtype=torch.float64, device=rows.device)  # n mean, n mean square, n
        if len(rows):
            # centred in each process, joined in float64: no digit is lost where the mean is far from 0
            variance, mean = (each.double() for each in torch.var_mean(rows.to(weight.dtype), 0, unbiased=False))
            sums[:width] = len(rows) * mean
            sums[width:-1] = len(rows) * (variance + mean * mean)
            sums[-1] = len(rows)
        peers.sum_(sums)
        count = sums[-1]
        mean = sums[:width] / count
        variance = (sums[width:-1] / count - mean * mean).clamp_(min=0).to(weight.dtype)
        mean = mean.to(weight.dtype)
        out = nn.functional.batch_norm(rows, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(rows, weight, mean, variance, count)
        ctx.eps, ctx.peers = eps, peers
        ctx.mark_non_differentiable(mean, variance, count)
        return out, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        rows, weight, mean, variance, count = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        exact = slope.to(weight.dtype)
        bias_gradient = exact.sum(0)  # of these rows alone: the trainer sums all gradients
        weight_gradient = (exact * (rows.to(weight.dtype) - mean)).sum(0) * scale
        means = torch.cat([bias_gradient, weight_gradient]).double()
        ctx.peers.sum_(means)
        slope_mean, product_mean = (means / count).to(weight.dtype).chunk(2)
        # weight * scale * (slope - mean of slopes - normalised rows * mean of their products)
        tilt = -weight * scale * scale * product_mean
        gradient = torch.addcmul(exact * (weight * scale) - (weight * scale * slope_mean + tilt * mean), rows, tilt)
        return gradient.to(rows.dtype), weight_gradient, bias_gradient, None, None
