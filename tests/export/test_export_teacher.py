"""An exported network as a teacher: its posteriors at every temperature are those of the network it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from test_export_kinds import KINDS, PDFS, frames_of, model_of

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import NetworkConfig
from asr_distill.export.onnx import export_onnx
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.features.cmvn import UtteranceFeatures

SHAPES = {
    "feed_forward": NetworkConfig(layers=2, width=32, left=4, right=2, norm="batch"),
    "tdnn": KINDS["tdnn"],
    "streaming": NetworkConfig(kind="tdnn", layers=2, width=24, final=12, stride=3, norm="batch", front_left=3,
                               front_right=0, splices=((-1, 0), (-2, 0, 1))),
}


def sharpened(name: str) -> AcousticModel:
    """A network as sure of itself as a trained one: log posteriors down to about -60."""
    model = model_of(SHAPES[name], "online")
    with torch.no_grad():
        model.network.output.weight.mul_(6)
    return model


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 20.0])
def test_soft_targets_are_the_networks_own(tmp_path: Path, name: str, temperature: float) -> None:
    model = sharpened(name)
    export_onnx(model, tmp_path / "network.onnx")
    teacher: PosteriorModel = OnnxModel(tmp_path)
    assert (teacher.num_pdfs, teacher.device.type) == (PDFS, "cpu")
    utterance = UtteranceFeatures(frames_of(200))
    wanted = torch.log_softmax(model.logits(utterance).double() / temperature, 1)
    got = teacher.log_posteriors(utterance, temperature)
    assert got.shape == (200, PDFS) and got.dtype == torch.float32
    assert model.log_posteriors(utterance).min() < -40  # where a posterior at T = 1, not its log, would be 0
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-3 / temperature)
    assert (got.exp().sum(1) - 1).abs().max() < 1e-5
    for ours, theirs in zip(got.topk(4, 1), wanted.float().topk(4, 1), strict=True):  # what a soft-target store keeps
        agree = (ours.exp() - theirs.exp()).abs() < 1e-4 if ours.is_floating_point() else ours == theirs
        assert agree.float().mean() > 0.99


def test_it_is_one_of_several_teachers(tmp_path: Path) -> None:
    models = [sharpened("feed_forward"), sharpened("tdnn")]
    export_onnx(models[1], tmp_path / "network.onnx")
    utterance = UtteranceFeatures(frames_of(60))
    mixed = Ensemble([models[0], OnnxModel(tmp_path)], weights=(2.0, 1.0))
    torch.testing.assert_close(mixed.log_posteriors(utterance, 3.0),
                               Ensemble(models, weights=(2.0, 1.0)).log_posteriors(utterance, 3.0), rtol=0, atol=1e-3)


def test_its_fingerprint_is_the_files(tmp_path: Path) -> None:
    for name in ("feed_forward", "tdnn"):
        export_onnx(model_of(SHAPES[name]), tmp_path / name / "network.onnx")
    shutil.copytree(tmp_path / "tdnn", tmp_path / "moved")
    prints = {name: OnnxModel(tmp_path / name).fingerprint() for name in ("feed_forward", "tdnn", "moved")}
    assert prints["moved"] == prints["tdnn"] != prints["feed_forward"]
