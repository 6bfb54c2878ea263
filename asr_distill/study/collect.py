"""What the points of a study measured: systems of their finished stages, and how these were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from asr_distill.decode.score import Comparison, Score, compare, score
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json
from asr_distill.report.collect import Evaluated, references_of
from asr_distill.report.results import ErrorScores, Results
from asr_distill.study.plan import PlannedPoint

Texts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Measured:
    """One system on one split."""

    system: str
    role: str
    split: str
    parameters: int
    source: Path  # where it was measured: the same for all points that share it
    figures: dict[str, float]  # frame_accuracy, cross_entropy, wer, wer_low, wer_high, errors, rtf and, of training,
    #                            train_accuracy, heldout_accuracy; accuracies in percent
    references: Texts = field(default_factory=dict, compare=False)
    words: Texts = field(default_factory=dict, compare=False)  # empty where nothing was decoded

    @property
    def decoded(self) -> bool:
        return bool(self.words)


class Collector:
    """Reads what points measured; what they share is read and scored once."""

    def __init__(self) -> None:
        self._scores: dict[tuple[Path, str], Score] = {}
        self._stores: dict[Path, Texts] = {}

    def measured(self, planned: PlannedPoint) -> list[Measured]:
        """Every system on every split that the finished stages of a point hold.

        From `system.json` of evaluated systems, and from `RESULTS.json` for systems that have none of these.
        """
        directories = planned.directories
        trained = _training(directories)
        found: list[Measured] = []
        for path in _below(directories, "system.json"):
            evaluated = Evaluated(path.parent)
            record = evaluated.record
            for split, facts in record["splits"].items():
                figures = _numbers(facts) | trained.get(record["name"], {})
                words = references = {}
                if record["decoded"]:
                    references = self._references(directories, split)
                    words = evaluated.words(split, list(references))
                    figures |= self._word_figures(path.parent, split, references, words)
                found.append(Measured(record["name"], record["role"], split, record["parameters"],
                                      path.parent.resolve(), figures, references, words))
        known = {item.system for item in found}
        for directory in directories.values():
            if (directory / "RESULTS.json").is_file():
                found += [item for item in _of_results(directory, trained) if item.system not in known]
        return found

    def _references(self, directories: Mapping[str, Path], split: str) -> Texts:
        directory = next(path / split for path in directories.values() if (path / split / "store.json").is_file())
        if directory not in self._stores:
            self._stores[directory] = references_of(FrameStore(directory))
        return self._stores[directory]

    def _word_figures(self, directory: Path, split: str, references: Texts, words: Texts) -> dict[str, float]:
        key = (directory.resolve(), split)
        if key not in self._scores:
            self._scores[key] = score(references, words)
        found = self._scores[key]
        return {"wer": found.wer, "wer_low": found.wer_low, "wer_high": found.wer_high}


@dataclass(frozen=True)
class Pooled:
    """The same system of several points (seeds) as one test: an utterance's copies are drawn together."""

    systems: tuple[Measured, ...]

    def score(self) -> Score:
        return score(*self._texts, speakers=self._blocks)

    def against(self, other: Pooled) -> Comparison:
        """`other` - this, in WER, as `compare`."""
        return compare(self._texts[0], self._texts[1], other._texts[1], speakers=self._blocks)

    @cached_property
    def _texts(self) -> tuple[Texts, Texts]:
        return ({f"{number} {name}": words for number, item in enumerate(self.systems)
                 for name, words in item.references.items()},
                {f"{number} {name}": words for number, item in enumerate(self.systems)
                 for name, words in item.words.items()})

    @property
    def _blocks(self) -> dict[str, str]:
        return {name: name.split(" ", 1)[1] for name in self._texts[0]}


def _training(directories: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Model -> what `acoustic.fit` says of its training, accuracies in percent."""
    found: dict[str, dict[str, float]] = {}
    for path in _below(directories, "training.json"):
        record = read_json(path)
        found[path.parent.name] = {name: 100 * record[key] for name, key in (
            ("train_accuracy", "train_accuracy"), ("heldout_accuracy", "accuracy")) if record.get(key) is not None}
    return found


def _of_results(directory: Path, trained: Mapping[str, dict[str, float]]) -> Iterator[Measured]:
    for system in Results.load(directory / "RESULTS.json").systems:
        for split, scores in system.splits.items():
            figures = _numbers(vars(scores)) | trained.get(system.name, {})
            if isinstance(scores, ErrorScores):
                figures["errors"] = float(scores.errors)
            source = directory.resolve() / system.name
            yield Measured(system.name, system.role, split, system.parameters, source, figures)


def _below(directories: Mapping[str, Path], name: str) -> Iterator[Path]:
    for directory in directories.values():
        yield from sorted(directory.glob(f"*/{name}"))


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in facts.items() if isinstance(value, (int, float))}
