from __future__ import annotations

import copy
import math

import pytest
import torch

from asr_distill.acoustic.config import NetworkConfig, TrainerConfig
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.optimizer import MasterOptimizer
from asr_distill.acoustic.schedule import learning_rate, newbob_scale


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_flat_float32_equals_torch_per_tensor(optimizer: str) -> None:
    """The reference: torch's own optimizer tensor by tensor, with clip_grad_norm_."""
    torch.manual_seed(0)
    config = TrainerConfig(optimizer=optimizer, weight_decay=0.1, gradient_clip=0.05)  # type: ignore[arg-type]
    ours = build_network(NetworkConfig(layers=2, width=16, norm="layer", left=1, right=1), 5, 7)
    theirs = copy.deepcopy(ours)
    groups = [{"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    reference = (torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, config.beta2), foreach=False) if optimizer == "adamw"
                 else torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True, foreach=False))
    own = MasterOptimizer(ours, config, torch.float32)
    for _ in range(5):
        windows = torch.randn(8, 3, 5)
        for network in (ours, theirs):
            network(windows).square().sum().backward()
        own.step(1e-2)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), config.gradient_clip)
        reference.step()
        reference.zero_grad()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)
    for mine, its in zip(own.master_weights(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its.detach(), rtol=1e-4, atol=1e-6)


def test_bfloat16_works_on_rounded_masters() -> None:
    network = build_network(NetworkConfig(layers=1, width=16, norm="batch", left=1, right=1), 5, 7)
    first = network.output.weight.detach().clone()
    own = MasterOptimizer(network, TrainerConfig(), torch.bfloat16)
    for _ in range(3):
        network(torch.randn(8, 3, 5).bfloat16()).float().square().sum().backward()
        own.step(1e-5)  # below bfloat16's resolution: only a float32 master can gather it
    for parameter, master in zip(network.parameters(), own.master_weights(), strict=True):
        assert torch.equal(parameter, master.to(parameter.dtype))
    assert network.output.weight.dtype == torch.bfloat16
    assert {b.dtype for b in network.buffers()} == {torch.float32, torch.int64}
    assert network.hidden[1].norm.weight.dtype == torch.float32  # type: ignore[union-attr]
    moved = own.master_weights()[-2] - first
    assert 0 < float(moved.abs().max()) < 1e-4


def test_cosine_with_warmup() -> None:
    config = TrainerConfig(learning_rate=2.0, warmup_updates=4, final_rate=0.1)
    rates = [learning_rate(config, update, 24) for update in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[14] == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2))))
    assert rates[24] == pytest.approx(0.2)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_newbob_halves_on_a_plateau() -> None:
    config = TrainerConfig(schedule="newbob", warmup_updates=0, learning_rate=1.0, newbob_gain=0.01)
    scale = newbob_scale(config, 1.0, 0.05)
    assert scale == 1.0
    scale = newbob_scale(config, newbob_scale(config, scale, 0.005), -0.1)
    assert learning_rate(config, 5, 10, scale) == 0.25


@pytest.mark.parametrize("settings", [{"learning_rate": 0}, {"batch": 0}, {"momentum": 1.0}, {"patience": -1},
                                      {"final_rate": 2}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainerConfig(**settings)  # type: ignore[arg-type]
