from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from asr_distill.acoustic.losses import cross_entropy_rows, mean_over_rows
from asr_distill.acoustic.targets import HardTargets


@pytest.mark.parametrize("block", [0, 1, 3, 100])
def test_hard_loss_and_gradient_equal_torch(block: int) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(10, 7, dtype=torch.float64) * 5).requires_grad_()
    pdf_ids = torch.randint(0, 7, (10,))
    loss = mean_over_rows(logits, cross_entropy_rows(pdf_ids), block)
    expected = cross_entropy(logits, pdf_ids)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, logits)[0], torch.autograd.grad(3 * expected, logits)[0])


def test_gradcheck() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    rows = cross_entropy_rows(torch.tensor([1, 0, 4, 4]))
    assert torch.autograd.gradcheck(lambda z: mean_over_rows(z, rows, 3), logits)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = HardTargets(torch.tensor([9, 1])).loss(logits, torch.tensor([1]))
    assert float(loss.detach()) == pytest.approx(2e4)
    loss.backward()
    assert logits.grad is not None and logits.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_bfloat16_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 1000).bfloat16().requires_grad_()
    frames = torch.arange(64)
    targets = HardTargets(torch.randint(0, 1000, (64,)))
    loss = targets.loss(logits, frames)
    expected = cross_entropy(logits.detach().double(), targets.pdf_ids)
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-5)
    loss.backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16
