"""Exports of the toy: what stock runtimes hear, what the manifest tells, and everything that can be wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr_distill.errors import UserError
from asr_distill.export.exporter import exporter_of, exporters
from asr_distill.export.exporting import export, settings_of
from asr_distill.export.manifest import new_directory, read_manifest
from asr_distill.export.onnx_model import OnnxModel
from asr_distill.export.source import Source, recogniser_in
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.fbank import FbankConfig

RATE = 16000
MODULES = {"sherpa-onnx": "sherpa_onnx", "vosk": "vosk"}


@pytest.fixture(scope="session")
def source(toy: Any) -> Source:
    return Source.open(toy.directory)


@pytest.fixture(scope="session")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directory of a target, written once."""
    root, done = tmp_path_factory.mktemp("exports"), {}

    def of(target: str) -> Path:
        if target not in done:
            export(source, target, root / target, settings_of(exporter_of(target), []))
            done[target] = root / target
        return done[target]

    return of


def needs(target: str) -> None:
    """Not imported here: Vosk's library waits for ever in a process that holds our Kaldi wheels."""
    if importlib.util.find_spec(MODULES[target]) is None:
        pytest.skip(f"needs {MODULES[target]}")


def transcribe(directory: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(directory / "transcribe.py"), *map(str, arguments)],
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["onnx", "sherpa-onnx", "vosk"])
def test_manifest_readme_and_digests(exported: Any, target: str) -> None:
    directory = exported(target)
    manifest = read_manifest(directory)
    assert manifest["kind"] == target and manifest["settings"]["precision"] == "float32"
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == present - {"manifest.json"}
    assert len((directory / "README.md").read_text().splitlines()) == 3
    assert not list(directory.parent.glob(f".{target}*"))


def test_what_is_folded_into_the_network_is_a_setting(source: Source, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(-6, 2, (1, 50, 40)).astype(np.float32)
    given, read = {}, {}
    for name, overrides in {"plain": [], "posteriors": ["priors=false"], "scaled": ["scaled=true"]}.items():
        export(source, "onnx", tmp_path / name, settings_of(exporter_of("onnx"), overrides))
        model = OnnxModel(tmp_path / name)
        given[name] = model.session.run(None, {"features": frames})[0][0]
        read[name] = model.log_likelihoods(UtteranceFeatures(torch.from_numpy(frames[0]))).numpy()
    priors = source.model.log_priors.numpy()
    np.testing.assert_allclose(given["posteriors"], given["plain"] + priors, atol=1e-4)
    np.testing.assert_allclose(np.exp(given["posteriors"]).sum(1), 1, atol=1e-4)
    np.testing.assert_allclose(given["scaled"], given["plain"] * source.search.acoustic_scale, atol=1e-4)
    for found in read.values():  # our own decoder takes all three alike
        np.testing.assert_allclose(found, given["plain"], atol=1e-4)


def test_targets_are_found_by_being_there() -> None:
    assert set(exporters()) == {"onnx", "sherpa-onnx", "vosk"}
    with pytest.raises(UserError, match=r"no export target 'sherpa' \(did you mean 'sherpa-onnx'\?\)"):
        exporter_of("sherpa")


@pytest.mark.parametrize("target", list(MODULES))
def test_stock_runtime_hears_what_was_said(toy: Any, exported: Any, tmp_path: Path, target: str) -> None:
    needs(target)
    spoken = toy.speech.utterances(12, seed=7)
    for number, item in enumerate(spoken):
        soundfile.write(tmp_path / f"{number}.wav", item.samples, RATE)
    files = [tmp_path / f"{number}.wav" for number in range(12)]
    done = transcribe(exported(target), *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{file}\t{' '.join(item.words)}" for file, item in
                                        zip(files, spoken, strict=True)]
    if target == "sherpa-onnx":  # side by side, and another kind of file at another rate
        again = transcribe(exported(target), *files, "--batch", 5, "--json")
        assert [json.loads(line)["text"] for line in again.stdout.splitlines()] == [
            " ".join(item.words) for item in spoken]


@pytest.mark.parametrize("target", list(MODULES))
def test_long_recordings_are_cut_in_their_pauses(toy: Any, exported: Any, tmp_path: Path, target: str) -> None:
    needs(target)
    pause = np.random.default_rng(0).normal(0, 0.002, RATE // 2).astype(np.float32)
    spoken = toy.speech.utterances(60, seed=11)
    soundfile.write(tmp_path / "a.flac", np.concatenate([part for item in spoken for part in (item.samples, pause)]),
                    RATE)
    assert soundfile.info(tmp_path / "a.flac").duration > 130  # Vosk's round of 120 s is over too
    told = json.loads(transcribe(exported(target), tmp_path / "a.flac", "--json").stdout)
    assert told["text"].split() == [word for item in spoken for word in item.words]
    if target == "vosk":
        begun, ends = 0, []
        for item in spoken:
            ends += [begun / RATE + end for end in item.ends]
            begun += len(item.samples) + len(pause)
        assert np.abs(np.array([word["end"] for word in told["words"]]) - ends).max() < 0.06


def test_vosk_gives_word_times(toy: Any, exported: Any, tmp_path: Path) -> None:
    needs("vosk")
    spoken = toy.speech.say(("NO", "UP", "YES", "STOP"), seed=5)
    soundfile.write(tmp_path / "a.wav", spoken.samples, RATE)
    told = json.loads(transcribe(exported("vosk"), tmp_path / "a.wav", "--json").stdout)
    assert tuple(word["word"] for word in told["words"]) == spoken.words
    for word, end in zip(told["words"], spoken.ends, strict=True):
        assert word["end"] == pytest.approx(end, abs=0.04) and word["start"] < word["end"]


@pytest.mark.parametrize("target", list(MODULES))
@pytest.mark.parametrize("samples", [0, 10, 1600])
def test_next_to_no_audio_gives_no_words(exported: Any, tmp_path: Path, target: str, samples: int) -> None:
    needs(target)
    soundfile.write(tmp_path / "a.wav", np.zeros(samples, np.float32), RATE)
    done = transcribe(exported(target), tmp_path / "a.wav")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("target", list(MODULES))
def test_scripts_refuse_what_is_damaged_and_what_is_no_sound(exported: Any, tmp_path: Path, target: str) -> None:
    needs(target)
    copy = tmp_path / "copy"
    shutil.copytree(exported(target), copy)
    (tmp_path / "text.wav").write_text("no sound")
    done = transcribe(copy, tmp_path / "text.wav")
    assert done.returncode == 1 and "text.wav: not a readable" in done.stderr and "Traceback" not in done.stderr
    manifest = json.loads((copy / "manifest.json").read_text())
    name = next(name for name in manifest["files"] if name.endswith("HCLG.fst"))
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    done = transcribe(copy, tmp_path / "text.wav")
    assert done.returncode == 1 and "HCLG.fst: changed or damaged" in done.stderr
    (copy / name).unlink()
    assert "HCLG.fst: missing" in transcribe(copy, tmp_path / "text.wav").stderr
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 9}))
    assert "format version 9" in transcribe(copy, tmp_path / "text.wav").stderr
    (copy / "manifest.json").unlink()
    assert "manifest.json: cannot be read" in transcribe(copy, tmp_path / "text.wav").stderr
    (copy / "export_files.py").unlink()
    done = transcribe(copy, tmp_path / "text.wav")
    assert done.returncode == 1 and "export_files.py: missing" in done.stderr and "Traceback" not in done.stderr


def test_sources_are_checked_before_anything_is_made_of_them(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.directory, tmp_path / "copy")
    weights = bytearray((tmp_path / "copy" / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "copy" / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"weights.safetensors: changed or damaged"):
        Source.open(tmp_path / "copy")
    with pytest.raises(UserError, match="no such directory"):
        Source.open(tmp_path / "nowhere")


def test_an_export_is_no_recogniser(exported: Any) -> None:
    with pytest.raises(UserError, match=r"an export for sherpa-onnx, not a recogniser: run its script"):
        Source.open(exported("sherpa-onnx"))


def test_an_experiment_stands_for_its_recogniser(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.directory, tmp_path / "21_export" / "recogniser")
    assert Source.open(tmp_path).directory == tmp_path / "21_export" / "recogniser"
    shutil.copytree(toy.directory, tmp_path / "19_export" / "recogniser")  # of another version, made later
    (tmp_path / "30_export" / "recogniser").mkdir(parents=True)  # not finished
    for name, seconds in (("21", 1000), ("19", 2000)):
        os.utime(tmp_path / f"{name}_export" / "recogniser" / "manifest.json", (seconds, seconds))
    assert recogniser_in(tmp_path) == tmp_path / "19_export" / "recogniser"
    assert recogniser_in(toy.directory) == toy.directory and recogniser_in(tmp_path / "none") == tmp_path / "none"


def test_an_older_recogniser_without_weights(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.directory, tmp_path / "copy")
    path = tmp_path / "copy" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("model.json", "weights.safetensors"):
        del manifest["files"][name]
        (tmp_path / "copy" / name).unlink()
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"holds no model.json.*export stage again"):
        Source.open(tmp_path / "copy")


def test_a_new_directory_takes_the_place_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(RuntimeError), new_directory(tmp_path / "out"):
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]
    monkeypatch.chdir(tmp_path / "out")
    with new_directory(Path()) as work:
        (work / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_what_a_runtime_cannot_do_is_refused(source: Source, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="exists and is no earlier export"):
        export(source, "onnx", tmp_path / "mine", settings_of(exporter_of("onnx"), []))
    (tmp_path / "mine" / "manifest.json").write_text('{"name": "a web application"}')
    with pytest.raises(UserError, match="exists and is no earlier export"):
        export(source, "onnx", tmp_path / "mine", settings_of(exporter_of("onnx"), []))
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="a link; give the folder"):
        export(source, "onnx", tmp_path / "link", settings_of(exporter_of("onnx"), []))
    for holds in (source.directory, source.directory.parent):
        with pytest.raises(UserError, match="holds the recogniser that is exported"):
            export(source, "onnx", holds, settings_of(exporter_of("onnx"), []))
    assert (source.directory / "manifest.json").is_file()
    other = replace(source, features=FbankConfig(high_freq=-100))
    with pytest.raises(UserError, match="sherpa-onnx computes features with high_freq=-400"):
        export(other, "sherpa-onnx", tmp_path / "out", settings_of(exporter_of("sherpa-onnx"), []))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    with pytest.raises(UserError, match="block_ms"):
        settings_of(exporter_of("sherpa-onnx"), ["block_ms=1"])
