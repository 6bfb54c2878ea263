"""The forms of transcripts, read back by the rules of their formats."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from asr_distill.export.alternatives import NOTHING, Alternative, joined
from asr_distill.export.forms import CUE_LINES, CUE_SECONDS, FORMS, LINE_LETTERS
from asr_distill.export.transcribe import Transcript, Word

PATH = Path("folder/my talk.wav")


def transcript(*words: tuple[str, float, float], nbest: tuple[Alternative, ...] = ()) -> Transcript:
    spoken = tuple(Word(word, start, end, 0.75) for word, start, end in words)
    return Transcript(" ".join(word for word, _, _ in words), spoken, 12.34567, 0.01234567, nbest)


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def subtitles(text: str) -> list[tuple[float, float, list[str]]]:
    """SubRip as players read it: blocks parted by an empty line; number, times, lines."""
    found = []
    for number, block in enumerate([block for block in text.split("\n\n") if block.strip()], 1):
        first, times, *lines = block.strip("\n").split("\n")
        matched = re.fullmatch(r"(\d\d:\d\d:\d\d,\d\d\d) --> (\d\d:\d\d:\d\d,\d\d\d)", times)
        assert int(first) == number and matched
        found.append((seconds(matched[1]), seconds(matched[2]), lines))
    return found


def test_subtitles_are_cut_at_pauses_and_where_they_are_full() -> None:
    words = [(f"WORD{i}", 0.5 * i, 0.5 * i + 0.4) for i in range(40)]
    words += [("LAST", 3661.25, 3661.5)]
    found = subtitles(FORMS["srt"].write(transcript(*words), PATH, "a"))
    assert " ".join(line for _, _, lines in found for line in lines).split() == [word for word, _, _ in words]
    assert found[-1] == (3661.25, 3662.25, ["LAST"])  # alone after a pause, and long enough to be read
    for start, end, lines in found:
        assert end - start <= CUE_SECONDS and len(lines) <= CUE_LINES
        assert max(map(len, lines)) <= LINE_LETTERS and len(" ".join(lines)) <= CUE_LINES * LINE_LETTERS
    starts = {start for _, start, _ in words}
    assert all(start in starts for start, _, _ in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
    assert FORMS["srt"].write(transcript(), PATH, "a") == ""


def test_words_of_any_length_fill_two_lines_at_most() -> None:
    """Two lines may hold fewer letters than twice a line's: words are not broken."""
    said = ("HOWEVER LITTLE KNOWN THE FEELINGS OR VIEWS OF SUCH A MAN MAY BE ON HIS FIRST ENTERING A NEIGHBOURHOOD "
            "THIS TRUTH IS SO WELL FIXED IN THE MINDS OF THE SURROUNDING FAMILIES").split()
    words = [(word, 0.2 * i, 0.2 * i + 0.2) for i, word in enumerate(said)]
    found = subtitles(FORMS["srt"].write(transcript(*words), PATH, "a"))
    assert " ".join(line for _, _, lines in found for line in lines).split() == said
    assert all(len(lines) <= CUE_LINES and max(map(len, lines)) <= LINE_LETTERS for _, _, lines in found)


def test_a_word_longer_than_a_line_stays_whole() -> None:
    text = FORMS["srt"].write(transcript(("A" * 60, 0, 1), ("B", 1, 2)), PATH, "a")
    assert subtitles(text)[0][2] == ["A" * 60, "B"]


def test_ctm_fields() -> None:
    text = FORMS["ctm"].write(transcript(("ONE", 0.5, 0.75), ("TWO'S", 61.0, 61.333)), PATH, "sub dir/my talk")
    assert [line.split() for line in text.splitlines()] == [
        ["sub_dir/my_talk", "1", "0.50", "0.25", "ONE", "0.7500"],
        ["sub_dir/my_talk", "1", "61.00", "0.33", "TWO'S", "0.7500"]]


def test_json_is_one_line() -> None:
    text = FORMS["json"].write(transcript(("ÉTÉ", 0.5, 0.75)), PATH, "a")
    assert text.count("\n") == 1 and "ÉTÉ" in text
    assert json.loads(text) == {"file": str(PATH), "text": "ÉTÉ", "seconds": 12.346, "rtf": 0.0123, "words": [
        {"word": "ÉTÉ", "start": 0.5, "end": 0.75, "confidence": 0.75}]}
    some = (Alternative("A", 0.61234567, 10.00001), Alternative("", 1.23456e-7, 11))
    assert json.loads(FORMS["json"].write(transcript(nbest=some), PATH, "a"))["nbest"] == [
        {"text": "A", "posterior": 0.6123, "cost": 10.0}, {"text": "", "posterior": 1.235e-7, "cost": 11}]


def test_plain_text() -> None:
    assert FORMS["text"].write(transcript(("A", 0, 1), ("B", 1, 2)), PATH, "a") == "A B\n"
    some = (Alternative("A B", 0.75, 10), Alternative("A", 0.125, 11))
    assert FORMS["text"].write(transcript(nbest=some), PATH, "a") == "1\t0.7500\tA B\n2\t0.1250\tA\n"


def some_alternatives(prefix: str, number: int, step: float) -> list[Alternative]:
    return [Alternative(f"{prefix}{i}", 0.5 ** (i + 1), step * i**1.5 + 1) for i in range(number)]


@pytest.mark.parametrize("number", [1, 2, 5, 12])
def test_joined_pieces_equal_all_pairs(number: int) -> None:
    before, after = some_alternatives("A", 6, 0.7), some_alternatives("B", 5, 0.4)
    pairs = sorted((a.cost + b.cost, f"{a.text} {b.text}", a.posterior * b.posterior) for a in before for b in after)
    found = joined(before, after, number)
    assert [(each.cost, each.text, each.posterior) for each in found] == [
        (pytest.approx(cost), text, pytest.approx(posterior)) for cost, text, posterior in pairs[:number]]


def test_joined_with_nothing_and_with_equal_spellings() -> None:
    some = some_alternatives("A", 3, 1.0)
    assert joined(NOTHING, some, 3) == some == joined(some, NOTHING, 3) and joined(some, some, 0) == []
    before = [Alternative("A B", 0.5, 1), Alternative("A", 0.5, 2)]
    after = [Alternative("C", 0.75, 1), Alternative("B C", 0.25, 1.5)]
    found = joined(before, after, 4)
    assert [each.text for each in found] == ["A B C", "A B B C", "A C"]
    assert found[0].posterior == pytest.approx(0.5 * 0.75 + 0.5 * 0.25) and found[0].cost == 2
