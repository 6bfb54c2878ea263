"""Makes the demo corpus once: fetch, plan, speak, write the metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import soundfile

from asr_distill.config import to_dict
from asr_distill.errors import UserError
from asr_distill.executor import run_jobs
from asr_distill.files import read_json, write_json, write_text
from asr_distill.progress import Progress
from local.demo_corpus.plan import Utterance, plan_utterances, transcripts
from local.demo_corpus.settings import DemoCorpusSettings
from local.demo_corpus.sources import Sources, fetch_sources
from local.demo_corpus.text import austen_paragraphs, bible_paragraphs, prompts_and_text
from local.demo_corpus.voices import SUBSETS, TRAIN, Speaker, cast_speakers

log = logging.getLogger("asr_distill")
RECIPE = 1  # raise it whenever the same settings would give other bytes
STATE_FILE = "corpus.json"


def make_corpus(out: Path, cache: Path, settings: DemoCorpusSettings) -> dict[str, Any]:
    """Fill `out` with LibriSpeech-shaped subsets train-clean, dev-clean, test-clean, test-other, SPEAKERS.TXT, lm.txt.

    Same seed, same bytes (on one machine). A finished corpus of the same settings is recognised at once; a killed run
    goes on where it stopped; other settings replace what an earlier run of this function made. `cache` keeps the
    downloads. Returns figures: minutes, utterances, speakers and words of each subset, voices, sources, seconds.

    Raises UserError where packages are missing, `out` holds anything else, or settings ask for too much.
    """
    digest = _digest(settings)
    state = _read_state(out)
    if state and state["digest"] == digest and state["finished"]:
        if all((out / path).is_file() for path in _recordings(out)):
            return state["figures"]
        log.warning("%s: recordings are missing; they are made again", out)
    start = time.monotonic()
    sources = fetch_sources(cache)
    speakers, utterances, lm_text = _plan(sources, settings)
    _prepare_folder(out, state, {"digest": digest, "sources": sources.names(), "finished": False})
    _write_metadata(out, sources, speakers, utterances, lm_text)
    _speak(out, cache, sources, utterances, settings.workers)
    for litter in out.rglob(".*.tmp"):  # of a killed run
        litter.unlink()
    figures = _figures(out, sources, speakers, utterances, lm_text) | {"seconds": round(time.monotonic() - start, 1)}
    write_json(out / STATE_FILE, {"digest": digest, "sources": sources.names(), "finished": True, "figures": figures})
    return figures


def _digest(settings: DemoCorpusSettings) -> str:
    """Of all that shapes the corpus: not of how many processes make it."""
    shape = to_dict(dataclasses.replace(settings, workers=0))
    return hashlib.sha256(json.dumps([RECIPE, shape], sort_keys=True).encode()).hexdigest()


def _read_state(out: Path) -> dict[str, Any] | None:
    if (out / STATE_FILE).is_file():
        return read_json(out / STATE_FILE)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: holds files that the demo corpus has not made; give an empty folder")
    return None


def _recordings(out: Path) -> list[str]:
    """What the transcripts on disk name."""
    names = []
    for transcript in sorted(out.glob("*/*/*/*.trans.txt")):
        folder = transcript.parent.relative_to(out)
        names += [f"{folder}/{line.split(' ', 1)[0]}.flac" for line in transcript.read_text("utf-8").splitlines()]
    return names


def _plan(sources: Sources, settings: DemoCorpusSettings) -> tuple[list[Speaker], list[Utterance], list[str]]:
    """Speakers, utterances, and the language model's sentences: none of dev's or test's."""
    if sources.austen:
        paragraphs = austen_paragraphs(sources.austen)
    else:
        assert sources.bible is not None
        paragraphs = bible_paragraphs(sources.bible)
    prompts, text = prompts_and_text(paragraphs, settings.min_words, settings.max_words)
    voices = [file.stem for file in sources.voices.glob("*.bin")] if sources.voices else []
    try:
        speakers = cast_speakers(voices, settings)
        utterances = plan_utterances(prompts, speakers, settings)
    except ValueError as error:
        raise UserError(f"demo corpus: {error}; ask for fewer minutes or voices") from None
    held_out = {utterance.prompt.words for utterance in utterances if utterance.speaker.subset != TRAIN}
    return speakers, utterances, [sentence for sentence in text if sentence not in held_out]


def _prepare_folder(out: Path, state: dict[str, Any] | None, begun: dict[str, Any]) -> None:
    """Recordings of an equal, unfinished run stay; those of other settings or sources go."""
    if state and (state["digest"], state["sources"]) != (begun["digest"], begun["sources"]):
        log.info("%s: made with other settings; made afresh", out)
        for subset in SUBSETS:
            shutil.rmtree(out / subset, ignore_errors=True)
    write_json(out / STATE_FILE, begun)


def _write_metadata(out: Path, sources: Sources, speakers: list[Speaker], utterances: list[Utterance],
                    lm_text: list[str]) -> None:
    for path, text in transcripts(utterances).items():
        write_text(out / path, text)
    rows = [f"{speaker.id:<6}| {speaker.sex} | {speaker.subset:<12}| {speaker.name}" for speaker in speakers]
    write_text(out / "SPEAKERS.TXT", "\n".join([";ID   |SEX| SUBSET      | NAME", *rows]) + "\n")
    write_text(out / "lm.txt", "\n".join(lm_text) + "\n")
    names = sources.names()
    write_text(out / "README.TXT", (
        "Synthetic speech, made by asr_distill for its demo recipe.\n"
        f"Voices: {'Kokoro-82M and ' if names['voices'] == 'kokoro' else ''}hibari (Apache-2.0). Text: "
        f"{'novels of Jane Austen' if names['text'] == 'austen' else 'King James Bible'} (public domain).\n"
        "train-clean also holds pitched copies and warped voices: SPEAKERS.TXT says which.\n"
        "test-other holds test-clean's utterances with more room and noise.\n"))


def _speak(out: Path, cache: Path, sources: Sources, utterances: list[Utterance], workers: int) -> None:
    # Imported late: a finished corpus needs none of the synthesizers.
    from local.demo_corpus.speak import Task, kokoro_model, speak_task, start_worker

    todo = [Task(utterance, out) for utterance in utterances
            if not all((out / recording.path).is_file() for recording in utterance.recordings)]
    if not todo:
        return
    model = kokoro_model(cache) if sources.voices else None
    seconds = cpu = 0.0
    with Progress("speak", len(utterances), "utterances", done=len(utterances) - len(todo)) as progress:
        for _, (spoken, used) in run_jobs(speak_task, todo, workers=workers, initializer=start_worker,
                                          initargs=(model, sources.voices)):
            seconds, cpu = seconds + spoken, cpu + used
            progress.update(note=f"{seconds / 60:.1f} min of audio, {60 * cpu / seconds:.1f} s of CPU a minute")


def _figures(out: Path, sources: Sources, speakers: list[Speaker], utterances: list[Utterance],
             lm_text: list[str]) -> dict[str, Any]:
    subsets = {name: {"utterances": 0, "speakers": 0, "words": 0, "minutes": 0.0} for name in SUBSETS}
    heard: dict[str, set[str]] = {name: set() for name in SUBSETS}
    for utterance in utterances:
        for recording in utterance.recordings:
            subset, speaker, _ = recording.path.split("/", 2)
            row = subsets[subset]
            heard[subset].add(speaker)
            row["utterances"] += 1
            row["words"] += len(utterance.prompt.words.split())
            row["minutes"] += soundfile.info(out / recording.path).duration / 60
    for name, row in subsets.items():
        row["minutes"], row["speakers"] = round(row["minutes"], 2), len(heard[name])
    return {"subsets": subsets, "sources": sources.names(),
            "voices": sum(speaker.copy_of is None for speaker in speakers),
            "lm_sentences": len(lm_text), "lm_words": sum(len(sentence.split()) for sentence in lm_text)}
