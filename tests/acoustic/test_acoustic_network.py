from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from asr_distill.acoustic.network import NetworkConfig, build_network, num_parameters

SMALL = NetworkConfig(layers=2, width=16)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("length", [1, 4, 70])
def test_utterance_form_equals_windows(norm: str, length: int) -> None:
    network = build_network(NetworkConfig(layers=2, width=16, norm=norm, dropout=0.3), 5, 7).eval()  # type: ignore[arg-type]
    frames = torch.randn(length, 5)
    index = (torch.arange(length)[:, None] + torch.arange(-20, 6)).clamp(0, length - 1)
    torch.testing.assert_close(network.forward_utterance(frames), network(frames[index]), rtol=0, atol=1e-6)


def test_forward_equals_numpy() -> None:
    network = build_network(SMALL, 5, 7)
    windows = np.random.default_rng(0).normal(size=(3, 26, 5))
    hidden = windows.reshape(3, -1)
    weights = [p.detach().double().numpy() for p in network.parameters()]
    for matrix, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        hidden = np.maximum(hidden @ matrix.T + bias, 0)
    expected = hidden @ weights[4].T + weights[5]
    np.testing.assert_allclose(network(torch.from_numpy(windows).float()).detach().numpy(), expected, atol=1e-5)


def test_long_utterances_are_spliced_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(SMALL, 5, 7)
    frames = torch.randn(50, 5)
    whole = network.forward_utterance(frames)
    monkeypatch.setattr("asr_distill.acoustic.base.UTTERANCE_BLOCK", 8)
    torch.testing.assert_close(network.forward_utterance(frames), whole, rtol=0, atol=1e-6)


def test_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_network(SMALL, 5, 7, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    second, third = build_network(SMALL, 5, 7, seed=3), build_network(SMALL, 5, 7, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.output.weight, third.output.weight)


def test_initialisation_keeps_variance_and_starts_at_log_pdfs() -> None:
    network = build_network(NetworkConfig(layers=6, width=256), 40, 500)
    windows = torch.randn(512, 26, 40)
    hidden = network.hidden(windows.flatten(1))
    assert 0.5 < float(hidden.detach().square().mean()) < 2  # He: E[h^2] stays at the input's
    loss = torch.nn.functional.cross_entropy(network(windows), torch.randint(0, 500, (512,)))
    assert abs(float(loss) - math.log(500)) < 0.05


def test_parameters_and_paper_shape() -> None:
    assert num_parameters(build_network(SMALL, 5, 7)) == (130 * 16 + 16) + (16 * 16 + 16) + (16 * 7 + 7)
    with torch.device("meta"):
        from asr_distill.acoustic.feed_forward import FeedForward
        assert round(num_parameters(FeedForward(NetworkConfig(), 40, 14_000)) / 1e6) == 84  # "about 85M"


@pytest.mark.parametrize("settings", [{"width": 0}, {"layers": -1}, {"dropout": 1.0}, {"left": -1}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        NetworkConfig(**settings)  # type: ignore[arg-type]
