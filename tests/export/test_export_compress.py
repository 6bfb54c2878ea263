"""Networks in fewer bytes: sizes, what they say, what stays in float, and the gate behind it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from test_export_kinds import KINDS, frames_of, model_of

from asr_distill.acoustic.network import NetworkConfig
from asr_distill.errors import UserError
from asr_distill.export import exporting
from asr_distill.export.compress import compress, divergences, layers
from asr_distill.export.devset import DevSet
from asr_distill.export.export_command import add_arguments, run
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import Measured, export, settings_of
from asr_distill.export.gate import GateConfig, judge
from asr_distill.export.onnx import export_onnx
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.export.source import Source
from asr_distill.features.cmvn import UtteranceFeatures

WIDE = NetworkConfig(kind="tdnn", layers=2, width=128, final=64, stride=3, norm="batch", skip=0.66)


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"features": frames_of(90, seed).numpy()[None]} for seed in range(3)]


@pytest.mark.parametrize(("precision", "bytes_a_weight", "far"), [
    ("float16", 2.0, 0.002), ("int8", 1.0, 0.06), ("int8-static", 1.0, 0.1)])
@pytest.mark.parametrize("kind", ["global", "online"])
def test_smaller_and_nearly_the_same(tmp_path: Path, precision: str, bytes_a_weight: float, far: float,
                                     kind: Any) -> None:
    model = model_of(WIDE, kind)
    path = tmp_path / "network.onnx"
    export_onnx(model, path)
    compress(path, precision, feeds=feeds())
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    assert bytes_a_weight * weights < path.stat().st_size < bytes_a_weight * weights + 40_000
    utterance = UtteranceFeatures(frames_of(200, 7))
    wanted, found = model.log_likelihoods(utterance), OnnxModel(path).log_likelihoods(utterance)
    assert 0 < (found - wanted).std() < far * wanted.std()
    proto = onnx.load(path)
    assert proto.ir_version == 8 and [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 13)]
    batch = np.stack([frames_of(60, seed).numpy() for seed in range(2)])  # batch and time are still free
    assert OnnxModel(path).session.run(None, {"features": batch})[0].shape[:2] == (2, 60)


def test_layers_stay_in_float_by_number(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(model_of(KINDS["tdnn"]), path)
    names = layers(onnx.load(path))
    assert [name.split("/")[2] for name in names] == ["front", "blocks.0", "blocks.1", "head", "output"]
    compress(path, "int8", keep=[0, 4])
    integer = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulInteger"]
    assert len(integer) == 3 and len(layers(onnx.load(path))) >= 2
    export_onnx(model_of(NetworkConfig(layers=3, width=32, left=4, right=2, norm="batch")), path)  # Gemm
    compress(path, "int8", keep=[1])
    assert sum(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node) == 3


def test_a_layer_that_hurts_is_found(tmp_path: Path) -> None:
    """Outputs whose weights differ by a factor of 10^4 within a row cannot be told in 256 steps."""
    model = model_of(WIDE)
    with torch.no_grad():
        model.network.output.weight.mul_(0.02)
        model.network.blocks[1].affine.layers[0].weight[:, :, 3] *= 300
    path = tmp_path / "network.onnx"
    export_onnx(model, path)
    found = divergences(path, "int8", feeds(), model.log_priors.numpy())
    assert [name for name, _ in found][2] == max(found, key=lambda item: item[1])[0]
    assert all(nats >= 0 for _, nats in found)


def test_wrong_precisions(tmp_path: Path) -> None:
    export_onnx(model_of(WIDE), tmp_path / "network.onnx")
    with pytest.raises(UserError, match="int8-static needs speech"):
        compress(tmp_path / "network.onnx", "int8-static")
    with pytest.raises(UserError, match="precision"):
        settings_of(exporter_of("onnx"), ["precision=int4"])


def test_gate_refuses_what_is_worse_by_more_than_the_margin() -> None:
    references = {f"{index}": tuple("abcdefghij") for index in range(60)}
    own = dict(references)
    worse = {id: words[:-1] if int(id) % 2 else words for id, words in references.items()}  # 5 points
    refused = judge(references, own, worse, GateConfig())
    assert refused.refused and not refused.unsure
    assert "+5.00 points" in refused.line() and "WER 5.00 % against the recogniser's 0.00 %" in refused.line()
    assert not judge(references, own, worse, GateConfig(margin=6.0)).refused
    assert not judge(references, worse, own, GateConfig()).refused  # better
    chance = judge(references, own, {**references, "0": tuple("abcdefg")}, GateConfig())
    assert chance.unsure and not chance.refused  # 0.5 points, all in one utterance


@pytest.fixture(scope="module")
def dev(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's speech in LibriSpeech's layout."""
    root = tmp_path_factory.mktemp("corpus") / "dev"
    (root / "7" / "1").mkdir(parents=True)
    lines = []
    for number, item in enumerate(toy.speech.utterances(30, seed=8)):
        soundfile.write(root / "7" / "1" / f"7-1-{number:04d}.flac", item.samples, 16000)
        lines.append(f"7-1-{number:04d} {' '.join(item.words)}\n")
    (root / "7" / "1" / "7-1.trans.txt").write_text("".join(lines))
    return root


def test_dev_set_from_a_folder(dev: Path, tmp_path: Path) -> None:
    opened = DevSet.open(dev, utterances=7)
    assert len(opened.utterances) == 7 and opened.utterances[0].speaker == "7"
    assert next(opened.speech(8000)).samples.dtype == np.float32
    (tmp_path / "ids").write_text("7-1-0003 7-1-0004")
    assert [item.id for item in DevSet.open(dev, ids=tmp_path / "ids").utterances] == ["7-1-0003", "7-1-0004"]
    with pytest.raises(UserError, match="no such"):
        DevSet.open(tmp_path / "nowhere")


def test_a_refused_export_leaves_nothing(toy: Any, dev: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    source, speech = Source.open(toy.directory), DevSet.open(dev)
    real = exporting.measure

    def spoiled(*arguments: Any) -> Measured:
        found = real(*arguments)
        return Measured({id: words[:-1] for id, words in found.words.items()}, found.rtf)

    own = real(exporter_of("onnx"), source, source.directory, speech)
    monkeypatch.setattr(exporting, "measure", spoiled)
    settings = settings_of(exporter_of("onnx"), [])
    with pytest.raises(UserError, match=r"refused: WER .* points .*p = .*--force"):
        export(source, "onnx", tmp_path / "out", settings, dev=speech, reference=own)
    assert not list(tmp_path.iterdir())
    made = export(source, "onnx", tmp_path / "out", settings, dev=speech, reference=own, force=True)
    assert made["figures"]["comparison"]["wer_difference"] > 10 and (tmp_path / "out" / "manifest.json").is_file()


def test_command_writes_measures_and_says_so(toy: Any, dev: Path, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = tmp_path / "network"
    words = [str(toy.directory), "--to", "onnx", "--out", str(out), "--precision", "int8", "--dev", str(dev)]
    assert run(parser.parse_args(words)) == 0
    assert str(out) in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["figures"]["dev"] == "dev" and manifest["figures"]["score"]["utterances"] == 30
    assert manifest["settings"]["precision"] == "int8" and manifest["facts"]["float_layers"] == []
    assert len((out / "README.md").read_text().splitlines()) == 3 and "on dev at export" in (
        out / "README.md").read_text()
    with pytest.raises(UserError, match="--margin"):
        run(parser.parse_args([*words, "--margin", "-1"]))
