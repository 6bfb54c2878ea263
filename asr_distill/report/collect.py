"""From what was decoded to RESULTS.json, RESULTS.md, RESULTS.txt and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.acoustic.calibration import ReliabilityBins
from asr_distill.decode.errors import error_listing
from asr_distill.decode.score import Score, compare, score
from asr_distill.decode.search import JOURNAL, read_hypotheses
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json, write_text
from asr_distill.report.plots import TrainingCurve, plot_reliability, plot_training, plot_wer
from asr_distill.report.results import Comparison, Results, Role, SplitData, SplitScores, System
from asr_distill.report.tables import write_markdown
from asr_distill.report.terminal import terminal_table


@dataclass(frozen=True)
class Evaluated:
    """A system that `evaluation.evaluate` measured: its directory holds system.json and hypotheses of each split."""

    directory: Path

    @property
    def record(self) -> dict[str, Any]:
        return read_json(self.directory / "system.json")

    def words(self, split: str, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        found = {item.id: item.words for item in read_hypotheses(self.directory / split / JOURNAL)}
        return {name: found[name] for name in ids}


def system_of(evaluated: Evaluated, stores: Mapping[str, FrameStore]) -> System:
    """A line of RESULTS.json: the record's figures and the word error rate of every split."""
    record = evaluated.record
    splits: dict[str, SplitScores | Any] = {}
    for name, facts in record["splits"].items():
        figures: dict[str, Any] = dict(facts)
        if record["decoded"]:
            references = references_of(stores[name])
            figures |= word_figures(score(references, evaluated.words(name, list(references))))
        splits[name] = SplitScores(**figures)
    return System(record["name"], record["role"], record["parameters"], record["bytes"], record["targets"], splits)


def word_figures(result: Score) -> dict[str, float | int]:
    return {"wer": result.wer, "wer_low": result.wer_low, "wer_high": result.wer_high,
            "substitutions": result.substitutions, "insertions": result.insertions,
            "deletions": result.deletions, "words": result.words}


def comparisons_of(systems: Sequence[Evaluated], pairs: Sequence[tuple[str, str]],
                   stores: Mapping[str, FrameStore]) -> list[Comparison]:
    """Paired tests of (a, b) pairs of names, on every split that both were decoded on."""
    known = {item.record["name"]: item for item in systems if item.record["decoded"]}
    found = []
    for a, b in pairs:
        if a not in known or b not in known:
            continue
        for split, store in stores.items():
            if split not in known[a].record["splits"] or split not in known[b].record["splits"]:
                continue
            references = references_of(store)
            ids = list(references)
            # `compare` gives b - a; a comparison of RESULTS.json reads "a against b", a - b
            test = compare(references, known[b].words(split, ids), known[a].words(split, ids))
            found.append(Comparison(a, b, split, test.wer_difference, test.p))
    return found


def references_of(store: FrameStore) -> dict[str, tuple[str, ...]]:
    """Words by utterance id."""
    return {utterance.id: utterance.words for utterance in store.utterances}


def training_curves(models: Mapping[str, tuple[Role, Path]]) -> dict[str, TrainingCurve]:
    """Held-out curves of fitted models: name -> (role, directory with training.json)."""
    curves = {}
    for name, (role, directory) in models.items():
        history = [entry for entry in read_json(directory / "training.json")["history"]
                   if _is_number(entry.get("heldout_accuracy")) and _is_number(entry.get("heldout_cross_entropy"))]
        curves[name] = TrainingCurve(role, [100 * entry["heldout_accuracy"] for entry in history],
                                     [entry["heldout_cross_entropy"] for entry in history],
                                     [entry["epoch"] for entry in history])
    return curves


def write_results(out: Path, recipe: str, *, systems: Sequence[Evaluated], pairs: Sequence[tuple[str, str]],
                  stores: Mapping[str, FrameStore], data: Mapping[str, Mapping[str, Any]],
                  curves: Mapping[str, TrainingCurve], settings: Mapping[str, Any], seeds: Sequence[int],
                  device: str, stages: Mapping[str, float], command: str) -> Results:
    """Write RESULTS.json, .md, .txt, plots and error listings into `out`.

    `data`: figures of every split, as SplitData's fields. `stages`: seconds of each.
    """
    results = Results.of_now(
        recipe, device=device, seeds=seeds, settings=settings, stages=stages,
        data={name: SplitData(**facts) for name, facts in data.items()},
        systems=[system_of(item, stores) for item in systems], comparisons=comparisons_of(systems, pairs, stores))
    plots = {}
    if curves:
        plot_training(curves, out / "training.png")
        plots["Training curves"] = "training.png"
    if bins := reliability_of(systems):
        plot_reliability(bins, out / "reliability.png")
        plots["How sure the models are, and how often they are right"] = "reliability.png"
    if plot_wer(results, out / "wer.png"):
        plots["Word error rates with 95 % intervals"] = "wer.png"
    for item in systems:
        for split in item.record["splits"] if item.record["decoded"] else ():
            references = references_of(stores[split])
            listing = error_listing(references, item.words(split, list(references)))
            write_text(out / "errors" / f"{item.record['name']}.{split}.txt", listing)
    write_markdown(results, out / "RESULTS.md", command=command, plots=plots)
    write_text(out / "RESULTS.txt", terminal_table(results))
    results.write(out / "RESULTS.json")
    return results


def reliability_of(systems: Sequence[Evaluated]) -> dict[str, tuple[Role, ReliabilityBins]]:
    """Bins of every system but the exported one (its posteriors are the student's), summed over splits."""
    found: dict[str, tuple[Role, ReliabilityBins]] = {}
    for item in systems:
        record = item.record
        splits = [ReliabilityBins.from_dict(plain) for plain in record.get("reliability", {}).values()]
        if splits and record["role"] != "export":
            found[record["name"]] = (record["role"], sum(splits[1:], splits[0]))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)
