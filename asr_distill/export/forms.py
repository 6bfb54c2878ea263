"""The forms that a transcript is written in: plain text, JSON, SubRip subtitles, NIST's CTM."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.export.recordings import shown
from asr_distill.export.transcribe import Transcript, Word

CUE_SECONDS, CUE_LINES, LINE_LETTERS = 6.0, 2, 42  # of a subtitle at most
CUE_PAUSE = 0.8  # seconds of silence after which a new subtitle begins
LEAST_CUE_SECONDS = 1.0  # a subtitle stays that long, unless the next one comes


@dataclass(frozen=True)
class Form:
    """`write(transcript, path, name)` gives the text of one recording, every line ended."""

    suffix: str
    write: Callable[[Transcript, Path, str], str]
    word_times: bool = True  # needed?
    alternatives: bool = False  # has it a place for n best?
    one_file: bool = False  # does it make sense for one recording alone?


def plain(transcript: Transcript, path: Path, name: str) -> str:
    """The text; of n best a line each: rank, posterior, text."""
    if not transcript.nbest:
        return transcript.text + "\n"
    return "".join(f"{rank}\t{each.posterior:.4f}\t{each.text}\n" for rank, each in enumerate(transcript.nbest, 1))


def json_line(transcript: Transcript, path: Path, name: str) -> str:
    """One object on one line."""
    fields: dict[str, Any] = {"file": shown(path), **dataclasses.asdict(transcript)}
    fields["seconds"], fields["rtf"] = round(transcript.seconds, 3), round(transcript.rtf, 4)
    fields["nbest"] = [{"text": each.text, "posterior": float(f"{each.posterior:.4g}"), "cost": round(each.cost, 3)}
                       for each in transcript.nbest]
    if not transcript.nbest:
        del fields["nbest"]
    return json.dumps(fields, ensure_ascii=False) + "\n"


def ctm(transcript: Transcript, path: Path, name: str) -> str:
    """NIST's time-marked conversation (sclite -i ctm): file, channel, start, duration, word, confidence a line."""
    file = ctm_id(name)
    return "".join(f"{file} 1 {word.start:.2f} {word.end - word.start:.2f} {word.word} {word.confidence:.4f}\n"
                   for word in transcript.words)


def ctm_id(name: str) -> str:
    """A recording's name as a field: fields are parted by white space."""
    return "_".join(shown(name).split())


def srt(transcript: Transcript, path: Path, name: str) -> str:
    """SubRip: numbered subtitles of at most two lines, cut at pauses where there are any."""
    cues = list(_cues(transcript.words))
    parts = []
    for number, cue in enumerate(cues, 1):
        after = cues[number][0].start if number < len(cues) else float("inf")
        end = min(max(cue[-1].end, cue[0].start + LEAST_CUE_SECONDS), after)
        text = "\n".join(_lines(cue))
        parts.append(f"{number}\n{_clock(cue[0].start)} --> {_clock(end)}\n{text}\n")
    return "\n".join(parts)


def _cues(words: Sequence[Word]) -> Iterator[list[Word]]:
    cue: list[Word] = []
    for word in words:
        if cue and (word.start - cue[-1].end > CUE_PAUSE or word.end - cue[0].start > CUE_SECONDS
                    or len(_lines([*cue, word])) > CUE_LINES):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _lines(cue: Sequence[Word]) -> list[str]:
    return textwrap.wrap(" ".join(word.word for word in cue), LINE_LETTERS, break_long_words=False)


def _clock(seconds: float) -> str:
    """`01:02:03,456`."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d},{milliseconds % 1000:03d}"


FORMS = {
    "text": Form(".txt", plain, word_times=False, alternatives=True),
    "json": Form(".json", json_line, alternatives=True),
    "srt": Form(".srt", srt, one_file=True),
    "ctm": Form(".ctm", ctm),
}
