"""Streaming networks: what has not been spoken yet, beyond the stated look-ahead, changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network, num_parameters
from asr_distill.features.cmvn import Cmvn, UtteranceFeatures

_CAUSAL = NetworkConfig(kind="tdnn", layers=2, width=24, final=12, norm="batch", splices=((-2, -1, 0), (-1, 0)),
                        front_right=0)
# look-ahead in frames, by hand: stride - 1 + front_right + stride * (rightmost offset of each layer)
NETWORKS = {
    "none": (_CAUSAL, 0),
    "one_frame": (replace(_CAUSAL, front_right=1), 1),
    "stride": (replace(_CAUSAL, stride=3), 2),
    "stride_front": (replace(_CAUSAL, stride=3, front_left=0, front_right=2, skip=0.66), 4),
    "stride_layer": (replace(_CAUSAL, stride=3, splices=((-1, 0, 1), (-2, 0)), norm="layer"), 5),
    "factored": (replace(_CAUSAL, stride=2, splices=((-1, 0, 1), (-2, 0)), bottleneck=8), 3),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
# Under 1.2 M parameters at 40 coefficients and 2,000 senones; it waits for 80 ms.
STUDENT = NetworkConfig(
    kind="tdnn", layers=8, width=320, bottleneck=64, final=160, norm="batch", stride=3, skip=0.66, front_left=4,
    front_right=0, splices=((-1, 0), (-1, 0, 1), (-1, 0), (-1, 0, 1), (-2, 0), (-2, 0), (-2, 0), (-2, 0)))


def network_of(config: NetworkConfig, coefficients: int = 6, pdfs: int = 8) -> Network:
    """In evaluation mode, with running statistics of its own."""
    network = build_network(config, coefficients, pdfs, seed=1)
    torch.manual_seed(0)
    network(torch.randn(20, network.left + 12 + network.right, coefficients))
    with torch.no_grad():
        network.output.weight.mul_(10)
    return network.eval()


@torch.inference_mode()
@every_network
@pytest.mark.parametrize("block", [2048, 7])
def test_the_future_changes_nothing(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_distill.acoustic.base.UTTERANCE_BLOCK", block)
    config, right = NETWORKS[name]
    network = network_of(config)
    assert network.right == right
    frames = torch.randn(40, 6)
    plain = network.forward_utterance(frames)
    for now in range(12, 25):
        other = frames.clone()
        other[now + right + 1:] = 9 * torch.randn(40 - now - right - 1, 6)
        torch.testing.assert_close(network.forward_utterance(other)[:now + 1], plain[:now + 1], rtol=0, atol=2e-6)
        if now % config.stride == 0:  # the first frame of a grid step waits for as much as is stated
            other = frames.clone()
            other[now + right] += 9
            assert (network.forward_utterance(other)[now] - plain[now]).abs().max() > 1e-4


@torch.inference_mode()
@every_network
def test_audio_that_comes_in_blocks_gives_what_the_whole_gives(name: str) -> None:
    """As a recogniser runs: it keeps `left` frames, and classifies a frame when `right` more have come."""
    config, right = NETWORKS[name]
    network = network_of(config)
    frames = torch.randn(41, 6)
    block = 4 * config.stride
    kept = frames[:1].expand(network.left, -1)  # before the first frame it stands repeated
    logits = []
    for begin in range(0, 41, block):
        kept = torch.cat([kept, frames[begin:begin + block]])
        if begin + block >= 41:
            kept = torch.cat([kept, frames[-1:].expand(right, -1)])
        ready = len(kept) - network.left - right
        if begin + block < 41:
            ready -= ready % config.stride
        if ready > 0:
            logits.append(network(kept.unsqueeze(0)[:, :network.left + ready + right]))
            kept = kept[ready:]
    assert len(logits) > 2
    torch.testing.assert_close(torch.cat(logits), network.forward_utterance(frames), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_model_with_online_cmvn_is_causal_as_a_whole() -> None:
    store, _, cmvn = synthetic(utterances=2)
    config, right = NETWORKS["stride_layer"]
    model = AcousticModel(network_of(config), Cmvn("online", cmvn.train, window=20, prior_frames=5),
                          log_priors_of(torch.ones(8)), config)
    raw = store.features(0, "cpu").raw
    plain = model.log_likelihoods(UtteranceFeatures(raw))
    for now in (10, 30):
        other = raw.clone()
        other[now + right + 1:] -= 20
        changed = model.log_likelihoods(UtteranceFeatures(other))
        torch.testing.assert_close(changed[:now + 1], plain[:now + 1], rtol=0, atol=1e-5)
        assert (changed[now + right + 1:] - plain[now + right + 1:]).abs().max() > 0.1


def test_the_proposed_student_is_small_and_quick_to_answer() -> None:
    network = build_network(STUDENT, 40, 2000)
    assert num_parameters(network) <= 1_200_000
    assert (network.left, network.right) == (40, 8)


@pytest.mark.parametrize("settings", [{"front_right": -1}, {"kind": "conv_tdnn", "front_left": 0}])
def test_wrong_fronts_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="front_"):
        replace(NetworkConfig(kind="tdnn"), **settings)  # type: ignore[arg-type]
