"""Dropout from random bytes behaves as torch's."""

from __future__ import annotations

import pytest
import torch

from asr_distill.acoustic.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_scale_and_gradient(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    units = torch.ones(501, 403, dtype=dtype, requires_grad=True)
    out = Dropout(rate)(units)
    share = (out == 0).float().mean().item()
    assert share == pytest.approx(rate, abs=0.006)  # 1/512 of rounding, 4 sigma of chance
    silenced = round(rate * 256) / 256
    assert out[out != 0].float().unique().tolist() == pytest.approx([1 / (1 - silenced)], rel=4e-3)
    assert out.float().mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    torch.testing.assert_close(units.grad, out.detach())


def test_every_unit_and_every_row_is_drawn_afresh() -> None:
    torch.manual_seed(1)
    layer = Dropout(0.5)
    masks = torch.stack([layer(torch.ones(64, 64)) != 0 for _ in range(200)]).float()
    spread = 0.5 / 200**0.5
    assert (masks.mean(0) - 0.5).abs().max() < 5 * spread  # also the top bits of a word
    flat = masks.flatten(1)
    assert (flat[:, :-1] * flat[:, 1:]).mean() == pytest.approx(0.25, abs=0.005)  # neighbours independent


def test_off_in_evaluation_and_reproducible() -> None:
    layer, units = Dropout(0.3), torch.randn(10, 7)
    torch.manual_seed(2)
    first = layer(units)
    torch.manual_seed(2)
    torch.testing.assert_close(layer(units), first)
    assert layer.eval()(units) is units
    assert Dropout(0.0).train()(units) is units
