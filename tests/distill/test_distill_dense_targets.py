"""Targets of whole posteriors against torch's own losses."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from asr_distill.distill.config import DistillConfig
from asr_distill.distill.dense_targets import DenseTargets

CPU = torch.device("cpu")


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
def test_loss_and_gradient_equal_torch(temperature: float, hard_weight: float) -> None:
    torch.manual_seed(0)
    teacher, pdf_ids = 6 * torch.randn(30, 10), torch.randint(0, 10, (30,))
    targets = DenseTargets(teacher, temperature, DistillConfig(hard_weight=hard_weight), pdf_ids).to(CPU)
    frames = torch.tensor([3, 29, 0, 3, 11])
    logits = (4 * torch.randn(5, 10, dtype=torch.float64)).requires_grad_()
    wanted = softmax(teacher.double()[frames] / temperature, 1)
    soft = cross_entropy(logits / temperature, wanted) * temperature**2
    expected = (soft + hard_weight * cross_entropy(logits, pdf_ids[frames])) / (1 + hard_weight)
    loss = targets.loss(logits, frames)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_gradient_vanishes_at_the_teachers_logits() -> None:
    torch.manual_seed(1)
    teacher = torch.randn(8, 10)
    targets = DenseTargets(teacher, 20.0, DistillConfig(hard_weight=0), None)
    logits = (teacher + 3).requires_grad_()  # a constant a row changes no posterior
    targets.loss(logits, torch.arange(8)).backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-5
    divergence = kl_div(log_softmax(logits.detach() / 20, 1), targets.probabilities, reduction="sum")
    assert float(divergence.abs()) < 1e-5


def test_parts_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="needs pdf_ids"):
        DenseTargets(torch.zeros(3, 10), 1.0, DistillConfig(hard_weight=0.5), None)
    with pytest.raises(ValueError, match="3 frames but 4"):
        DenseTargets(torch.zeros(3, 10), 1.0, DistillConfig(hard_weight=0.5), torch.zeros(4))
