"""The exported directory: what it holds, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from asr_distill.decode.decoder import SearchConfig
from asr_distill.errors import UserError
from asr_distill.export.bundle import Bundle
from asr_distill.export.transcribe import Transcriber
from asr_distill.features.fbank import FbankConfig
from asr_distill.hmm.model import monophone_model


@pytest.fixture
def copy(toy, tmp_path: Path) -> Path:
    shutil.copytree(toy.directory, tmp_path / "copy")
    return tmp_path / "copy"


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def accept(directory: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as an attacker or a careless hand would."""
    manifest = json.loads((directory / "manifest.json").read_text())
    data = (directory / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_manifest_holds_every_file_and_settings_come_back(toy) -> None:
    manifest = json.loads((toy.directory / "manifest.json").read_text())
    present = {path.name for path in toy.directory.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == present
    assert present >= {"network.onnx", "HCLG.fst", "words.txt", "lexiconp.txt", "hmm.json", "settings.json"}
    for name, entry in manifest["files"].items():
        data = (toy.directory / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    bundle = Bundle.load(toy.directory)
    assert bundle.features == FbankConfig() and bundle.search == SearchConfig(acoustic_scale=0.3)
    assert bundle.num_pdfs == 19 and bundle.cmvn["kind"] == "global"
    assert bundle.figures == {"wer": {"test": 1.25}} and "1.25 %" in (toy.directory / "README.md").read_text()
    assert toy.figures["bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())
    settings = json.loads((toy.directory / "settings.json").read_text())
    assert settings["acoustic_scale"] == 0.3 and settings["frame_shift_seconds"] == 0.01


def test_directory_can_be_moved(copy: Path) -> None:
    assert Transcriber(copy).model.num_pdfs == 19


@pytest.mark.parametrize("name", ["network.onnx", "HCLG.fst", "hmm.json", "words.txt", "settings.json"])
def test_missing_short_or_changed_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: changed or damaged"):
        Transcriber(copy)
    (copy / name).write_bytes(data[:-3])
    with pytest.raises(UserError, match=rf"{name}: .* bytes, not"):
        Transcriber(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        Transcriber(copy)


def test_the_graphs_digest_can_be_skipped_its_size_not(copy: Path) -> None:
    graph = bytearray((copy / "HCLG.fst").read_bytes())
    graph[-1] ^= 1
    (copy / "HCLG.fst").write_bytes(graph)
    Bundle.load(copy, check_graph=False)
    with pytest.raises(UserError, match="changed or damaged"):
        Bundle.load(copy)
    (copy / "HCLG.fst").write_bytes(graph[:-1])
    with pytest.raises(UserError, match="bytes, not"):
        Bundle.load(copy, check_graph=False)


def test_other_format_versions_are_refused(copy: Path) -> None:
    change_json(copy / "manifest.json", format_version=2)
    with pytest.raises(UserError, match=r"format version 2, this program reads 1; a newer asr-distill"):
        Bundle.load(copy)
    change_json(copy / "manifest.json", format_version=None)
    with pytest.raises(UserError, match="format version None"):
        Bundle.load(copy)


def test_wrong_settings_are_refused(copy: Path) -> None:
    settings = json.loads((copy / "settings.json").read_text())
    change_json(copy / "settings.json", search={**settings["search"], "beem": 3})
    accept(copy, "settings.json")
    with pytest.raises(UserError, match="beem"):
        Bundle.load(copy)
    del settings["features"]
    (copy / "settings.json").write_text(json.dumps(settings))
    accept(copy, "settings.json")
    with pytest.raises(UserError, match=r"settings.json: not of this form .*features"):
        Bundle.load(copy)


def test_manifest_cannot_point_outside(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": ""}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside the directory"):
        Bundle.load(copy)


def test_no_directory_and_no_manifest(copy: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        Bundle.load(copy / "nowhere")
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest.json in it"):
        Bundle.load(copy)


def test_parts_that_do_not_belong_together_are_refused(toy, tmp_path: Path) -> None:
    phones = toy.speech.hmm.phones
    with pytest.raises(UserError, match="two trees"):
        toy.export(tmp_path / "a", hmm=monophone_model(phones, states=2))
    with pytest.raises(UserError, match="two languages"):
        toy.export(tmp_path / "b", hmm=replace(toy.speech.hmm, phones=tuple(reversed(phones))))
    with pytest.raises(UserError, match=r"HCLG.fst: no such file; compile the graph"):
        toy.export(tmp_path / "c", graph_dir=tmp_path)
    assert not (tmp_path / "a").exists()
