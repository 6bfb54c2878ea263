"""An exported toy recogniser on sound files of every kind."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from asr_distill.cli import main
from asr_distill.errors import UserError
from asr_distill.export.transcribe import Transcriber
from asr_distill.export.transcribe_command import add_arguments, run
from asr_distill.export.word_spans import word_spans

RATE = 16000


@pytest.fixture(scope="module")
def transcriber(toy) -> Transcriber:
    return Transcriber(toy.directory)


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_words_of_unseen_utterances_are_found(toy, transcriber: Transcriber, tmp_path: Path) -> None:
    for index, spoken in enumerate(toy.speech.utterances(12, seed=7)):
        soundfile.write(tmp_path / f"{index}.wav", spoken.samples, RATE)
        transcript = transcriber.transcribe(tmp_path / f"{index}.wav")
        assert transcript.text == " ".join(spoken.words)
        assert transcript.seconds == pytest.approx(len(spoken.samples) / RATE) and transcript.rtf > 0


def test_words_that_were_only_begun_lie_evenly(transcriber: Transcriber) -> None:
    """A partial path's last word may need more frames than there are: the text still comes."""
    hmm, lang = transcriber.language
    spans = word_spans(torch.zeros(4, hmm.num_pdfs), ("NO", "STOP"), hmm, lang, transcriber.align_config)
    assert spans == [(0.0, 1.5), (1.5, 4.0)]


def test_word_times_equal_the_synthesis(toy, transcriber: Transcriber, tmp_path: Path) -> None:
    spoken = toy.speech.say(("NO", "UP", "YES", "STOP"), seed=5)
    soundfile.write(tmp_path / "a.wav", spoken.samples, RATE)
    words = transcriber.transcribe(tmp_path / "a.wav").words
    assert tuple(word.word for word in words) == spoken.words
    for word, end in zip(words, spoken.ends, strict=True):
        assert word.end == pytest.approx(end, abs=0.03) and word.start < word.end
        assert 0 < word.confidence <= 1
    assert all(first.end <= second.start for first, second in itertools.pairwise(words))
    assert transcriber.transcribe(tmp_path / "a.wav", word_times=False).words == ()


@pytest.mark.parametrize(("name", "rate", "channels"), [
    ("a.flac", 16000, 1), ("a.ogg", 16000, 1), ("a.wav", 8000, 1), ("a.wav", 44100, 1), ("a.flac", 48000, 2),
    ("a.wav", 22050, 3)])
def test_every_kind_of_file_gives_the_same_text(toy, transcriber: Transcriber, tmp_path: Path, name: str, rate: int,
                                                channels: int) -> None:
    spoken = toy.speech.say(("STOP", "YES", "YES", "UP", "NO"), seed=3)
    samples = soxr.resample(spoken.samples, RATE, rate)
    soundfile.write(tmp_path / name, np.repeat(samples[:, None], channels, 1), rate)
    assert transcriber.transcribe(tmp_path / name).text == "STOP YES YES UP NO"


@pytest.mark.parametrize("seconds", [0, 0.001, 0.1, 3])
def test_no_speech_no_words(transcriber: Transcriber, tmp_path: Path, seconds: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(int(seconds * RATE), np.float32), RATE)
    transcript = transcriber.transcribe(tmp_path / "a.wav")
    assert (transcript.text, transcript.words) == ("", ())
    noise = np.random.default_rng(0).normal(0, 0.002, int(seconds * RATE))
    soundfile.write(tmp_path / "b.wav", noise.astype(np.float32), RATE)
    assert transcriber.transcribe(tmp_path / "b.wav").text == ""


def test_long_file_is_transcribed_in_pieces_with_times_of_the_whole(toy, transcriber: Transcriber,
                                                                    tmp_path: Path) -> None:
    pause = np.random.default_rng(0).normal(0, 0.002, RATE // 2).astype(np.float32)
    parts, words, ends, length = [], [], [], 0
    for spoken in toy.speech.utterances(50, seed=11):
        parts += [spoken.samples, pause]
        words += spoken.words
        ends += [length / RATE + end for end in spoken.ends]
        length += len(spoken.samples) + len(pause)
    soundfile.write(tmp_path / "a.flac", np.concatenate(parts), RATE)
    assert length > 65 * RATE
    transcript = transcriber.transcribe(tmp_path / "a.flac")
    assert transcript.text.split() == words
    assert np.abs(np.array([word.end for word in transcript.words]) - ends).max() < 0.05


def test_command_prints_text_and_json(toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("a", ("YES", "NO")), ("b", ("UP",))):
        soundfile.write(tmp_path / f"{name}.wav", toy.speech.say(words, seed=2).samples, RATE)
    assert command(toy.directory, tmp_path / "a.wav") == 0
    assert capsys.readouterr().out == "YES NO\n"
    assert command(toy.directory, tmp_path / "a.wav", tmp_path / "b.wav") == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.wav\tYES NO\n{tmp_path}/b.wav\tUP\n"
    assert command(toy.directory, tmp_path / "b.wav", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["text"] == "UP" and told["words"][0]["word"] == "UP"
    assert set(told) == {"file", "text", "words", "seconds", "rtf"}
    assert set(told["words"][0]) == {"word", "start", "end", "confidence"}


def test_command_goes_on_after_an_unreadable_file(toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoken = toy.speech.say(("YES", "NO"), seed=2)
    soundfile.write(tmp_path / "good.flac", spoken.samples, RATE)
    data = (tmp_path / "good.flac").read_bytes()
    (tmp_path / "truncated.flac").write_bytes(data[:len(data) // 2])
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    files = [tmp_path / name for name in ("truncated.flac", "text.wav", "empty.wav", "none.wav", "good.flac")]
    assert command(toy.directory, *files) == 1
    told = capsys.readouterr()
    assert told.out == f"{tmp_path}/good.flac\tYES NO\n"
    errors = told.err.splitlines()
    assert len(errors) == 4 and all(str(file) in line for file, line in zip(files, errors, strict=False))
    assert command(toy.directory, *files, "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [("error" in line) for line in lines] == [True] * 4 + [False]


def test_silence_has_one_text_and_words_after_it_are_found(toy, transcriber: Transcriber, tmp_path: Path) -> None:
    silence = np.zeros(40 * RATE, np.float32)
    soundfile.write(tmp_path / "silence.wav", silence, RATE)
    assert transcriber.transcribe(tmp_path / "silence.wav", nbest=3).nbest == (("", 1.0, 0.0),)
    spoken = toy.speech.say(("YES", "NO"), seed=2)
    soundfile.write(tmp_path / "late.flac", np.concatenate([silence, spoken.samples]), RATE)
    late = transcriber.transcribe(tmp_path / "late.flac", nbest=3)
    assert late.text == late.nbest[0].text == "YES NO" and late.words[0].start > 40
    assert [word.end - 40 for word in late.words] == pytest.approx(spoken.ends, abs=0.05)


def test_samples_that_are_no_numbers(toy, tmp_path: Path) -> None:
    samples = toy.speech.say(("YES",), seed=2).samples
    samples[len(samples) // 2] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"a.wav: holds samples that are no numbers"):
        Transcriber(toy.directory).transcribe(tmp_path / "a.wav")


def test_a_damaged_recogniser_is_one_line(toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(toy.directory, tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "network.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "copy" / "network.onnx").write_bytes(data)
    soundfile.write(tmp_path / "a.wav", toy.speech.say(("YES",), seed=2).samples, RATE)
    for change in (lambda: None, (tmp_path / "copy" / "network.onnx").unlink):
        change()
        assert main(["transcribe", str(tmp_path / "copy"), str(tmp_path / "a.wav")]) == 1
        told = capsys.readouterr()
        assert told.out == "" and len(told.err.splitlines()) == 1 and "network.onnx" in told.err


def test_words_drowned_in_another_voice_are_unsure(toy, transcriber: Transcriber, tmp_path: Path) -> None:
    def sure(other: float) -> float:
        found: list[float] = []
        for index, spoken in enumerate(toy.speech.utterances(8, seed=41)):
            voice = toy.speech.say(tuple(reversed(spoken.words)), seed=index).samples
            mixed = spoken.samples + other * np.resize(voice, len(spoken.samples))
            soundfile.write(tmp_path / "a.wav", mixed.astype(np.float32), RATE, subtype="FLOAT")
            found += [word.confidence for word in transcriber.transcribe(tmp_path / "a.wav").words]
        return float(np.mean(found))

    assert sure(0.0) > sure(1.0)
