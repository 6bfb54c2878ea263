"""What every kind of network promises: its context, the same logits in every form, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.attention import RestrictedAttention
from asr_distill.acoustic.base import Network
from asr_distill.acoustic.config import DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import train
from asr_distill.config import build, to_dict

CPU = torch.device("cpu")
every_kind = pytest.mark.parametrize("kind", KINDS)


def network_of(kind: str, coefficients: int = 6, pdfs: int = 8) -> Network:
    """In evaluation mode, with running statistics of its own, and logits that differ."""
    network = build_network(KINDS[kind], coefficients, pdfs, seed=1)
    torch.manual_seed(0)
    network(torch.randn(20, network.left + 12 + network.right, coefficients))
    with torch.no_grad():
        network.output.weight.mul_(10)
    return network.eval()


@every_kind
def test_context_is_as_stated(kind: str) -> None:
    network = network_of(kind)
    frames = 2 * network.stride + 1  # the last group is not whole
    margin = network.left + network.right
    window = torch.randn(1, frames + margin, 6)
    plain = network(window)
    assert plain.shape == (frames, 8)
    heard = []  # for each frame of the window: which logits it changes
    for place in range(frames + margin):
        other = window.clone()
        other[0, place] += 5 * torch.randn(6)
        heard.append((network(other) - plain).abs().amax(1) > 1e-6)
    for frame, changed in enumerate(torch.stack(heard, 1)):
        group = frame // network.stride * network.stride
        places = changed.nonzero().flatten()
        assert (int(places[0]), int(places[-1])) == (group, group + margin)


@every_kind
def test_utterance_form_equals_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(kind)
    frames = torch.randn(41, 6)
    padded = frames[torch.arange(-network.left, 41 + network.right).clamp(0, 40)]
    whole = network(padded.unsqueeze(0))
    torch.testing.assert_close(network.forward_utterance(frames), whole, rtol=0, atol=1e-5)
    chunk = 2 * network.stride
    windows = padded[:36 + network.left + network.right].unfold(0, chunk + network.left + network.right, chunk)
    torch.testing.assert_close(network(windows.transpose(1, 2)), whole[:36], rtol=0, atol=1e-5)
    monkeypatch.setattr("asr_distill.acoustic.base.UTTERANCE_BLOCK", 3 * network.stride + 1)
    torch.testing.assert_close(network.forward_utterance(frames), whole, rtol=0, atol=1e-5)


@every_kind
def test_chosen_rows_and_other_samples(kind: str) -> None:
    """Rows come as asked for; in evaluation mode no sample changes another's logits."""
    network = network_of(kind)
    windows = torch.randn(3, network.left + 6 + network.right, 6)
    whole = network(windows)
    rows = torch.tensor([17, 0, 4, 11])
    torch.testing.assert_close(network(windows, rows), whole[rows], rtol=0, atol=1e-5)
    torch.testing.assert_close(network(windows[1:2]), whole[6:12], rtol=0, atol=1e-5)


@every_kind
def test_every_weight_has_a_gradient(kind: str) -> None:
    network = build_network(replace(KINDS[kind], dropout=0.1), 6, 8, seed=1).train()
    torch.manual_seed(0)
    logits = network(torch.randn(16, network.left + 12 + network.right, 6))
    torch.nn.functional.cross_entropy(logits, torch.randint(0, 8, (len(logits),))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind, precision", [(kind, "float32") for kind in KINDS] +
                         [pytest.param(kind, "bfloat16", marks=pytest.mark.slow) for kind in KINDS])
def test_learns(kind: str, precision: str, tmp_path: Path) -> None:
    store, alignment, cmvn = synthetic(utterances=16, unaligned=(3,))
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=0, right=0)
    network = build_network(KINDS[kind], data.num_coefficients, data.num_pdfs)
    config = TrainerConfig(batch=96, chunk=12, epochs=20, warmup_updates=5, learning_rate=1e-2, tensorboard=False,
                           precision=precision)  # type: ignore[arg-type]
    result = train(network, data, HardTargets(data.pdf_ids), config, seed=0, work=tmp_path, device=CPU)
    assert result.accuracy > 0.7
    model = AcousticModel(result.network, cmvn, log_priors_of(data.pdf_frequencies()), KINDS[kind])
    correct = [(model.logits(store.features(i, CPU)).argmax(1).numpy() ==
                alignment.pdf_ids[store.offsets[i]:store.offsets[i + 1]]).mean() for i in range(3)]
    assert np.mean(correct) > 0.7  # whole utterances, as a decoder runs them


@every_kind
def test_save_load_and_cast(kind: str, tmp_path: Path) -> None:
    store, _, cmvn = synthetic(utterances=2)
    model = AcousticModel(network_of(kind), cmvn, log_priors_of(torch.ones(8)), KINDS[kind])
    model.save(tmp_path)
    loaded = AcousticModel.load(tmp_path, CPU)
    utterance = store.features(0, CPU)
    assert torch.equal(loaded.log_likelihoods(utterance), model.log_likelihoods(utterance))
    assert loaded.config == KINDS[kind]
    logits = model.logits(utterance)
    half = model.cast(torch.bfloat16)
    assert half.network.dtype == torch.bfloat16
    assert float((half.logits(utterance) - logits).abs().mean() / logits.abs().mean()) < 0.05


def test_attention_equals_brute_force() -> None:
    config = NetworkConfig(kind="attention", layers=1, width=8, heads=2, reach=3)
    layer = RestrictedAttention(config).double().eval()
    layer.reset(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(layer.bias)
    hidden = torch.randn(11, 2, 8, dtype=torch.float64)
    got = layer(hidden).detach().numpy()
    x = hidden.numpy()
    into, out = (part.weight[0].detach().numpy() for part in (layer.inputs, layer.outputs))
    for t in range(5):
        for b in range(2):
            q, k, v = np.split(x[:, b] @ into.T, 3, axis=1)
            mixed = []
            for head, unit in enumerate((slice(0, 4), slice(4, 8))):
                scores = np.array([q[t + 3, unit] @ k[t + d, unit] / 2 for d in range(7)])
                scores += layer.bias[head].detach().numpy()
                odds = np.exp(scores)
                mixed.append(odds / odds.sum() @ v[t:t + 7, unit])
            np.testing.assert_allclose(got[t, b], x[t + 3, b] + out @ np.concatenate(mixed), atol=1e-12)


@pytest.mark.parametrize("settings", [
    {"stride": 3}, {"kind": "tdnn", "left": 3}, {"kind": "tdnn", "splices": ((-1, 0, 1),), "layers": 2},
    {"kind": "tdnn", "splices": ((-1, 1),), "layers": 1}, {"kind": "attention", "bottleneck": 8},
    {"kind": "attention", "width": 30, "heads": 8}, {"kind": "tdnn", "stride": 0},
    {"kind": "conv_tdnn", "channels": ()},
    {"kind": "tdnn", "bottleneck": 64, "width": 64}, {"kind": "tdnn", "heads": 2}, {"kind": "tdnn", "skip": -1.0}])
def test_settings_that_make_no_network_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="|".join(key for key in settings if key not in ("kind", "layers"))):
        NetworkConfig(**settings)  # type: ignore[arg-type]


@every_kind
def test_settings_survive_json(kind: str) -> None:
    assert build(NetworkConfig, to_dict(KINDS[kind])) == KINDS[kind]
