"""Readers for references and hypotheses: Kaldi text files, lhotse manifests, our own hypothesis journals."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_distill.errors import UserError
from asr_distill.files import read_text

SHOWN_IDS = 5


@dataclass(frozen=True)
class Transcripts:
    """Words per utterance id, in file order, and the speakers where the file tells them."""

    words: dict[str, tuple[str, ...]]
    speakers: dict[str, str] = field(default_factory=dict)

    def ignoring_case(self) -> Transcripts:
        return Transcripts({id: tuple(word.upper() for word in words) for id, words in self.words.items()},
                           self.speakers)


def read_transcripts(path: Path) -> Transcripts:
    """`id word word ...` a line (UTF-8; an id alone: no words), or, where the name ends in .jsonl or .jsonl.gz, lhotse
    cuts or supervisions or a hypotheses.jsonl of `decode_store`.

    Raises UserError where the file is missing, empty, unreadable, or has an id twice.
    """
    words: dict[str, tuple[str, ...]] = {}
    speakers: dict[str, str] = {}
    is_manifest = path.name.endswith((".jsonl", ".jsonl.gz"))
    for number, id, spoken, speaker in _manifest_lines(path) if is_manifest else _text_lines(path):
        if id in words:
            raise UserError(f"{path}:{number}: utterance {id} is there twice")
        words[id] = spoken
        if speaker:
            speakers[id] = speaker
    if not words:
        raise UserError(f"{path}: no utterances in it")
    return Transcripts(words, speakers)


def check_same_utterances(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError naming the utterances that only one side has."""
    for what, one, other in (("without a hypothesis", references, hypotheses),
                             ("without a reference", hypotheses, references)):
        missing = [id for id in one if id not in other]
        if missing:
            more = f" and {len(missing) - SHOWN_IDS} more" if len(missing) > SHOWN_IDS else ""
            raise UserError(f"{len(missing)} of {len(one)} utterances {what}: {', '.join(missing[:SHOWN_IDS])}{more}")


def _text_lines(path: Path) -> Iterator[tuple[int, str, tuple[str, ...], str]]:
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1):
        if fields := line.split():
            yield number, fields[0], tuple(fields[1:]), ""


def _manifest_lines(path: Path) -> Iterator[tuple[int, str, tuple[str, ...], str]]:
    for number, line in enumerate(_manifest_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, *_entry(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}:{number}: expected a lhotse cut, a supervision or a hypothesis as JSON") from None


def _manifest_text(path: Path) -> str:
    if path.suffix != ".gz":
        return read_text(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable gzip file of UTF-8 text ({error})") from None


def _entry(item: dict[str, Any]) -> tuple[str, tuple[str, ...], str]:
    """(id, words, speaker) of a cut, a supervision or a hypothesis."""
    if "supervisions" in item:
        spoken = sorted(item["supervisions"], key=lambda supervision: supervision["start"])
        words = tuple(" ".join(supervision["text"] for supervision in spoken).split())
        return item["id"], words, (spoken[0].get("speaker") or "") if spoken else ""
    if "words" in item:
        return item["id"], tuple(item["words"]), ""
    return item["id"], tuple(item["text"].split()), item.get("speaker") or ""
