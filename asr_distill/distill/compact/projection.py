"""Codes of posteriors in a basis: the member of the exponential family that is nearest by Kullback-Leibler divergence.

KL(q, softmax(mean + V c)) is convex in c; its gradient is V^T (p - q), its second derivative V^T (diag p - p p^T) V.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

HESSIAN_PDFS = 256  # most likely pdfs that the second derivatives are taken from; the rest counts as its mean
STEPS = 3  # with one set of second derivatives
HALVINGS = 3
BLOCK = 256  # frames whose second derivatives are made at once


class Family(Protocol):
    @property
    def mean(self) -> torch.Tensor: ...

    @property
    def vectors(self) -> torch.Tensor: ...


class Projection(NamedTuple):
    codes: torch.Tensor  # (frames, rank)
    nats: torch.Tensor  # (frames,): the divergence that is left
    factors: torch.Tensor  # (frames, rank, rank), lower: Cholesky factors of the second derivatives


def project(family: Family, log_posteriors: torch.Tensor, start: torch.Tensor) -> Projection:
    """Newton steps from codes `start` (frames, rank), each shortened until it improves."""
    vectors = family.vectors
    posteriors = log_posteriors.exp()
    moments = posteriors @ vectors  # (frames, rank)
    constant = (posteriors * (log_posteriors - family.mean)).sum(1)

    def divergence(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.addmm(family.mean, codes, vectors.T)
        normaliser = torch.logsumexp(scores, 1)
        return constant + normaliser - (moments * codes).sum(1), scores.sub_(normaliser.unsqueeze(1)).exp_()

    codes = start
    nats, ours = divergence(codes)
    factors = second_derivatives(family, (ours + posteriors).mul_(0.5))
    for _ in range(STEPS):
        step = torch.cholesky_solve((ours @ vectors - moments).unsqueeze(2), factors).squeeze(2)
        length = torch.ones_like(nats)
        for _ in range(HALVINGS):
            tried = codes - length.unsqueeze(1) * step
            value, theirs = divergence(tried)
            worse = value > nats + 1e-6
            if not worse.any():
                break
            length = torch.where(worse, 0.35 * length, length)
        better = value <= nats
        codes = torch.where(better.unsqueeze(1), tried, codes)
        nats = torch.where(better, value, nats)
        ours = torch.where(better.unsqueeze(1), theirs, ours)
    return Projection(codes, nats, factors)


def second_derivatives(family: Family, posteriors: torch.Tensor) -> torch.Tensor:
    """Cholesky factors, lower (frames, rank, rank), of V^T (diag p - p p^T) V + a little, for p (frames, pdfs)."""
    vectors = family.vectors
    overall = vectors.var(0)
    parts = []
    for part in posteriors.split(BLOCK):
        weight, ids = part.topk(min(HESSIAN_PDFS, part.shape[1]), 1, sorted=False)
        centred = vectors[ids] - (part @ vectors).unsqueeze(1)  # (block, top, rank)
        centred *= weight.sqrt().unsqueeze(2)
        matrices = centred.transpose(1, 2) @ centred
        diagonal = matrices.diagonal(dim1=1, dim2=2)
        rest = (1 - weight.sum(1, keepdim=True)).clamp_(min=0)
        diagonal.add_(0.003 * diagonal + (rest + 1e-4) * overall)
        parts.append(torch.linalg.cholesky(matrices))
    return torch.cat(parts)
