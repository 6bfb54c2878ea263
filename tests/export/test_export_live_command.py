"""`asr-distill transcribe DIR --stream`: what it prints of what comes through its standard input."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile
import soxr

from asr_distill.errors import UserError
from asr_distill.export import live_command
from asr_distill.export.live import FinalText, PartialText
from asr_distill.export.pcm import read_pcm, resampled, resampler_delay
from asr_distill.export.transcribe_command import add_arguments, run

RATE = 16000
LONG = 300  # seconds that a loaded machine may take to start a process


def pcm(samples: np.ndarray) -> bytes:
    return (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()


@pytest.fixture
def stream(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command in this process with these bytes on its standard input."""
    def call(sound: bytes, *arguments: object) -> int:
        (tmp_path / "sound.raw").write_bytes(sound)
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        with open(tmp_path / "sound.raw", "rb") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", file)
            return run(parser.parse_args([str(toy.directory), "--stream", *map(str, arguments)]))
    return call


def test_text_on_a_pipe(toy, stream: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    spoken = toy.speech.say(("NO", "UP", "YES"), seed=2)
    assert stream(pcm(spoken.samples)) == 0
    told = capsys.readouterr()
    *partials, final = told.out.splitlines()
    assert final == "NO UP YES" and partials[-1] == "NO UP YES ..." and "NO ..." in partials
    assert all(line.endswith(" ...") for line in partials) and len(set(partials)) == len(partials)
    assert told.err == "listening at 16,000 Hz; a sound's text can come 98 ms after it at the latest " \
                       "(block 60, look-ahead 30)\n"


def test_json_on_a_pipe(toy, stream: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = toy.speech.say(("NO", "UP"), seed=2), toy.speech.say(("STOP",), seed=3)
    pause = np.random.default_rng(0).normal(0, 0.002, RATE).astype(np.float32)
    assert stream(pcm(np.concatenate([first.samples, pause, second.samples, pause])), "--json", "--block", 100) == 0
    begin, *events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert begin == {"stream": {"rate": RATE, "block_ms": 100.0, "look_ahead_ms": 30.0, "latency_ms": 137.5,
                                "resampler_ms": 0.0}}
    finals = [event for event in events if "final" in event]
    assert [final["final"] for final in finals] == ["NO UP", "STOP"]
    assert set(finals[0]) == {"final", "start", "end", "cause", "words"} and finals[0]["cause"] == "rule2"
    assert [word["word"] for word in finals[0]["words"]] == ["NO", "UP"]
    assert set(finals[0]["words"][0]) == {"word", "start", "end", "confidence"}
    assert all(set(event) == {"partial", "time"} for event in events if "final" not in event)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_are_resampled(toy, stream: Callable[..., int], capsys: pytest.CaptureFixture[str],
                                   rate: int) -> None:
    spoken = toy.speech.say(("STOP", "YES", "NO"), seed=4)
    assert stream(pcm(soxr.resample(spoken.samples, RATE, rate)), "--rate", rate) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "STOP YES NO"
    held = 1000 * resampler_delay(rate, RATE)
    assert 10 < held < 200 and f"{97.5 + held:.0f} ms after it" in told.err and f"resampler {held:.0f})" in told.err


def test_half_a_sample_at_the_end_is_told(toy, stream: Callable[..., int], capsys: pytest.CaptureFixture[str],
                                          caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "asr_distill"):
        assert stream(pcm(toy.speech.say(("UP", "NO"), seed=5).samples) + b"\x01") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "UP NO"


def test_no_sound_no_text(stream: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for sound in (b"", b"\x00", bytes(2), bytes(2 * RATE)):
        assert stream(sound) == 0 and capsys.readouterr().out == ""
    assert stream(b"", "--json") == 0 and list(json.loads(capsys.readouterr().out)) == ["stream"]


@pytest.mark.parametrize(("arguments", "wanted"), [
    (["a.wav"], "takes no files"), (["--rate", "10"], "1000 to 384000"), (["--block", "0"], "above 0"),
    (["--pause", "-1"], "negative"), (["--block", "nan"], "above 0"), (["--block", "3"], "at least 10 ms"),
    (["--pause", "inf"], "number of seconds"), (["--pause", "nan"], "number of"), (["--jobs", "2"], "is for sound"),
    (["--threads", "0"], "at least 1"), (["--srt"], "is for sound files"), (["--nbest", "3"], "is for sound files")])
def test_wrong_arguments_are_refused(stream: Callable[..., int], arguments: list[str], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        stream(b"", *arguments)


@pytest.mark.parametrize(("begin", "kind"), [(b"RIFF\x24\x08\x00\x00WAVE", "wav"), (b"fLaC\x00", "flac"),
                                             (b"OggS", "ogg"), (b"ID3", "mp3"), (b".snd\x00", "au"),
                                             (b"caff\x00", "caf"), (b"\x00\x00\x00\x20ftypM4A ", "mp4"),
                                             (b"\x1aE\xdf\xa3", "webm")])
def test_sound_files_are_no_streams(stream: Callable[..., int], begin: bytes, kind: str) -> None:
    with pytest.raises(UserError, match=f"an? {kind} file"):
        stream(begin)


@pytest.mark.parametrize(("subtype", "rate"), [("MPEG_LAYER_III", 44100), ("MPEG_LAYER_III", 16000),
                                               ("MPEG_LAYER_III", 8000)])
def test_mp3_without_a_tag_is_no_stream(stream: Callable[..., int], tmp_path: Path, subtype: str, rate: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, rate)
    soundfile.write(tmp_path / "a.mp3", noise, rate, format="MP3", subtype=subtype)
    sound = (tmp_path / "a.mp3").read_bytes()
    if sound.startswith(b"ID3"):
        size = sum((byte & 0x7F) << shift for byte, shift in zip(sound[6:10], (21, 14, 7, 0), strict=True))
        sound = sound[10 + size:]
    assert sound[0] == 0xFF
    with pytest.raises(UserError, match="an mp3 file"):
        stream(sound)


def test_samples_that_begin_as_a_frame_of_mp3_are_samples() -> None:
    """1 in 300 streams of noise does; none of them is refused, and none loses a sample."""
    head = b"\xff\xfb\x90\x00"
    for size in (0, 100, 20_000):
        sound = head + np.random.default_rng(size).integers(-32768, 32768, size).astype("<i2").tobytes()
        reading, writing = os.pipe()
        os.write(writing, sound)
        os.close(writing)
        found = np.concatenate([*read_pcm(reading)])
        os.close(reading)
        assert (found * 32768).astype("<i2").tobytes() == sound


def test_the_resamplers_delay_is_what_it_holds_back() -> None:
    assert resampler_delay(RATE, RATE) == 0.0
    for rate in (8000, 48000):
        heard = rate // 2
        given = len(next(resampled(iter([np.ones(heard, np.float32)]), rate, RATE))) / RATE
        assert 0 < heard / rate - given <= resampler_delay(rate, RATE) + 1e-9


def test_options_of_streams_are_not_for_files(toy, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, value in (("rate", "8000"), ("block", "60"), ("pause", "0")):
        with pytest.raises(UserError, match=f"--{name} is for --stream"):
            run(parser.parse_args([str(toy.directory), str(tmp_path), f"--{name}", value]))


def test_without_a_stream_files_are_needed(toy) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UserError, match="no sound files given"):
        run(parser.parse_args([str(toy.directory)]))
    parsed = parser.parse_args(["there", "--json", "a.wav", "b.wav"])
    assert [path.name for path in parsed.files] == ["a.wav", "b.wav"]


def test_samples_come_through_a_pipe_in_any_pieces(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    wanted = np.random.default_rng(0).integers(-32768, 32768, 500).astype("<i2")
    data, found = wanted.tobytes() + b"\x07", []
    samples = read_pcm(reading)
    sent = 0
    with caplog.at_level(logging.WARNING, "asr_distill"):
        for size in (1, 1, 3, 2, 1, 400, 5, len(data)):
            os.write(writing, data[sent:sent + size])
            sent += size
            if sent >= 4 and size > 1:  # else there may be no whole sample to wait for
                found.append(next(samples))
        os.close(writing)
        found += samples
    os.close(reading)
    np.testing.assert_array_equal(np.concatenate(found), wanted.astype(np.float32) / 32768)
    assert ["half a sample" in record.message for record in caplog.records] == [True]


def test_resampling_in_blocks_is_resampling_at_once() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    blocks = [samples[begin:begin + 333] for begin in range(0, len(samples), 333)]
    found = np.concatenate([*resampled(iter(blocks), 44100, RATE)])
    wanted = soxr.resample(samples, 44100, RATE)
    assert abs(len(found) - len(wanted)) <= 1
    np.testing.assert_allclose(found[:len(wanted)], wanted[:len(found)], atol=1e-4)
    assert all(one is other for one, other in zip(resampled(iter(blocks), RATE, RATE), blocks, strict=True))


def test_a_terminal_line_is_written_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_command.shutil, "get_terminal_size", lambda: os.terminal_size((11, 24)))
    show = live_command._Lines(terminal=True)
    show(PartialText("ONE", 0.5))
    show(PartialText("ONE TWO THREE", 1.0))
    show(FinalText("ONE TWO THREE", 0.0, 2.0, "rule2", ()))
    assert capsys.readouterr().out == "\r\x1b[KONE\r\x1b[K TWO THREE\r\x1b[KONE TWO THREE\n"


@contextmanager
def started(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """The command in a process of its own, its standard input and output; killed where it hangs, and at the end."""
    command = [sys.executable, "-m", "asr_distill.cli", "transcribe", str(directory), "--stream", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          bufsize=0) as process:
        watch = threading.Timer(LONG, process.kill)
        watch.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            yield process, process.stdin, process.stdout
        finally:
            watch.cancel()
            process.kill()


@pytest.mark.slow
def test_ctrl_c_prints_what_there_is(toy) -> None:
    spoken = toy.speech.say(("YES", "NO", "UP", "STOP"), seed=6)
    pause = np.random.default_rng(0).normal(0, 0.002, RATE // 5).astype(np.float32)
    with started(toy.directory) as (process, stdin, stdout):
        stdin.write(pcm(np.concatenate([spoken.samples[:int(spoken.ends[1] * RATE)], pause])))
        while (line := stdout.readline()) != b"YES NO ...\n":
            assert line
        process.send_signal(signal.SIGINT)
        process.wait(LONG)  # though its standard input is still open
        assert stdout.read().splitlines()[-1:] == [b"YES NO"] and process.returncode == 130
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_without_a_traceback(toy) -> None:
    sound = pcm(np.concatenate([toy.speech.say(("YES", "NO"), seed=7).samples] * 3))
    with started(toy.directory, "--json") as (process, stdin, stdout):
        assert b"stream" in stdout.readline()
        stdout.close()
        while process.poll() is None:
            try:
                stdin.write(sound)
            except BrokenPipeError:
                break
        assert process.wait(LONG) == 1
        errors = process.stderr.read() if process.stderr else b"?"
        assert b"Traceback" not in errors and b"BrokenPipe" not in errors and errors != b"?"
