"""RESULTS.json: what a recipe ends in, in one fixed form that other programs read.

```
{"recipe", "finished" (ISO time), "seconds", "stages": {"<stage>": seconds}, "device", "seeds": [..], "versions": {..},
 "settings": {..},
 "data": {"<split>": {"hours", "utterances", "words", "speakers", "unknown_rate", "perplexity", "large_perplexity"}},
 "systems": [{"name", "role", "parameters", "bytes", "targets" (how many pdfs),
              "splits": {"<split>": {"frame_accuracy", "cross_entropy", "wer", "wer_low", "wer_high",
                                     "substitutions", "insertions", "deletions", "words", "rtf"}}}],
 "comparisons": [{"a", "b", "split", "wer_difference", "p"}]}
```

Units: WER, its bounds (95 % bootstrap interval) and frame accuracy in percent; cross-entropy in nats a frame;
rtf in seconds of work a second of audio; unknown_rate in percent of the words; perplexity of the language model of the
graph and of the large one, unknown words left out; `wer_difference` is WER(a) - WER(b) in percent points ("a against
b": below 0, a is better) and p its paired test. A figure that was not measured is null (the seven of the word error
rate together). A task without words (MNIST) writes {"frame_accuracy", "cross_entropy", "errors", "rtf"}: "errors" in
place of all about words.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from asr_distill.errors import UserError
from asr_distill.export.versions import package_versions
from asr_distill.files import read_json, write_json
from asr_distill.report.schema import from_plain

Role = Literal["gmm", "baseline", "teacher", "ensemble", "student", "export"]
ROLES: tuple[str, ...] = get_args(Role)
RESCORED = "_large"  # ends the name of a system whose hypotheses the large language model weighed anew
WORD_FIGURES = ("wer", "wer_low", "wer_high", "substitutions", "insertions", "deletions", "words")


@dataclass(frozen=True)
class SplitData:
    """What a split holds; null where it has no such thing (pictures have no hours)."""

    hours: float | None
    utterances: int
    words: int | None
    speakers: int | None
    unknown_rate: float | None = None
    perplexity: float | None = None
    large_perplexity: float | None = None

    def __post_init__(self) -> None:
        _not_negative(self, *(field.name for field in dataclasses.fields(self)))


@dataclass(frozen=True)
class SplitScores:
    """One system's figures on one split: percent, nats a frame, counts, seconds a second."""

    frame_accuracy: float | None = None
    cross_entropy: float | None = None
    wer: float | None = None
    wer_low: float | None = None
    wer_high: float | None = None
    substitutions: int | None = None
    insertions: int | None = None
    deletions: int | None = None
    words: int | None = None
    rtf: float | None = None

    def __post_init__(self) -> None:
        _not_negative(self, "cross_entropy", "rtf", *WORD_FIGURES)
        _percentage(self.frame_accuracy)
        missing = [name for name in WORD_FIGURES if getattr(self, name) is None]
        if missing and len(missing) < len(WORD_FIGURES):
            raise ValueError(f"a word error rate needs {', '.join(missing)} too")
        if self.wer is None:
            return
        assert self.wer_low is not None and self.wer_high is not None and self.words is not None
        assert self.substitutions is not None and self.insertions is not None and self.deletions is not None
        if self.wer_low > self.wer_high:
            raise ValueError(f"wer_low {self.wer_low} is above wer_high {self.wer_high}")
        errors = self.substitutions + self.insertions + self.deletions
        if self.words == 0 or abs(self.wer - 100 * errors / self.words) > 0.01:
            raise ValueError(f"wer {self.wer} is not {errors} errors in {self.words} words, in percent")


@dataclass(frozen=True)
class ErrorScores:
    """A task without words: how many of the test examples are wrong, in place of the word error rate."""

    frame_accuracy: float | None
    cross_entropy: float | None
    errors: int
    rtf: float | None = None

    def __post_init__(self) -> None:
        _not_negative(self, "errors", "cross_entropy", "rtf")
        _percentage(self.frame_accuracy)


@dataclass(frozen=True)
class System:
    """One recogniser: `bytes` as stored, `targets` the number of pdfs it tells apart."""

    name: str
    role: Role
    parameters: int
    bytes: int
    targets: int
    splits: dict[str, SplitScores | ErrorScores]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a system needs a name")
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, not {self.role!r}")
        _not_negative(self, "parameters", "bytes", "targets")


@dataclass(frozen=True)
class Comparison:
    """a against b: WER(a) - WER(b) in percent points on one split, and the p of the paired test."""

    a: str
    b: str
    split: str
    wer_difference: float
    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must lie between 0 and 1, not {self.p}")


@dataclass(frozen=True)
class Results:
    """A whole RESULTS.json. Building one checks it; so do `write` and `load`."""

    recipe: str
    finished: str
    seconds: float
    device: str
    seeds: list[int]
    versions: dict[str, str]
    settings: dict[str, Any]
    data: dict[str, SplitData]
    systems: list[System]
    comparisons: list[Comparison] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)  # seconds of each, in order

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.finished)
        except ValueError:
            raise ValueError(f"finished must be an ISO time, not {self.finished!r}") from None
        _not_negative(self, "seconds")
        names = [system.name for system in self.systems]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two systems have the name '{name}'")
        for system in self.systems:
            if unknown := sorted(set(system.splits) - set(self.data)):
                raise ValueError(f"system '{system.name}' has scores for '{unknown[0]}', not in data")
        for comparison in self.comparisons:
            self._check_comparison(comparison)

    def _check_comparison(self, comparison: Comparison) -> None:
        pair = f"comparison of '{comparison.a}' with '{comparison.b}'"
        a, b = (self.scores(name, comparison.split) for name in (comparison.a, comparison.b))
        if a is None or b is None or a.wer is None or b.wer is None:
            raise ValueError(f"{pair}: not both have a word error rate on '{comparison.split}'")
        if abs(comparison.wer_difference - (a.wer - b.wer)) > 0.02:
            raise ValueError(f"{pair}: wer_difference {comparison.wer_difference} "
                             f"is not {a.wer:.2f} - {b.wer:.2f}")

    @staticmethod
    def of_now(recipe: str, *, device: str, seeds: Sequence[int], settings: Mapping[str, Any],
               data: Mapping[str, SplitData], systems: Sequence[System], stages: Mapping[str, float],
               comparisons: Sequence[Comparison] = ()) -> Results:
        """Of an experiment that ends now: with the time, its stages' seconds in all, and the packages' versions."""
        return Results(recipe, datetime.now(timezone.utc).isoformat(timespec="seconds"), round(sum(stages.values()), 1),
                       device, list(seeds), package_versions(), dict(settings), dict(data), list(systems),
                       list(comparisons), dict(stages))

    def system(self, name: str) -> System | None:
        return next((system for system in self.systems if system.name == name), None)

    def with_role(self, role: str) -> list[System]:
        return [system for system in self.systems if system.role == role]

    def scores(self, name: str, split: str) -> SplitScores | None:
        """A system's figures about words on a split, or None."""
        system = self.system(name)
        scores = system.splits.get(split) if system else None
        return scores if isinstance(scores, SplitScores) else None

    def scored_splits(self) -> list[str]:
        """Splits that any system was scored on, in the order of `data`."""
        return [split for split in self.data if any(split in system.splits for system in self.systems)]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def write(self, path: Path) -> None:
        """Write RESULTS.json whole or not at all. Raises ValueError where it does not read back as itself."""
        plain = self.to_dict()
        results_from_dict(plain)
        if json.loads(json.dumps(plain, allow_nan=False)) != plain:
            raise ValueError(f"{path}: JSON does not keep these values (tuples? numbers as keys?)")
        write_json(path, plain)

    @staticmethod
    def load(path: Path) -> Results:
        """Raises UserError where the file is missing, not JSON, or not in the form above."""
        try:
            return results_from_dict(read_json(path))
        except ValueError as error:
            raise UserError(f"{path}: not a RESULTS.json: {error}") from None


def results_from_dict(plain: Any) -> Results:
    """Raises ValueError that names the wrong key."""
    if not isinstance(plain, Mapping):
        raise ValueError("the file must hold an object")
    return from_plain(Results, plain)


def _percentage(frame_accuracy: float | None) -> None:
    if frame_accuracy is not None and not 0 <= frame_accuracy <= 100:
        raise ValueError(f"frame_accuracy must be a percentage, not {frame_accuracy}")


def _not_negative(owner: Any, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < 0:
            raise ValueError(f"{name} must not be negative, not {value}")
