"""Manifests: DIR/<split>/cuts.jsonl.gz, one lhotse MonoCut an utterance, audio paths relative to the corpus root."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr_distill.corpus.layout import CorpusUtterance
from asr_distill.errors import UserError
from asr_distill.files import atomic_path

MANIFEST = "cuts.jsonl.gz"


def make_cut(utterance: CorpusUtterance, num_samples: int, sample_rate: int) -> MonoCut:
    """A cut over the whole file: cut, recording and supervision all have the utterance's id."""
    duration = num_samples / sample_rate
    recording = Recording(id=utterance.id, sources=[AudioSource(type="file", channels=[0], source=utterance.audio)],
                          sampling_rate=sample_rate, num_samples=num_samples, duration=duration)
    supervision = SupervisionSegment(id=utterance.id, recording_id=utterance.id, start=0.0, duration=duration,
                                     channel=0, text=utterance.text, speaker=utterance.speaker)
    return MonoCut(id=utterance.id, start=0.0, duration=duration, channel=0, supervisions=[supervision],
                   recording=recording)


def write_split(directory: Path, split: str, cuts: Iterable[MonoCut]) -> None:
    """Equal cuts give equal bytes (no time stamp in the gzip header), so that digests of inputs are stable."""
    with atomic_path(directory / split / MANIFEST) as temporary, open(temporary, "wb") as raw, \
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        for cut in cuts:
            file.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode())


def load_split(directory: Path, split: str, corpus_root: Path) -> CutSet:
    """The cuts of one split with sources made absolute under `corpus_root`.

    Raises UserError for a missing or damaged manifest, and where `corpus_root` lacks the first audio file (the
    corpus was moved, or another root was given).
    """
    path = directory / split / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no such manifest; run the stage that prepares the corpus for the split '{split}'")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            cuts = CutSet.from_cuts(MonoCut.from_dict(json.loads(line)) for line in file)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged manifest ({error}); delete it and prepare the corpus again") from None
    if not len(cuts):
        raise UserError(f"{path}: the manifest has no utterances; prepare the corpus again")
    cuts = cuts.with_recording_path_prefix(corpus_root.absolute()).to_eager()
    first = Path(cuts[0].recording.sources[0].source)
    if not first.is_file():
        raise UserError(f"{first}: no such audio file; {corpus_root} is not the corpus root that {path} was made from")
    return cuts


def corpus_figures(cuts: Iterable[MonoCut]) -> dict[str, float | int]:
    """{"hours", "utterances", "words", "speakers"} as in RESULTS.json."""
    seconds, utterances, words = 0.0, 0, 0
    speakers: set[str] = set()
    for cut in cuts:
        (supervision,) = cut.supervisions
        seconds += cut.duration
        utterances += 1
        words += len(supervision.text.split())
        speakers.add(supervision.speaker)
    return {"hours": round(seconds / 3600, 4), "utterances": utterances, "words": words, "speakers": len(speakers)}
