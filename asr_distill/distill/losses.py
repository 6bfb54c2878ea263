"""Distillation losses (Hinton, Vinyals, Dean 2015, section 2), from whole posteriors or from their top k.

With student logits z, p = softmax(z / T) and targets q made at the same T, the soft loss is T^2 * -sum q log p: T^2
keeps its gradient, which shrinks as 1 / T^2, in step with the hard loss's when T changes. The mixed loss is the
weighted mean (soft + hard_weight * -log softmax(z)[pdf]) / (1 + hard_weight): so a learning rate keeps its meaning.

The remainder, a mass r beyond the k stored probabilities, is either
- lumped:  one class of its own, -r log(1 - sum of the k p): how the student shares the rest among the other pdfs is
           left to it, and the loss is a lower bound of the full one, with its minimum at the same top-k probabilities;
- uniform: r / (pdfs - k) for every other pdf: pulls all of them to one height.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from asr_distill.acoustic.losses import RowLoss, cross_entropy, mean_over_rows, softmax

Remainder = Literal["lumped", "uniform"]


class Towards:
    """T^2 * cross-entropy at T against whole posteriors: a RowLoss.

    posteriors(rows, dtype): the targets of these rows of the batch, (rows, pdfs), each row summing to 1.
    """

    def __init__(self, posteriors: Callable[[slice, torch.dtype], torch.Tensor], temperature: float):
        self.posteriors, self.temperature = posteriors, temperature

    def __call__(self, logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        target = self.posteriors(rows, logits.dtype)
        value, ours, _ = self._fit(logits, target)
        return value, ours.sub_(target).mul_(self.temperature)

    def mixed(self, logits: torch.Tensor, rows: slice, pdf_ids: torch.Tensor, weight: torch.Tensor,
              total: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(this loss + weight * cross-entropy at T = 1 to pdf_ids) / total and its gradient; weight (rows,)."""
        at = pdf_ids.unsqueeze(1)
        score = logits.gather(1, at).squeeze(1)
        square = self.temperature == 2
        hard, normaliser = (None, None) if square else softmax(logits)
        target = self.posteriors(rows, logits.dtype)
        value, ours, soft_normaliser = self._fit(logits, target)
        share = weight / total
        if square:  # exp(z) is exp(z / 2) squared: one exponential serves both
            hard = ours * ours
            sums = hard.sum(1)
            normaliser, scale = sums.log() + 2 * soft_normaliser, share / sums
        else:
            assert normaliser is not None
            normaliser, scale = normaliser.squeeze(1), share
        assert hard is not None
        gradient = ours.sub_(target).mul_(self.temperature / total).addcmul_(hard, scale.unsqueeze(1))
        gradient.scatter_add_(1, at, -share.unsqueeze(1))
        return value / total + (share * (normaliser - score)).sum(), gradient

    def _fit(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The summed loss, softmax(logits / T), log of its normaliser (rows,); logits are overwritten."""
        scaled = logits.div_(self.temperature)
        ours, normaliser = softmax(scaled)
        value = normaliser.sum() - torch.dot(target.reshape(-1), scaled.reshape(-1))
        return value * self.temperature**2, ours, normaliser.squeeze(1)


def soft_cross_entropy_rows(probabilities: torch.Tensor, temperature: float) -> Towards:
    """T^2 * cross-entropy at T against whole posteriors (batch, pdfs), each row summing to 1."""
    return Towards(lambda rows, dtype: probabilities[rows].to(dtype), temperature)


def family_cross_entropy_rows(codes: torch.Tensor, vectors: torch.Tensor, temperature: float) -> Towards:
    """T^2 * cross-entropy at T against the posteriors softmax(codes @ vectors), made block by block.

    codes (batch, rank), vectors (rank, pdfs), both of the type that the product is made in.
    """
    return Towards(lambda rows, dtype: torch.softmax((codes[rows] @ vectors).to(dtype), 1), temperature)


def top_k_cross_entropy_rows(ids: torch.Tensor, probabilities: torch.Tensor, remainder: torch.Tensor,
                             temperature: float, kind: Remainder = "lumped") -> RowLoss:
    """T^2 * cross-entropy at T against the k greatest probabilities and the mass of the rest.

    ids int64 (batch, k), distinct in a row; probabilities (batch, k); remainder (batch,). Mass that is stored for a
    rest without members (k = pdfs) is dropped.
    """
    rows_loss = _lumped_rows if kind == "lumped" else _uniform_rows

    def loss(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = logits.div_(temperature)
        mass = remainder[rows].to(logits.dtype).unsqueeze(1)
        if ids.shape[1] == logits.shape[1]:
            mass = torch.zeros_like(mass)
        value, gradient = rows_loss(scaled, ids[rows], probabilities[rows].to(logits.dtype), mass)
        return value * temperature**2, gradient.mul_(temperature)
    return loss


def _lumped_rows(logits: torch.Tensor, ids: torch.Tensor, target: torch.Tensor,
                 mass: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rest as one class whose logit is the logsumexp of its members': no difference of near-equal numbers."""
    top = logits.gather(1, ids)  # (rows, k)
    logits.scatter_(1, ids, -torch.inf)
    peak = logits.amax(1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)  # no -inf - -inf where k = pdfs
    rest = logits.sub_(peak).exp_()  # (rows, pdfs), 0 at the top k
    total = rest.sum(1, keepdim=True)
    rest_logit = total.log().add_(peak)
    normaliser = torch.logaddexp(torch.logsumexp(top, 1, keepdim=True), rest_logit)
    all_mass = target.sum(1, keepdim=True) + mass
    value = (normaliser * all_mass).sum() - (target * top).sum()
    value = value - torch.where(mass > 0, mass * rest_logit, 0).sum()
    # d/d(member of the rest) = (p_rest - r) * its share of the rest
    slope = all_mass * (rest_logit - normaliser).exp() - mass
    gradient = rest.mul_(torch.where(total > 0, slope / total, 0))
    gradient.scatter_(1, ids, all_mass * (top - normaliser).exp() - target)
    return value, gradient


def _uniform_rows(logits: torch.Tensor, ids: torch.Tensor, target: torch.Tensor,
                  mass: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    top = logits.gather(1, ids)
    each = mass / max(1, logits.shape[1] - ids.shape[1])
    all_mass = target.sum(1, keepdim=True) + mass
    fit = (target * top).sum() + (each * (logits.sum(1, keepdim=True) - top.sum(1, keepdim=True))).sum()
    gradient, normaliser = softmax(logits)
    value = (normaliser * all_mass).sum() - fit
    gradient.mul_(all_mass).sub_(each)
    gradient.scatter_add_(1, ids, each - target)
    return value, gradient


def mixed_rows(soft: RowLoss, pdf_ids: torch.Tensor, hard_weight: float) -> RowLoss:
    """The weighted mean of a soft loss and cross-entropy at T = 1 to pdf_ids int64 (batch,).

    A frame whose pdf nobody knows (-1: untranscribed audio) has no hard loss; its soft loss weighs what others' does.
    """
    if not hard_weight:
        return soft
    known, classes = pdf_ids >= 0, pdf_ids.clamp(min=0)

    def loss(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        weight = hard_weight * known[rows].to(logits.dtype)
        if isinstance(soft, Towards):
            return soft.mixed(logits, rows, classes[rows], weight, 1 + hard_weight)
        hard_values, hard_gradient = cross_entropy(logits, classes[rows])
        soft_value, soft_gradient = soft(logits, rows)
        value = (soft_value + (weight * hard_values).sum()) / (1 + hard_weight)
        return value, soft_gradient.addcmul_(hard_gradient, weight.unsqueeze(1)).div_(1 + hard_weight)
    return loss


def soft_cross_entropy(logits: torch.Tensor, probabilities: torch.Tensor, temperature: float = 1.0, *,
                       pdf_ids: torch.Tensor | None = None, hard_weight: float = 0.0, block: int = 0) -> torch.Tensor:
    """Mean loss over (batch, pdfs) against whole posteriors; `block` rows at a time (0: chosen for the device)."""
    soft = soft_cross_entropy_rows(probabilities, temperature)
    return mean_over_rows(logits, _with_hard(soft, pdf_ids, hard_weight), block)


def top_k_cross_entropy(logits: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, remainder: torch.Tensor,
                        temperature: float = 1.0, *, kind: Remainder = "lumped", pdf_ids: torch.Tensor | None = None,
                        hard_weight: float = 0.0, block: int = 0) -> torch.Tensor:
    """Mean loss over (batch, pdfs) against the top k and the mass of the rest."""
    soft = top_k_cross_entropy_rows(ids, probabilities, remainder, temperature, kind)
    return mean_over_rows(logits, _with_hard(soft, pdf_ids, hard_weight), block)


def _with_hard(soft: RowLoss, pdf_ids: torch.Tensor | None, hard_weight: float) -> RowLoss:
    if pdf_ids is None:
        if hard_weight:
            raise ValueError("a hard weight needs pdf_ids")
        return soft
    return mixed_rows(soft, pdf_ids, hard_weight)
