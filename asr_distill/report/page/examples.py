"""Utterances that a page lets people hear: sound, reference, what systems heard, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet

from asr_distill.corpus.manifest import load_split
from asr_distill.decode.errors import NOTHING, align_pairs
from asr_distill.decode.score import error_counts
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json
from asr_distill.logs import log
from asr_distill.report.collect import references_of
from asr_distill.report.page.audio import flac_of
from asr_distill.report.page.choice import in_turn
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.word_times import Times, WordTimer, evenly
from asr_distill.report.results import RESCORED

SHOWN = ("baseline", "ensemble", "student")  # roles
Texts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Token:
    """A place of the alignment. `mark`: "" right, S substituted, I inserted, D deleted (as in the error listing)."""

    mark: str
    word: str  # heard; nothing where deleted
    reference: str  # said; nothing where inserted
    start: float  # seconds, of the word heard or (deleted) said
    end: float


@dataclass(frozen=True)
class Line:
    """What one system heard."""

    system: str
    tokens: tuple[Token, ...]
    aligned: bool  # whether its times are of a forced alignment

    @property
    def counts(self) -> dict[str, int]:
        return {mark: sum(token.mark == mark for token in self.tokens) for mark in "SID"}


@dataclass(frozen=True)
class Example:
    """One utterance, `kind` as choice.py names it; the first line is the reference against itself."""

    id: str
    kind: str
    seconds: float
    flac: bytes
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Examples:
    """What was found; without items `reason` says why. `left_out`: chosen, but over the limit or unreadable."""

    items: tuple[Example, ...] = ()
    reason: str = ""
    split: str = ""
    subject: str = ""  # the system that they were chosen by
    left_out: int = 0

    @property
    def bytes(self) -> int:
        return sum(len(item.flac) for item in self.items)

    @property
    def aligned(self) -> bool:
        return all(line.aligned for item in self.items for line in item.lines)


def collect_examples(experiment: Experiment, count: int, limit: int, corpus: Path | None = None) -> Examples:
    """Up to `count` utterances whose recordings take no more than `limit` bytes. `corpus`: where it lies now."""
    if not count:
        return Examples(reason="None were asked for (--examples 0).")
    try:
        return _collect(experiment, count, limit, corpus)
    except UserError as error:  # a page without them is still of use
        return Examples(reason=f"There is nothing to listen to here: {error}")


def align(reference: Sequence[str], said: Times, hypothesis: Sequence[str], heard: Times) -> tuple[Token, ...]:
    """Word by word, least edits; words of the hypothesis with their own times, deleted ones with the reference's."""
    tokens, at_reference, at_heard = [], 0, 0
    for ours, theirs in align_pairs(reference, hypothesis):
        said_here, heard_here = ours != NOTHING, theirs != NOTHING
        mark = "I" if not said_here else "D" if not heard_here else "S" if ours != theirs else ""
        start, end = heard.spans[at_heard] if heard_here else said.spans[at_reference]
        tokens.append(Token(mark, theirs if heard_here else "", ours if said_here else "", start, end))
        at_reference, at_heard = at_reference + said_here, at_heard + heard_here
    return tuple(tokens)


def _collect(experiment: Experiment, count: int, limit: int, corpus: Path | None) -> Examples:
    systems = _systems(experiment)
    split, store, cuts = _speech(experiment, systems, corpus)
    references: Texts = references_of(store)
    heard = {name: _words(experiment, name, split, references) for name in systems}
    _check_same(experiment, split, references, heard)
    wrong = {name: dict(zip(references, error_counts(references, texts).sum(1).tolist(), strict=True))
             for name, texts in heard.items()}
    subject, baseline = list(systems)[-1], next((name for name, role in systems.items() if role == "baseline"), None)
    turns = in_turn(wrong[subject], wrong[baseline] if baseline and baseline != subject else None,
                    {id: len(words) for id, words in references.items()})
    timer = _timer(experiment, store)
    items: list[Example] = []
    left_out = size = 0
    for id, kind in turns:
        if len(items) + left_out == count:
            break
        try:
            flac = _flac(cuts, id)
        except UserError as error:
            log.warning("report: %s", error)
            left_out += 1
            continue
        if size + len(flac) > limit:
            left_out += 1
            continue
        size += len(flac)
        items.append(_example(id, kind, flac, store, references[id], {name: heard[name][id] for name in systems},
                              timer))
    reason = "" if items else f"None of the {left_out} recordings chosen could be read within {limit / 1e6:g} MB."
    return Examples(tuple(items), reason, split, subject, left_out)


def _systems(experiment: Experiment) -> dict[str, str]:
    """Name -> role of those whose words are shown; the last is the one that examples are chosen by.

    The first of each role, decoded with the graph alone; where there is no student the last system there is.
    """
    decoded = [system for system in experiment.results.systems
               if system.name in experiment.evaluated and experiment.evaluated[system.name].record["decoded"]]
    if not decoded:
        raise UserError("no system's words were kept in this folder.")
    plain = [system for system in decoded if not system.name.endswith(RESCORED)] or decoded
    shown: dict[str, str] = {}
    for role in SHOWN:
        shown |= next(({system.name: role} for system in plain if system.role == role), {})
    if "student" not in shown.values():
        shown.pop(plain[-1].name, None)
        shown[plain[-1].name] = plain[-1].role
    return shown


def _speech(experiment: Experiment, systems: Mapping[str, str],
            corpus: Path | None) -> tuple[str, FrameStore, CutSet]:
    """The first split that was scored, whose transcripts, words and recordings are all here."""
    prepared, features = experiment.stage("corpus"), experiment.stage("features")
    if prepared is None or features is None:
        raise UserError("the stages 'corpus' and 'features' are not in this folder.")
    splits = [split for split in experiment.results.scored_splits()
              if (prepared / split).is_dir() and (features / split).is_dir()
              and all((experiment.evaluated[name].directory / split).is_dir() for name in systems)]
    if not splits:
        raise UserError("no scored split has both recordings and words here.")
    return splits[0], FrameStore(features / splits[0]), load_split(prepared, splits[0], _root(prepared, corpus))


def _root(prepared: Path, corpus: Path | None) -> Path:
    """Where the audio lies: as told, else where it was when the corpus was prepared."""
    if corpus is not None:
        inner = corpus / "LibriSpeech"
        return inner if inner.is_dir() else corpus
    root = read_json(prepared / "resources.json").get("root")
    if not root:
        raise UserError(f"{prepared / 'resources.json'}: does not say where the corpus is (give --corpus FOLDER)")
    if not Path(root).is_dir():
        raise UserError(f"{root}: the corpus is no longer here (say where it is with --corpus FOLDER)")
    return Path(root)


def _words(experiment: Experiment, name: str, split: str, references: Texts) -> Texts:
    try:
        return experiment.evaluated[name].words(split, list(references))
    except KeyError as error:
        raise UserError(f"{experiment.evaluated[name].directory / split}: no words of utterance {error}; decode again"
                        ) from None


def _check_same(experiment: Experiment, split: str, references: Texts, heard: Mapping[str, Texts]) -> None:
    """Raises UserError where the words kept are not those that RESULTS.json was made from."""
    for name, texts in heard.items():
        scores = experiment.results.scores(name, split)
        counts = error_counts(references, texts).sum(0).tolist()
        if scores and counts != [scores.substitutions, scores.insertions, scores.deletions]:
            raise UserError(f"{experiment.evaluated[name].directory / split}: not the words that RESULTS.json was made "
                            "from; run the recipe again to its stage 'report'")


def _timer(experiment: Experiment, store: FrameStore) -> WordTimer | None:
    exported = experiment.stage("export")
    if exported is None or not (exported / "recogniser").is_dir():
        return None
    try:
        return WordTimer(exported / "recogniser", store)
    except UserError as error:
        log.warning("report: word times are guessed, for the exported student cannot be opened: %s", error)
        return None


def _flac(cuts: CutSet, id: str) -> bytes:
    if id not in cuts:
        raise UserError(f"utterance {id} is not in the manifest of the corpus")
    cut = cuts[id]
    return flac_of(Path(cut.recording.sources[0].source), cut.start, cut.duration)


def _example(id: str, kind: str, flac: bytes, store: FrameStore, reference: tuple[str, ...],
             heard: Mapping[str, tuple[str, ...]], timer: WordTimer | None) -> Example:
    seconds = store.utterances[store.index_of(id)].seconds
    texts = [reference, *heard.values()]
    said, *times = timer.times(id, texts) if timer else [evenly(words, seconds) for words in texts]
    lines = [Line("reference", align(reference, said, reference, said), said.aligned)]
    lines += [Line(name, align(reference, said, words, own), said.aligned and own.aligned)
              for (name, words), own in zip(heard.items(), times, strict=True)]
    return Example(id, kind, seconds, flac, tuple(lines))
