"""What the first stage of a recipe found or fetched, for the stages after it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.files import read_json, write_json
from asr_distill.lang.build import LangSettings

TRAIN, TUNE = "train", "tune"  # every other split of a recipe is reported


def librispeech_root(folder: Path) -> Path:
    """The folder that holds the subsets: itself, or the LibriSpeech in it (as archives unpack)."""
    inner = folder / "LibriSpeech"
    return inner if inner.is_dir() else folder


@dataclass(frozen=True)
class Resources:
    """Where the audio lies and what else came with it (None: settings or package data serve)."""

    root: Path
    lexicon: Path | None = None
    arpa: Path | None = None
    text: Path | None = None

    def save(self, directory: Path) -> None:
        write_json(directory / "resources.json",
                   {name: str(path.absolute()) if path else None for name, path in vars(self).items()})

    @staticmethod
    def load(directory: Path, moved: Path | None) -> Resources:
        """As saved; a corpus folder given anew wins. Raises UserError where the corpus is no longer there."""
        saved = {name: Path(path) if path else None for name, path in
                 read_json(directory / "resources.json").items()}
        root = librispeech_root(moved) if moved else saved.pop("root")
        saved.pop("root", None)
        assert root is not None
        if not root.is_dir():
            raise UserError(f"{root}: the corpus is no longer here; say where it is with --set corpus.dir=PATH")
        return Resources(root, **saved)

    def complete(self, settings: LangSettings) -> LangSettings:
        """Settings in which what the user did not give comes from here."""
        if settings.arpa or settings.text:
            return dataclasses.replace(settings, lexicon=settings.lexicon or self.lexicon)
        return dataclasses.replace(settings, lexicon=settings.lexicon or self.lexicon, arpa=self.arpa, text=self.text)


@dataclass(frozen=True)
class Splits:
    """For each split, the subset folder that holds it and (where not all of it is meant) the utterance ids."""

    subsets: dict[str, str | tuple[str, ...]]
    utterance_ids: dict[str, frozenset[str]]
