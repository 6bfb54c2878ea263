from __future__ import annotations

import pytest
import torch

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.optimizer import MasterOptimizer
from asr_distill.acoustic.spliced import SplicedLinear, semi_orthogonalise


@pytest.mark.parametrize("offsets", [(0,), (-1, 0, 1), (-3, 0, 3), (-2, 0), (0, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_a_convolution(offsets: tuple[int, ...], bias: bool) -> None:
    layer = SplicedLinear(5, 4, offsets, bias=bias).double()
    layer.reset(torch.Generator().manual_seed(0))
    hidden = torch.randn(12, 3, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.zeros(4, 5, layer.left + 1 + layer.right, dtype=torch.float64)  # holes are zero
    for offset, weight in zip(offsets, layer.weight, strict=True):
        kernel[:, :, offset + layer.left] = weight
    expected = torch.nn.functional.conv1d(hidden.permute(1, 2, 0), kernel, layer.bias).permute(2, 0, 1)
    torch.testing.assert_close(layer(hidden), expected)
    assert torch.autograd.gradcheck(layer, hidden)
    inputs = [hidden.detach(), *layer.parameters()]
    gradients = torch.autograd.grad(layer(inputs[0]).square().sum(), inputs[1:])
    for gradient, reference in zip(gradients, torch.autograd.grad(expected.square().sum(), inputs[1:]), strict=True):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("shape", [(2, 6, 8), (1, 20, 5)])
def test_steps_lead_to_semi_orthogonal_factors(shape: tuple[int, int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = float(weight.norm())
    for _ in range(200):
        semi_orthogonalise(weight)
    matrix = weight.transpose(0, 1).flatten(1)
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.t()
    product = matrix @ matrix.t()
    unit = product / product.diagonal().mean()
    torch.testing.assert_close(unit, torch.eye(len(unit), dtype=torch.float64), rtol=0, atol=1e-6)
    assert 0.5 < float(weight.norm()) / scale < 2  # the matrix keeps its own scale


def test_the_optimizer_changes_masters_and_network() -> None:
    config = NetworkConfig(kind="tdnn", layers=2, width=16, bottleneck=4, final=8)
    network = build_network(config, 6, 8)
    factors = list(network.semi_orthogonal())
    assert [tuple(factor.shape) for factor in factors] == [(2, 4, 16)] * 2
    optimizer = MasterOptimizer(network, TrainerConfig(), torch.bfloat16)
    before = [value.clone() for value in optimizer.master_weights()]
    optimizer.constrain(factors, semi_orthogonalise)
    changed = [not torch.equal(a, b) for a, b in zip(before, optimizer.master_weights(), strict=True)]
    chosen = {id(factor) for factor in factors}
    assert changed == [id(parameter) in chosen for parameter in network.parameters()]
    for parameter, master in zip(network.parameters(), optimizer.master_weights(), strict=True):
        assert torch.equal(parameter, master.bfloat16())
