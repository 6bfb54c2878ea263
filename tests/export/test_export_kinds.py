"""Every exportable kind of network gives in ONNX what it gives in torch, at every length, alone and in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import NetworkConfig, build_network
from asr_distill.errors import UserError
from asr_distill.export.onnx import export_onnx
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.cmvn import Cmvn, CmvnKind, CmvnStats, UtteranceFeatures

COEFFICIENTS, PDFS = 40, 13
KINDS = {
    "tdnn": NetworkConfig(kind="tdnn", layers=2, width=24, final=12, stride=3, norm="batch", skip=0.66, dropout=0.1),
    "every_frame": NetworkConfig(kind="tdnn", layers=2, width=24, final=12, stride=1, norm="layer"),
    "factored": NetworkConfig(kind="tdnn", layers=3, width=24, final=12, stride=2, norm="batch", bottleneck=8,
                              splices=((-1, 0, 1), (-3, 0, 3), (0,))),
    "look_ahead_of_its_own": NetworkConfig(kind="tdnn", layers=2, width=24, final=12, stride=3,
                                           splices=((-2, -1, 0), (-4, 0, 1))),
    "conv_tdnn": NetworkConfig(kind="conv_tdnn", layers=2, width=24, final=12, stride=3, norm="batch",
                               channels=(4, 6, 6), skip=0.5),
}


def frames_of(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, COEFFICIENTS, generator=generator) * 2 - 6


def model_of(config: NetworkConfig, kind: CmvnKind = "global") -> AcousticModel:
    network = build_network(config, COEFFICIENTS, PDFS, seed=3).eval()
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):  # as training leaves them: neither 0 nor 1
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.data.add_(torch.rand(tensor.shape, generator=generator))
    nn.init.normal_(network.output.weight, generator=generator)
    cmvn = Cmvn(kind, CmvnStats.of(frames_of(4000, 9).numpy()))
    return AcousticModel(network, cmvn, torch.randn(PDFS, generator=generator).log_softmax(0), config)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["global", "online"])
def test_a_kind_equals_its_export(tmp_path: Path, name: str, kind: CmvnKind) -> None:
    model = model_of(KINDS[name], kind)
    export_onnx(model, tmp_path / "network.onnx")
    exported = OnnxModel(tmp_path)
    for count in (1, 2, 3, 4, 50, 301):
        utterance = UtteranceFeatures(frames_of(count))
        wanted = model.log_likelihoods(utterance)
        got = exported.log_likelihoods(utterance)
        assert got.shape == wanted.shape == (count, PDFS)
        assert wanted.std() > 0.5, "a network that says nothing proves nothing"
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)


def test_a_recording_longer_than_the_blocks_of_the_trainer(tmp_path: Path) -> None:
    model = model_of(KINDS["tdnn"])
    export_onnx(model, tmp_path / "network.onnx")
    utterance = UtteranceFeatures(frames_of(4100))  # torch classifies blocks of 2,048 frames
    torch.testing.assert_close(OnnxModel(tmp_path).log_likelihoods(utterance), model.log_likelihoods(utterance),
                               atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tdnn", "conv_tdnn"])
def test_a_batch_equals_its_utterances(tmp_path: Path, name: str) -> None:
    export_onnx(model_of(KINDS[name]), tmp_path / "network.onnx")
    session = OnnxModel(tmp_path).session
    batch = np.stack([frames_of(70, seed).numpy() for seed in range(3)])
    together = session.run(None, {"features": batch})[0]
    for row, raw in zip(together, batch, strict=True):
        np.testing.assert_allclose(row, session.run(None, {"features": raw[None]})[0][0], atol=5e-5)


def test_the_file_keeps_to_what_the_runtimes_read(tmp_path: Path) -> None:
    export_onnx(model_of(KINDS["conv_tdnn"]), tmp_path / "network.onnx")
    proto = onnx.load(tmp_path / "network.onnx")
    assert proto.ir_version == 8 and [entry.version for entry in proto.opset_import if not entry.domain] == [13]
    assert {node.domain for node in proto.graph.node} == {""}


def test_attention_is_refused(tmp_path: Path) -> None:
    config = NetworkConfig(kind="attention", layers=1, width=16, heads=2, final=8)
    with pytest.raises(UserError, match="feed_forward, tdnn or conv_tdnn"):
        export_onnx(model_of(config), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
