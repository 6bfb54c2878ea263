"""Many recordings at once: order, errors among them, files of results, Ctrl-C, memory."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from asr_distill.errors import UserError
from asr_distill.export.batch import Watch, transcribe_all
from asr_distill.export.recordings import Recording, find_recordings
from asr_distill.export.transcribe import Transcriber
from asr_distill.export.transcribe_command import add_arguments, run

RATE = 16000


@pytest.fixture(scope="module")
def transcriber(toy) -> Transcriber:
    return Transcriber(toy.directory)


@pytest.fixture(scope="module")
def talks(toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files in two folders; the text of each is in texts.json."""
    root = tmp_path_factory.mktemp("talks")
    texts = {}
    for index, spoken in enumerate(toy.speech.utterances(8, seed=21)):
        path = root / ("x" if index % 2 else "y") / f"{index}.{'wav' if index % 3 else 'flac'}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, spoken.samples, RATE)
        texts[str(path)] = " ".join(spoken.words)
    (root / "texts.json").write_text(json.dumps(texts))
    return root


def texts_of(talks: Path) -> dict[str, str]:
    return json.loads((talks / "texts.json").read_text())


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize("jobs", [1, 3])
def test_outcomes_come_in_order(transcriber: Transcriber, talks: Path, jobs: int) -> None:
    recordings = find_recordings([talks])
    recordings.insert(3, Recording(talks / "none.wav", "none"))
    outcomes = list(transcribe_all(transcriber, recordings * 9, jobs=jobs, word_times=False))
    assert [outcome.recording for outcome in outcomes] == recordings * 9
    for outcome in outcomes:
        if outcome.recording.name == "none":
            assert outcome.transcript is None and "no such sound file" in str(outcome.error)
        else:
            assert outcome.transcript and outcome.transcript.text == texts_of(talks)[str(outcome.recording.path)]


def test_threads_find_what_one_finds(transcriber: Transcriber, talks: Path) -> None:
    def found(jobs: int) -> list:
        return [(outcome.transcript.words, outcome.transcript.nbest) for outcome in
                transcribe_all(transcriber, find_recordings([talks]), jobs=jobs, nbest=4) if outcome.transcript]

    assert found(4) == found(1) and len(found(1)) == 8


def test_only_so_many_run_ahead(transcriber: Transcriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_distill.export.batch.AHEAD", 3)
    started: list[str] = []
    plain = transcriber.transcribe
    monkeypatch.setattr(transcriber, "transcribe",
                        lambda path, **settings: (started.append(path.name), plain(path, **settings))[1])
    outcomes = transcribe_all(transcriber, find_recordings([talks]) * 4, jobs=2, word_times=False)
    next(outcomes)
    deadline = time.monotonic() + 60
    while len(started) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # for more of them, were they not held back
    assert len(started) == 6
    outcomes.close()  # nobody wants the rest
    assert len(started) == 6


def test_folder_of_results(toy, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command(toy.directory, talks, "--out", out) == 0
    texts = texts_of(talks)
    written = sorted(path for path in out.rglob("*") if path.is_file())
    assert {path.relative_to(out).with_suffix("").as_posix(): path.read_text() for path in written} == {
        Path(path).relative_to(talks).with_suffix("").as_posix(): text + "\n" for path, text in texts.items()}
    assert all(path.suffix == ".txt" for path in written) and capsys.readouterr().out == ""

    written[0].write_text("kept")  # a second run leaves what is there, and does what is missing
    written[1].unlink()
    assert command(toy.directory, talks, "--out", out, "--jobs", 2) == 0
    assert written[0].read_text() == "kept" and written[1].is_file()
    assert "7 of 8 recordings" in capsys.readouterr().err
    assert command(toy.directory, talks, "--out", out, "--force") == 0
    assert written[0].read_text() != "kept"
    assert command(toy.directory / "nowhere", talks, "--out", out) == 0  # nothing left to do: nothing is opened


@pytest.mark.parametrize("form", ["json", "srt", "ctm"])
def test_every_form_as_files(toy, talks: Path, tmp_path: Path, form: str) -> None:
    assert command(toy.directory, talks / "x", "--out", tmp_path, f"--{form}") == 0
    texts = texts_of(talks)
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == [f"{index}.{form}" for index in (1, 3, 5, 7)]
    for path in found:
        words = next(text for name, text in texts.items() if Path(name).stem == path.stem).split()
        content = path.read_text()
        if form == "json":
            assert [word["word"] for word in json.loads(content)["words"]] == words
        elif form == "ctm":
            rows = [line.split() for line in content.splitlines()]
            assert [row[4] for row in rows] == words and {row[0] for row in rows} == {path.stem}
            assert all(0 < float(row[5]) <= 1 and float(row[3]) > 0 for row in rows)
        else:
            assert [word for line in content.splitlines() if line.isupper() for word in line.split()] == words


def test_a_damaged_file_among_others(toy, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "in" / "bad.flac"
    bad.parent.mkdir()
    bad.write_bytes((talks / "y" / "0.flac").read_bytes()[:2000])
    out = tmp_path / "out"
    assert command(toy.directory, bad.parent, talks / "x", "--out", out, "--jobs", 2) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"asr-distill: error: {bad}: not a readable sound file")
    assert sorted(path.name for path in out.iterdir()) == ["1.txt", "3.txt", "5.txt", "7.txt"]
    assert command(toy.directory, bad.parent, talks / "x", "--out", out) == 1  # it is tried again


def test_settings_that_do_not_go_together(toy, talks: Path, tmp_path: Path) -> None:
    for arguments, message in (
            ([talks, "--srt"], "add --out FOLDER"), ([talks, "--ctm", "--nbest", "2"], "no place for n best"),
            ([talks, "--jobs", "-1"], "must not be negative"), ([talks, "--force"], "--force goes with --out"),
            ([talks, "--threads", "0"], "must be at least 1"), ([toy.directory], "no sound files"),
            ([talks, "--out", talks / "texts.json"], "is a file"),
            (["--stream", "--srt"], "--srt is for sound files"), ([], "no sound files given")):
        with pytest.raises(UserError, match=message):
            command(toy.directory, *arguments)
    with pytest.raises(SystemExit):
        command(toy.directory, talks, "--srt", "--ctm")


def test_names_told_apart_and_names_that_are_no_text(toy, talks: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x/a.wav", "y/a.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((talks / "x" / "1.wav").read_bytes())
    with pytest.raises(UserError, match="both would be called 'a'"):
        command(toy.directory, tmp_path / "x", tmp_path / "y", "--ctm")
    assert command(toy.directory, tmp_path, "--ctm") == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"x/a", "y/a"}
    (tmp_path / "x" / "a b.wav").write_bytes(b"")
    (tmp_path / "x" / "a_b.wav").write_bytes(b"")
    with pytest.raises(UserError, match="both would be called 'a_b'; rename one"):
        command(toy.directory, tmp_path / "x", "--ctm")
    for name in ("a b", "a_b"):
        (tmp_path / "x" / f"{name}.wav").unlink()
    odd = Path(os.fsdecode(b"M\xfcll.wav"))
    (tmp_path / "x" / "a.wav").rename(tmp_path / "x" / odd)
    (tmp_path / "x" / os.fsdecode(b"\xff.wav")).write_bytes(b"none")
    for form in ("--json", "--ctm"):
        assert command(toy.directory, tmp_path / "x", "--out", tmp_path / "out", form) == 1
        assert command(toy.directory, tmp_path / "x", form) == 1
        assert capsys.readouterr().out.encode()
    assert json.loads((tmp_path / "out" / odd.with_suffix(".json")).read_text())["file"].endswith("/x/M\ufffdll.wav")
    assert (tmp_path / "out" / odd.with_suffix(".ctm")).read_text().startswith("M\ufffdll 1 ")


def test_n_best(toy, talks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = texts_of(talks)
    assert command(toy.directory, talks, "--json", "--nbest", 3) == 0
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert line["nbest"][0]["text"] == line["text"] == texts[line["file"]]
        assert len({each["text"] for each in line["nbest"]}) == len(line["nbest"]) <= 3
        assert 0 < sum(each["posterior"] for each in line["nbest"]) <= 1.0001
        assert [each["cost"] for each in line["nbest"]] == sorted(each["cost"] for each in line["nbest"])
    assert command(toy.directory, talks / "x", "--nbest", 2) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[3] for row in rows if row[1] == "1"] == [texts[row[0]] for row in rows if row[1] == "1"]
    assert len([row for row in rows if row[1] == "1"]) == 4


def test_progress_is_for_terminals_alone(talks: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    recordings = find_recordings([talks])
    with Watch(recordings) as watch:
        watch.advance(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Watch(recordings) as watch:
        for recording in recordings:
            watch.advance(recording.seconds())
    told = capsys.readouterr().err
    total = f"{sum(recording.seconds() for recording in recordings):,.0f}"
    assert f"transcribe: {total}/{total} s of audio" in told and "in all" in told


STUCK = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell has set
from asr_distill.export.transcribe import Transcriber
plain = Transcriber.transcribe
def transcribe(self, path, **settings):
    if path.name == "b.wav":
        os.write(1, b"stuck\\n")  # whole: print writes a line's end apart, and the other thread's line may come between
        threading.Event().wait()
    return plain(self, path, **settings)
Transcriber.transcribe = transcribe
from asr_distill.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_at_once(toy, tmp_path: Path) -> None:
    """Though a thread is in the middle of something that never ends; what was finished stays."""
    for name, words in (("a", ("YES", "NO")), ("b", ("UP",))):
        soundfile.write(tmp_path / f"{name}.wav", toy.speech.say(words, seed=2).samples, RATE)
    child = subprocess.Popen(
        [sys.executable, "-c", STUCK, "transcribe", str(toy.directory), str(tmp_path / "a.wav"),
         str(tmp_path / "b.wav")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout
        lines = [child.stdout.readline(), child.stdout.readline()]
        assert sorted(lines) == sorted([f"{tmp_path / 'a.wav'}\tYES NO\n", "stuck\n"])
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=120)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert errors.splitlines()[-1].startswith("asr-distill: error: interrupted") and "Traceback" not in errors


PEAK = """
import resource, sys
from pathlib import Path
from asr_distill.export.transcribe import Transcriber
transcriber = Transcriber(Path(sys.argv[1]))
for path in sys.argv[2:]:
    text = transcriber.transcribe(Path(path), nbest=3).text
    print(len(text.split()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(toy, tmp_path: Path) -> None:
    """8 minutes of stereo at 44.1 kHz: 169 MB as samples, of which at most some seconds are in memory."""
    rate, minutes = 44100, 8
    parts, words = [], 0
    for spoken in toy.speech.utterances(40, seed=31):
        parts += [spoken.samples, np.random.default_rng(0).normal(0, 0.002, RATE // 2).astype(np.float32)]
        words += len(spoken.words)
    minute = soxr.resample(np.concatenate(parts), RATE, rate)
    repeats = round(minutes * 60 * rate / len(minute))
    stereo = np.repeat(minute[:, None], 2, 1)
    soundfile.write(tmp_path / "short.flac", stereo, rate)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", rate, 2) as file:
        for _ in range(repeats):
            file.write(stereo)
    done = subprocess.run([sys.executable, "-c", PEAK, str(toy.directory), str(tmp_path / "short.flac"),
                           str(tmp_path / "long.flac")], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    (short, before), (long, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert short == words and abs(long - words * repeats) <= 0.02 * words * repeats
    assert after - before < 80e6
