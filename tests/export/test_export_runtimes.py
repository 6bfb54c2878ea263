"""Real speech in stock runtimes: a small student, exported, hears there what our own decoder hears."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import soundfile

from asr_distill.export.devset import DevSet, DevUtterance
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import Measured, export, measure, settings_of
from asr_distill.export.source import Source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student(librispeech: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from real_student import small_student

    return small_student(librispeech, shared, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def source(student: Any) -> Source:
    return Source.open(student.recogniser)


@pytest.fixture(scope="module")
def dev(student: Any) -> DevSet:
    return DevSet("slice", tuple(DevUtterance(id, audio, words, "") for id, audio, words in student.utterances))


@pytest.fixture(scope="module")
def own(source: Source, dev: DevSet) -> Measured:
    found = measure(exporter_of("onnx"), source, source.directory, dev)
    right = sum(found.words[id] == words for id, words in dev.references.items())
    assert right >= 0.8 * len(dev.utterances), "a student that has learned nothing proves nothing"
    return found


def same(one: Measured, other: Measured) -> int:
    return sum(one.words[id] == words for id, words in other.words.items())


@pytest.mark.parametrize(("target", "least"), [("onnx", 1.0), ("sherpa-onnx", 1.0), ("vosk", 0.9)])
def test_runtime_agrees_with_our_own_decoder(source: Source, dev: DevSet, own: Measured, tmp_path: Path,
                                             target: str, least: float) -> None:
    """Vosk prunes its lattice and ends utterances in pauses: near ties may fall the other way."""
    exporter = exporter_of(target)
    for name in exporter.runtime:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    made = export(source, target, tmp_path / target, settings_of(exporter, []), dev=dev, force=True, reference=own)
    found = measure(exporter, source, tmp_path / target, dev)
    assert same(own, found) >= least * len(dev.utterances)
    assert made["figures"]["score"]["words"] == sum(map(len, dev.references.values()))


def test_npm_package_agrees_with_our_own_decoder(source: Source, dev: DevSet, own: Measured, student: Any,
                                                 tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("needs node and npm")
    installed = subprocess.run([npm, "install", "--no-audit", "--no-fund", "sherpa-onnx@1.13.8"], cwd=tmp_path,
                               capture_output=True, text=True, check=False, env=os.environ | {"CI": "1"})
    if installed.returncode:
        pytest.skip(f"npm cannot install sherpa-onnx: {installed.stderr.strip().splitlines()[-1:]}")
    export(source, "sherpa-onnx", tmp_path / "model", settings_of(exporter_of("sherpa-onnx"), []))
    files = []
    for id, audio, _ in student.utterances[:3]:
        samples, rate = soundfile.read(audio, dtype="int16")
        soundfile.write(tmp_path / f"{id}.wav", samples, rate)
        files.append(tmp_path / f"{id}.wav")
    done = subprocess.run([node, str(tmp_path / "model" / "transcribe.cjs"), *map(str, files)], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{file}\t{' '.join(own.words[file.stem])}" for file in files]
