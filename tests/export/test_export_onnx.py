"""The ONNX graph equals the torch model, through every form of CMVN and every length."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import NetworkConfig, build_network
from asr_distill.emission import EmissionModel
from asr_distill.errors import UserError
from asr_distill.export.onnx import EmissionGraph, GlobalCmvn, export_onnx
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures

LEFT, RIGHT, COEFFICIENTS, PDFS = 4, 2, 40, 11


class Net(nn.Module):
    def __init__(self, first: nn.Module | None = None):
        super().__init__()
        self.left, self.right = LEFT, RIGHT
        self.layers = nn.Sequential(first or nn.Identity(), nn.Flatten(),
                                    nn.Linear((LEFT + 1 + RIGHT) * COEFFICIENTS, 32), nn.ReLU(),
                                    nn.Dropout(0.5), nn.Linear(32, PDFS))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.layers(windows)


class Negate(nn.Module):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows.flip(-1).abs()


def speech_like(frames: int, seed: int = 0) -> np.ndarray:
    """Log-mel-like numbers: far from zero mean, each coefficient its own spread, slow drift."""
    rng = np.random.default_rng(seed)
    level = np.linspace(-12, -5, COEFFICIENTS) + np.sin(np.arange(frames) / 300.0)[:, None]
    spread = np.linspace(1, 4, COEFFICIENTS)
    return (level + rng.normal(size=(frames, COEFFICIENTS)) * spread).astype(np.float32)


def make_model(kind: str, first: nn.Module | None = None) -> SimpleNamespace:
    torch.manual_seed(1)
    cmvn = Cmvn(kind, CmvnStats.of(speech_like(5000, seed=9)))  # type: ignore[arg-type]
    return SimpleNamespace(network=Net(first), cmvn=cmvn, log_priors=torch.randn(PDFS).log_softmax(0))


def reference(model: SimpleNamespace, raw: np.ndarray) -> np.ndarray:
    """Float64 numpy: normalise by Cmvn.apply, splice by hand, then network, softmax and priors."""
    frames = model.cmvn.apply(UtteranceFeatures(torch.from_numpy(raw))).double().numpy()
    windows = np.stack([frames[np.clip(np.arange(t - LEFT, t + RIGHT + 1), 0, len(frames) - 1)]
                        for t in range(len(frames))])
    with torch.no_grad():
        logits = model.network.double().eval()(torch.from_numpy(windows)).numpy()
    model.network.float()
    log_posteriors = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return log_posteriors - model.log_priors.double().numpy()


@pytest.mark.parametrize("kind", ["global", "online"])
@pytest.mark.parametrize("frames", [1, 3, 250, 1500])
def test_onnx_equals_float64_reference(tmp_path: Path, kind: str, frames: int) -> None:
    model = make_model(kind)
    export_onnx(model, tmp_path / "network.onnx")
    onnx_model = OnnxModel(tmp_path)
    raw = speech_like(frames)
    got = onnx_model.log_likelihoods(UtteranceFeatures(torch.from_numpy(raw)))
    assert got.shape == (frames, PDFS) and got.dtype == torch.float32
    assert np.abs(got.numpy() - reference(model, raw)).max() <= 1e-4
    assert isinstance(onnx_model, EmissionModel) and onnx_model.num_pdfs == PDFS


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_posteriors_at_a_temperature(tmp_path: Path, temperature: float) -> None:
    model = make_model("global")
    export_onnx(model, tmp_path / "network.onnx")
    raw = speech_like(90)
    got = OnnxModel(tmp_path).log_posteriors(UtteranceFeatures(torch.from_numpy(raw)), temperature)
    scaled = (reference(model, raw) + model.log_priors.double().numpy()) / temperature
    assert np.abs(got.numpy() - (scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))).max() <= 1e-4


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("kind", ["global", "online"])
def test_real_acoustic_model_equals_its_export(tmp_path: Path, norm: str, kind: str) -> None:
    config = NetworkConfig(layers=2, width=48, dropout=0.1, norm=norm)  # type: ignore[arg-type]
    network = build_network(config, COEFFICIENTS, PDFS).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
            module.running_mean.normal_()
    model = AcousticModel(network, make_model(kind).cmvn, torch.randn(PDFS).log_softmax(0), config)
    export_onnx(model, tmp_path / "network.onnx")
    utterance = UtteranceFeatures(torch.from_numpy(speech_like(800)))
    difference = OnnxModel(tmp_path).log_likelihoods(utterance) - model.log_likelihoods(utterance)
    assert difference.abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["global", "online"])
def test_batch_equals_single_utterances(tmp_path: Path, kind: str) -> None:
    export_onnx(make_model(kind), tmp_path / "network.onnx")
    session = OnnxModel(tmp_path).session
    batch = np.stack([speech_like(70, seed) for seed in range(3)])
    together = session.run(None, {"features": batch})[0]
    for row, raw in zip(together, batch, strict=True):
        np.testing.assert_allclose(row, session.run(None, {"features": raw[None]})[0][0], atol=2e-5)


def test_global_cmvn_is_folded_only_where_that_is_exact(tmp_path: Path) -> None:
    assert isinstance(EmissionGraph(make_model("global")).normalise, nn.Identity)
    odd = make_model("global", first=Negate())  # |x| before the affine layer: folding would be wrong
    assert isinstance(EmissionGraph(odd).normalise, GlobalCmvn)
    export_onnx(odd, tmp_path / "network.onnx")
    raw = speech_like(60)
    got = OnnxModel(tmp_path).log_likelihoods(UtteranceFeatures(torch.from_numpy(raw)))
    assert np.abs(got.numpy() - reference(odd, raw)).max() <= 1e-4


def test_export_leaves_the_model_alone(tmp_path: Path) -> None:
    model = make_model("global")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    export_onnx(model, tmp_path / "network.onnx")
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert model.network.training  # not even switched to evaluation


def test_file_declares_what_old_runtimes_read(tmp_path: Path) -> None:
    export_onnx(make_model("online"), tmp_path / "network.onnx", {"language": "en"})
    proto = onnx.load(tmp_path / "network.onnx")
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 13)
    facts = {item.key: item.value for item in proto.metadata_props}
    assert facts["cmvn"] == "online" and facts["num_pdfs"] == str(PDFS) and facts["language"] == "en"


def test_speaker_cmvn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not know the speaker"):
        export_onnx(make_model("speaker"), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_bad_files_and_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        OnnxModel(tmp_path)
    (tmp_path / "network.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match="not a readable ONNX network"):
        OnnxModel(tmp_path)
    export_onnx(make_model("global"), tmp_path / "network.onnx")
    with pytest.raises(UserError, match="40 coefficients"):
        OnnxModel(tmp_path).log_likelihoods(UtteranceFeatures(torch.zeros(5, 23)))
    empty = OnnxModel(tmp_path).log_likelihoods(UtteranceFeatures(torch.zeros(0, 40)))
    assert empty.shape == (0, PDFS)
