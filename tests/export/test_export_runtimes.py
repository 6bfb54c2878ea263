"""Real speech in stock runtimes: a small student, exported, hears there what our own decoder hears."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from chromium import Chromium, chromium

from asr_distill.export.devset import DevSet, DevUtterance
from asr_distill.export.exporter import exporter_of
from asr_distill.export.exporting import Measured, export, measure, settings_of
from asr_distill.export.source import Source

pytestmark = pytest.mark.slow


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


def install(package: str, folder: Path) -> None:
    """An npm package into a folder; skips the test where npm is missing or has none."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("needs node and npm")
    done = subprocess.run([npm, "install", "--no-audit", "--no-fund", package], cwd=folder, capture_output=True,
                          text=True, check=False, env=os.environ | {"CI": "1"}, stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode:
        pytest.skip(f"npm cannot install {package}: {done.stderr.strip().splitlines()[-1:]}")


def test_npm_package_agrees_with_our_own_decoder(source: Source, dev: DevSet, own: Measured, student: Any,
                                                 tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node and npm")
    install("sherpa-onnx@1.13.8", tmp_path)
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


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over HTTP on this machine."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def state(browser: Chromium, *wanted: str) -> None:
    browser.wait(f"document.body && {list(wanted)}.includes(document.body.dataset.state)")


def hear(browser: Chromium, audio: Path) -> list[str]:
    """Give the page a file; the words that it then shows more than before."""
    before = browser.ask("document.querySelectorAll('#text p').length")
    root = browser.send("DOM.getDocument")["root"]["nodeId"]
    field = browser.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.ask("document.body.dataset.state = 'chosen'")
    browser.send("DOM.setFileInputFiles", files=[str(audio)], nodeId=field)
    state(browser, "done", "failed")
    assert browser.ask("document.getElementById('problem').textContent") == ""
    lines = f"[...document.querySelectorAll('#text p')].slice({before} - 1)"
    return browser.ask(f"{lines}.map(line => line.textContent).join(' ')").split()


def test_page_in_a_browser_hears_what_vosk_hears_here(source: Source, dev: DevSet, tmp_path: Path) -> None:
    exporter = exporter_of("vosk")
    export(source, "vosk", tmp_path / "vosk", settings_of(exporter, ["page=true"]))
    page = tmp_path / "vosk" / "page"
    with chromium(tmp_path) as browser, served(page) as address:
        browser.send("DOM.enable")
        browser.send("Page.navigate", url=address)
        state(browser, "failed")
        assert "vosk.js is missing" in browser.ask("document.getElementById('problem').textContent")
        install("vosk-browser@0.0.8", tmp_path)
        shutil.copy(tmp_path / "node_modules" / "vosk-browser" / "dist" / "vosk.js", page)
        browser.send("Page.navigate", url=address)
        state(browser, "ready")
        here = measure(exporter, source, tmp_path / "vosk", DevSet("three", dev.utterances[:3]))
        there = {item.id: tuple(hear(browser, item.audio)) for item in dev.utterances[:3]}
        assert sum(there[id] == words for id, words in here.words.items()) >= 2  # the browser's Vosk is an older one
        kept = (page / "model.tar.gz").read_bytes()
        (page / "model.tar.gz").write_bytes(kept[:1000])
        browser.send("Storage.clearDataForOrigin", origin=address.removesuffix("/index.html"), storageTypes="all")
        browser.send("Page.navigate", url=address)
        state(browser, "failed")
        assert "copy the whole folder again" in browser.ask("document.getElementById('problem').textContent")
