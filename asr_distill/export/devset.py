"""Speech with its text, on which exports are measured: a folder in LibriSpeech's layout, or a lhotse manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.corpus.layout import scan_subset
from asr_distill.corpus.manifest import MANIFEST, load_split
from asr_distill.errors import UserError
from asr_distill.export.audio import read_pieces
from asr_distill.export.exporter import Spoken
from asr_distill.files import read_text


@dataclass(frozen=True)
class DevUtterance:
    id: str
    audio: Path
    words: tuple[str, ...]
    speaker: str


@dataclass(frozen=True)
class DevSet:
    name: str
    utterances: tuple[DevUtterance, ...]

    @property
    def references(self) -> dict[str, tuple[str, ...]]:
        return {utterance.id: utterance.words for utterance in self.utterances}

    def speech(self, sample_rate: int) -> Iterator[Spoken]:
        """The audio, read as it is asked for."""
        for utterance in self.utterances:
            pieces = [piece.samples for piece in read_pieces(utterance.audio, sample_rate)]
            yield Spoken(utterance.id, np.concatenate([np.zeros(0, np.float32), *pieces]))

    @staticmethod
    def open(path: Path, *, audio: Path | None = None, ids: Path | None = None, utterances: int = 0) -> DevSet:
        """`path`: such a folder (dev-clean), or the folder of a split that `corpus.manifest` wrote, whose audio lies
        under `audio`. `ids`: a file of utterance ids, the only ones to take; `utterances` above 0: so many of them,
        spread evenly. Raises UserError where something is missing or wrong in the corpus.
        """
        if (path / MANIFEST).is_file():
            if audio is None:
                raise UserError(f"{path / MANIFEST}: tells where audio lies below a root: give it with --dev-audio")
            found = [DevUtterance(cut.id, Path(cut.recording.sources[0].source),
                                  tuple(cut.supervisions[0].text.split()), cut.supervisions[0].speaker or "")
                     for cut in load_split(path.parent, path.name, audio)]
        else:
            scanned, problems = scan_subset(path.absolute().parent, path.name)
            if problems:
                raise UserError(f"{path}: {problems[0]}")
            found = [DevUtterance(item.id, path.absolute().parent / item.audio, tuple(item.text.split()), item.speaker)
                     for item in scanned]
        if ids is not None:
            wanted = set(read_text(ids).split())
            found = [utterance for utterance in found if utterance.id in wanted]
            if not found:
                raise UserError(f"{ids}: none of its ids is in {path}")
        if 0 < utterances < len(found):
            found = [found[index * len(found) // utterances] for index in range(utterances)]
        return DevSet(path.name, tuple(found))
