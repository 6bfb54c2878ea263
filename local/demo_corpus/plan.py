"""Which speaker says which prompt into which files: all settled before anything is spoken."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.demo_corpus.settings import DemoCorpusSettings
from local.demo_corpus.text import Prompt
from local.demo_corpus.voices import DEV, TEST, TEST_OTHER, TRAIN, Speaker

CHAPTER_UTTERANCES = 20
OTHER_CHAPTERS = 100  # test-other counts its chapters from here: utterance ids are unique in the corpus
# Seconds of a prompt read at pace 1, fitted to what came out (both voices).
SECONDS_BASE, SECONDS_PER_CHARACTER = 0.3, 0.056


@dataclass(frozen=True)
class Recording:
    """One file: where it lies (relative), through which channel it went and how fast it is played."""

    path: str
    channel: str
    rate: float = 1.0


@dataclass(frozen=True)
class Utterance:
    """One prompt spoken once, recorded one or more times."""

    id: str
    speaker: Speaker
    prompt: Prompt
    seed: int
    recordings: tuple[Recording, ...]


def seconds_estimate(prompt: Prompt) -> float:
    return SECONDS_BASE + SECONDS_PER_CHARACTER * len(prompt.spoken)


def plan_utterances(prompts: Sequence[Prompt], speakers: Sequence[Speaker],
                    settings: DemoCorpusSettings) -> list[Utterance]:
    """Each prompt is used once at most. Test and dev come first: they do not change with the size of train.

    Raises ValueError where the prompts do not suffice.
    """
    shuffled = sorted(prompts, key=lambda prompt: prompt.words)
    random.Random(settings.seed).shuffle(shuffled)
    stream = iter(shuffled)
    copies: dict[int, list[Speaker]] = defaultdict(list)
    for speaker in speakers:
        if speaker.copy_of is not None:
            copies[speaker.copy_of].append(speaker)
    originals = [speaker for speaker in speakers if speaker.copy_of is None]
    fast_train = [speaker for speaker in originals if speaker.subset == TRAIN and not speaker.mix]
    kokoro_train = [speaker for speaker in originals if speaker.subset == TRAIN and speaker.mix]
    groups = [([speaker for speaker in originals if speaker.subset == TEST], settings.minutes_test),
              ([speaker for speaker in originals if speaker.subset == DEV], settings.minutes_dev),
              (kokoro_train, settings.minutes_kokoro_train),
              (fast_train, settings.minutes_fast if kokoro_train else settings.minutes_train)]
    return [utterance for group, minutes in groups
            for utterance in _share(group, 60 * minutes, stream, copies, settings)]


def _share(group: list[Speaker], seconds: float, stream: Iterator[Prompt], copies: dict[int, list[Speaker]],
           settings: DemoCorpusSettings) -> Iterator[Utterance]:
    """Prompts for each speaker in turn until the group's (estimated) seconds up to him are used."""
    spoken = 0.0
    for place, speaker in enumerate(group, 1):
        index = 0
        while spoken < seconds * place / len(group):
            prompt = next(stream, None)
            if prompt is None:
                raise ValueError("more minutes asked for than there are sentences of min_words to max_words words")
            spoken += seconds_estimate(prompt)
            yield _utterance(speaker, index, prompt, copies[speaker.id], settings.seed)
            index += 1


def utterance_id(speaker: int, index: int, first_chapter: int = 1) -> str:
    return f"{speaker}-{first_chapter + index // CHAPTER_UTTERANCES}-{index % CHAPTER_UTTERANCES:04d}"


def recording_path(subset: str, utterance: str) -> str:
    speaker, chapter, _ = utterance.split("-")
    return f"{subset}/{speaker}/{chapter}/{utterance}.flac"


def _utterance(speaker: Speaker, index: int, prompt: Prompt, copies: list[Speaker], seed: int) -> Utterance:
    name = utterance_id(speaker.id, index)
    recordings = [Recording(recording_path(speaker.subset, name), "clean")]
    if speaker.subset == TEST:
        other = utterance_id(speaker.id, index, OTHER_CHAPTERS)
        recordings.append(Recording(recording_path(TEST_OTHER, other), "other"))
    recordings += [Recording(recording_path(TRAIN, utterance_id(copy.id, index)), "copy", copy.rate) for copy in copies]
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
    return Utterance(name, speaker, prompt, own_seed, tuple(recordings))


def transcripts(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Relative path of every trans.txt -> its text, in LibriSpeech's form."""
    lines: dict[str, list[str]] = defaultdict(list)
    for utterance in utterances:
        for recording in utterance.recordings:
            path = Path(recording.path)
            speaker, chapter, _ = path.stem.split("-")
            lines[str(path.with_name(f"{speaker}-{chapter}.trans.txt"))].append(
                f"{path.stem} {utterance.prompt.words}")
    return {path: "\n".join(sorted(rows)) + "\n" for path, rows in sorted(lines.items())}
