"""A basis of log-posteriors: log q = log softmax(mean + codes @ vectors^T), few numbers a frame for all pdfs.

Senones' log-posteriors vary together: those of one phone rise and fall as one, and a network makes all of them from a
narrow last layer. So a posterior lies near an exponential family of low rank (exponential-family PCA: Collins, Dasgupta
and Schapire 2001). Unlike the top k, it says of every pdf how likely it is, and high temperatures cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asr_distill.distill.compact.projection import project

HESSIAN_FRAMES = 8192  # of the pilot, that the basis's second derivatives are taken from
BLOCK = 1024  # frames at once
SLOW = 0.7  # share of a Newton step: pdfs are stepped as if they did not depend on each other
FARTHEST = 1.0  # nats


@dataclass(frozen=True)
class LogitBasis:
    """mean float32 (pdfs,), vectors float32 (pdfs, rank), frequencies float32 (pdfs,): the mean posterior.

    The vectors are such that codes have mean 0, no correlation, falling variance, and that an error e in a code costs
    e^2 / 2 nats in the mean.
    """

    mean: torch.Tensor
    vectors: torch.Tensor
    frequencies: torch.Tensor

    @property
    def rank(self) -> int:
        return self.vectors.shape[1]

    def first(self, rank: int) -> LogitBasis:
        """The basis of the first `rank` codes."""
        return LogitBasis(self.mean, self.vectors[:, :rank].contiguous(), self.frequencies)

    def log_posteriors(self, codes: torch.Tensor) -> torch.Tensor:
        """codes (frames, rank) -> (frames, pdfs)."""
        return torch.log_softmax(torch.addmm(self.mean, codes, self.vectors.T), 1)

    def linear_codes(self, log_posteriors: torch.Tensor) -> torch.Tensor:
        """Least squares weighted by the mean posterior: where Newton steps start. (frames, pdfs) -> (frames, rank)."""
        centred = self.vectors - self.frequencies @ self.vectors
        weighted = centred * self.frequencies.unsqueeze(1)  # (pdfs, rank)
        gram = weighted.T @ centred
        gram.diagonal().add_(1e-5 * gram.diagonal().mean())
        return torch.linalg.solve(gram, weighted.T @ (log_posteriors - self.mean).T).T


@dataclass(frozen=True)
class Principal:
    """Principal components of log-posteriors, each pdf weighted by its mean posterior."""

    mean: torch.Tensor  # (pdfs,)
    frequencies: torch.Tensor  # (pdfs,)
    components: torch.Tensor  # (pdfs, rank): orthonormal
    scales: torch.Tensor  # (rank,): standard deviations, falling

    @staticmethod
    def of(log_posteriors: torch.Tensor, rank: int) -> Principal:
        """The first `rank` of log_posteriors (frames, pdfs)."""
        mean, frequencies = log_posteriors.mean(0), _mean_posterior(log_posteriors)
        weighted = log_posteriors - mean
        weighted -= (weighted @ frequencies).unsqueeze(1)
        weighted *= frequencies.sqrt()
        with torch.random.fork_rng(devices=[weighted.device] if weighted.is_cuda else []):
            torch.manual_seed(0)
            _, singular, components = torch.svd_lowrank(weighted, min(rank + 8, *weighted.shape), niter=3)
        return Principal(mean, frequencies, components[:, :rank], singular[:rank] / len(log_posteriors)**0.5)

    def basis(self, rank: int) -> LogitBasis:
        """The first `rank` of them, in units of their standard deviations."""
        vectors = self.components[:, :rank] / self.frequencies.sqrt().unsqueeze(1) * self.scales[:rank]
        return LogitBasis(self.mean, vectors, self.frequencies)


def fit_basis(log_posteriors: torch.Tensor, basis: LogitBasis, rounds: int = 3) -> LogitBasis:
    """The basis of least Kullback-Leibler divergence from log_posteriors (frames, pdfs), by Newton steps from `basis`.

    Codes and basis are stepped in turn, until a step does not help.
    """
    codes, nats = _codes(basis, log_posteriors, basis.linear_codes(log_posteriors))
    for _ in range(rounds):
        tried = _step(basis, log_posteriors, codes)
        theirs, value = _codes(tried, log_posteriors, codes)
        if not value < nats:
            break
        basis, codes, nats = tried, theirs, value
    return _normalised(basis, log_posteriors, codes)


def _codes(basis: LogitBasis, log_posteriors: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Projected from `start`, and their mean divergence."""
    found = [project(basis, part, begin) for part, begin in
             zip(log_posteriors.split(BLOCK), start.split(BLOCK), strict=True)]
    return torch.cat([part.codes for part in found]), float(torch.cat([part.nats for part in found]).double().mean())


def _mean_posterior(log_posteriors: torch.Tensor) -> torch.Tensor:
    total = sum(part.exp().sum(0, dtype=torch.float64) for part in log_posteriors.split(BLOCK))
    return (total / len(log_posteriors)).float().clamp_(min=1e-10)


def _step(basis: LogitBasis, log_posteriors: torch.Tensor, codes: torch.Tensor) -> LogitBasis:
    """One damped Newton step of every pdf's mean and vector, the codes fixed."""
    wide = torch.cat([codes, torch.ones_like(codes[:, :1])], 1)  # (frames, rank + 1)
    size, pdfs = wide.shape[1], len(basis.mean)
    row, column = torch.tril_indices(size, size, device=codes.device)
    products = torch.zeros(pdfs, len(row), device=codes.device)
    slope = torch.zeros(pdfs, size, device=codes.device)
    every = max(1, len(codes) // HESSIAN_FRAMES)
    counted = 0
    for at in range(0, len(codes), BLOCK):
        rows = slice(at, at + BLOCK)
        ours = basis.log_posteriors(codes[rows]).exp_()  # (block, pdfs)
        slope += (ours - log_posteriors[rows].exp()).T @ wide[rows]
        some = wide[rows][::every]
        products += ours[::every].T @ (some[:, row] * some[:, column])
        counted += len(some)
    hessian = torch.zeros(pdfs, size, size, device=codes.device)
    hessian[:, row, column] = hessian[:, column, row] = products / counted
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal.add_(0.02 * diagonal + 1e-7 * wide.square().mean(0))
    step = torch.cholesky_solve((slope / len(codes)).unsqueeze(2), torch.linalg.cholesky(hessian)).squeeze(2)
    # a pdf that is hardly ever likely has next to no second derivative: no score moves by more than FARTHEST, r.m.s.
    moved = ((step @ (wide.T @ wide / len(wide))) * step).sum(1, keepdim=True).clamp_(min=0).sqrt_()
    step *= (FARTHEST / moved.clamp_(min=FARTHEST))
    return LogitBasis(basis.mean - SLOW * step[:, -1], basis.vectors - SLOW * step[:, :-1], basis.frequencies)


def _normalised(basis: LogitBasis, log_posteriors: torch.Tensor, codes: torch.Tensor) -> LogitBasis:
    """The same family in the coordinates that LogitBasis promises."""
    vectors = basis.vectors.double()
    means = torch.cat([part.exp() @ basis.vectors for part in log_posteriors.split(BLOCK)]).double()
    fisher = (vectors * basis.frequencies.unsqueeze(1)).T @ vectors - means.T @ means / len(means)
    fisher.diagonal().add_(1e-6 * fisher.diagonal().mean())
    root = torch.linalg.cholesky(fisher)
    _, axes = torch.linalg.eigh(root.T @ torch.cov(codes.T.double()) @ root)
    change = axes.flip(1).T @ root.T  # new codes = change @ old
    turned = torch.linalg.solve(change, vectors, left=False)  # vectors @ change^-1
    centre = change @ codes.double().mean(0)
    return LogitBasis((basis.mean.double() + turned @ centre).float(), turned.float(), basis.frequencies)
