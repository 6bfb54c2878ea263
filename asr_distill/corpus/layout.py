"""LibriSpeech's layout: audio in <subset>/<speaker>/<chapter>/, its text in <speaker>-<chapter>.trans.txt beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_distill.corpus.audio import AUDIO_SUFFIXES
from asr_distill.errors import UserError, nearest
from asr_distill.files import read_text

LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class CorpusUtterance:
    """One audio file with its transcript; `audio` is relative to the corpus root, with forward slashes."""

    id: str
    speaker: str
    audio: str
    text: str


@dataclass(frozen=True)
class Problem:
    """Something wrong in the corpus. `utterance` is the one that it spoils, None for a whole chapter or line."""

    file: str
    message: str
    utterance: str | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def problem_listing(root: Path, problems: Sequence[Problem], where: str = "corpus", what: str = "utterances") -> str:
    """What a UserError says of problems under `root`: how many, the mend, and the first of them, a line each."""
    lines = [f"{root}: {len(problems)} problem{'s' * (len(problems) > 1)} in the {where}; mend them, or set on_error "
             f"to 'skip' to leave these {what} out:"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - LISTED_PROBLEMS} more")
    return "\n".join(lines)


def subset_directory(root: Path, subset: str) -> Path:
    """Raises UserError, naming the folders that exist, where the corpus or the subset is missing."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the corpus root, the folder that holds '{subset}'")
    directory = root / subset
    if not directory.is_dir():
        present = _folders(root)
        raise UserError(f"{directory}: no such subset folder{nearest(subset, present)}; "
                        f"{root} holds {', '.join(present) if present else 'no folders'}")
    return directory


def scan_subset(root: Path, subset: str) -> tuple[list[CorpusUtterance], list[Problem]]:
    """Pair every audio file of a subset with its transcript line; whatever has no partner is a problem."""
    directory = subset_directory(root, subset)
    utterances: list[CorpusUtterance] = []
    problems: list[Problem] = []
    for speaker in _folders(directory):
        for chapter in _folders(directory / speaker):
            found, wrong = _scan_chapter(root, f"{subset}/{speaker}/{chapter}", f"{speaker}-{chapter}", speaker)
            utterances += found
            problems += wrong
    if not utterances and not problems:
        raise UserError(f"{directory}: holds no <speaker>/<chapter> folders; unpack the corpus there again")
    return utterances, problems


def _folders(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _scan_chapter(root: Path, chapter: str, prefix: str, speaker: str,
                  ) -> tuple[list[CorpusUtterance], list[Problem]]:
    names = sorted(path.name for path in (root / chapter).iterdir() if not path.name.startswith("."))
    audio, problems = _audio_files(chapter, prefix, [n for n in names if n.lower().endswith(AUDIO_SUFFIXES)])
    transcript = f"{chapter}/{prefix}.trans.txt"
    if f"{prefix}.trans.txt" not in names:
        others = [name for name in names if name.endswith(".trans.txt")]
        hint = f"the folder has {', '.join(others)}: misplaced or renamed?" if others else "unpack the corpus again"
        problems.append(Problem(transcript, f"transcript file missing for {len(audio)} audio files; {hint}"))
        return [], problems
    texts, wrong = _read_transcript(root, transcript, prefix)
    problems += wrong
    spoiled = {problem.utterance for problem in problems}
    for utterance in sorted(audio.keys() - texts.keys() - spoiled):
        problems.append(Problem(audio[utterance], f"no line '{utterance} ...' in {prefix}.trans.txt; add it or "
                                                  f"remove the audio", utterance))
    for utterance in sorted(texts.keys() - audio.keys() - spoiled):
        problems.append(Problem(f"{chapter}/{utterance}.flac", f"audio missing (transcript in {prefix}.trans.txt); "
                                                               f"unpack it again or remove the line", utterance))
    usable = sorted((audio.keys() & texts.keys()) - spoiled)
    return [CorpusUtterance(u, speaker, audio[u], texts[u]) for u in usable], problems


def _audio_files(chapter: str, prefix: str, names: list[str]) -> tuple[dict[str, str], list[Problem]]:
    """Utterance id -> relative path."""
    audio: dict[str, str] = {}
    problems: list[Problem] = []
    for name in names:
        file, utterance = f"{chapter}/{name}", name.rpartition(".")[0]
        if not utterance.startswith(f"{prefix}-"):
            problems.append(Problem(file, f"name does not begin with '{prefix}-', the folder's speaker and chapter; "
                                          f"move or rename it", utterance))
        elif utterance in audio:
            problems.append(Problem(file, f"duplicate id {utterance}: {audio[utterance].rpartition('/')[2]} is there "
                                          f"too; keep one", utterance))
        else:
            audio[utterance] = file
    return audio, problems


def _read_transcript(root: Path, file: str, prefix: str) -> tuple[dict[str, str], list[Problem]]:
    """Utterance id -> text. Ids with a problem keep their entry: the caller drops them."""
    try:
        lines = read_text(root / file).split("\n")
    except UserError as error:
        return {}, [Problem(file, str(error).removeprefix(f"{root / file}: "))]
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line, utterance, text in _transcript_lines(lines):
        where = f"{file}:{number}"
        if not utterance.startswith(f"{prefix}-") or line[0].isspace():
            problems.append(Problem(where, f"malformed line '{line[:40].strip()}'; expected '{prefix}-NNNN WORDS'"))
            continue
        if utterance in texts:
            problems.append(Problem(where, f"duplicate id {utterance}; keep one line", utterance))
        elif not text:
            problems.append(Problem(where, f"empty transcript of {utterance}; write its words or remove line and "
                                           f"audio", utterance))
        elif text != text.upper():
            problems.append(Problem(where, f"text of {utterance} is not upper case ('{text[:30]}'); write it in "
                                           f"capitals, as LibriSpeech's", utterance))
        texts[utterance] = text
    return texts, problems


def _transcript_lines(lines: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """(line number, line, id, text with single spaces) of every line that is not blank."""
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words:
            yield number, line, words[0], " ".join(words[1:])
