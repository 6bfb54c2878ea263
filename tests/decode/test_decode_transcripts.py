"""Readers of references and hypotheses, the error listing and the score command."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr_distill.decode.errors import aligned_lines, error_listing
from asr_distill.decode.score_command import add_arguments, run
from asr_distill.decode.transcripts import read_transcripts
from asr_distill.errors import UserError


def lhotse_cuts() -> CutSet:
    recording = Recording("r", [AudioSource("file", [0], "r.wav")], 16000, 48000, 3.0)
    late = SupervisionSegment("s2", "r", 1.5, 1.0, text="AGAIN", speaker="x")
    early = SupervisionSegment("s1", "r", 0.0, 1.0, text="HELLO  THERE", speaker="x")
    return CutSet.from_cuts([MonoCut("c1", 0, 3.0, 0, [late, early], recording=recording)])


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffu1 HELLO\tW\u00d6RLD\r\nu2\n\n u3  A \n".encode())
    assert read_transcripts(path).words == {"u1": ("HELLO", "WÖRLD"), "u2": (), "u3": ("A",)}


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "cuts.jsonl"])
def test_lhotse_cuts(tmp_path: Path, name: str) -> None:
    lhotse_cuts().to_file(tmp_path / name)
    found = read_transcripts(tmp_path / name)
    assert found.words == {"c1": ("HELLO", "THERE", "AGAIN")}
    assert found.speakers == {"c1": "x"}


def test_lhotse_supervisions_and_hypotheses(tmp_path: Path) -> None:
    path = tmp_path / "supervisions.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"id": "s1", "recording_id": "r", "text": "A B", "speaker": "z"}) + "\n")
    assert (read_transcripts(path).words, read_transcripts(path).speakers) == ({"s1": ("A", "B")}, {"s1": "z"})
    (tmp_path / "hypotheses.jsonl").write_text('{"id": "s1", "words": ["A"], "cost": 1.0}\n')
    assert read_transcripts(tmp_path / "hypotheses.jsonl").words == {"s1": ("A",)}


@pytest.mark.parametrize(("name", "data", "message"), [
    ("text", b"", "no utterances"),
    ("text", b"\n \n", "no utterances"),
    ("text", b"u1 a\nu1 b\n", "text:2: utterance u1 is there twice"),
    ("text", b"u1 \xff\n", "not UTF-8"),
    ("a.jsonl", b"{}\n", r"a\.jsonl:1: expected"),
    ("a.jsonl", b"[1]\n", r"a\.jsonl:1: expected"),
    ("a.jsonl", b'{"id": "a", "text": null}\n', r"a\.jsonl:1: expected"),
    ("a.jsonl.gz", b"plain", "not a readable gzip"),
    ("a.jsonl.gz", gzip.compress(b'{"id": "a", "text": "b"}\n')[:-9], "not a readable gzip"),
])
def test_bad_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_transcripts(tmp_path / name)


@pytest.mark.parametrize("name", ["none", "none.jsonl", "none.jsonl.gz"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_transcripts(tmp_path / name)


def test_aligned_lines() -> None:
    assert aligned_lines([("the", "the"), ("cat", "***"), ("sat", "satin"), ("***", "up")]) == (
        "REF:  the cat sat   ***",
        "HYP:  the *** satin up",
        "EVAL:     D   S     I")


def test_listing() -> None:
    references = {"u1": ["a", "b"], "u2": ["a", "b", "c"], "u3": ["d"]}
    hypotheses = {"u1": ["a", "x"], "u2": ["a", "x"], "u3": ["d"]}
    text = error_listing(references, hypotheses, speakers={"u1": "s", "u2": "t", "u3": "t"})
    assert "Confusions (reference -> hypothesis): 2 in all, 1 kinds\n     2  b -> x" in text
    assert "Deleted words: 1 in all, 1 kinds\n     1  c" in text
    assert " 50.00       1        2  s\n 50.00       2        4  t" in text
    assert "Utterances with errors: 2 of 3" in text
    assert text.index("u2  (2 errors, 3 words)") < text.index("u1  (1 errors, 2 words)")
    assert "HYP:  d" not in text


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref").write_text("u1 A B C D\nu2 A B\n")
    (tmp_path / "hyp").write_text("u1 a b x d\nu2 a b\n")
    (tmp_path / "hyp2").write_text("u1 A B C D\nu2 A B\n")
    (tmp_path / "utt2spk").write_text("u1 s1\nu2 s2\n")
    assert command(tmp_path / "ref", tmp_path / "hyp", "--ignore-case", "--listing", tmp_path / "list.txt") == 0
    assert "  16.67 " in capsys.readouterr().out
    assert "C -> X" in (tmp_path / "list.txt").read_text()
    assert command(tmp_path / "ref", tmp_path / "hyp", tmp_path / "hyp2", "--json",
                   "--speakers", tmp_path / "utt2spk") == 0
    value = json.loads(capsys.readouterr().out)
    assert [system["wer"] for system in value["systems"]] == [100.0, 0.0]
    assert value["comparison"]["wer_difference"] == -100.0
    assert command(tmp_path / "ref", tmp_path / "hyp", tmp_path / "hyp2", "--speakers", tmp_path / "utt2spk") == 0
    out = capsys.readouterr().out
    assert "bootstrap over 2 speakers" in out and "second - first: -100.00 points" in out
    (tmp_path / "hyp2").write_text("u1 A\n")
    with pytest.raises(UserError, match="hyp2: 1 of 2 utterances without a hypothesis: u2"):
        command(tmp_path / "ref", tmp_path / "hyp", tmp_path / "hyp2")
