"""A corpus in LibriSpeech's layout to validated manifests: every file is decoded, nothing is skipped in silence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from lhotse import MonoCut

from asr_distill.corpus.audio import AudioFacts, check_files
from asr_distill.corpus.layout import CorpusUtterance, Problem, problem_listing, scan_subset, subset_directory
from asr_distill.corpus.manifest import corpus_figures, make_cut, write_split
from asr_distill.errors import UserError
from asr_distill.executor import Executor, run_jobs
from asr_distill.files import read_text, write_json
from asr_distill.progress import Progress

log = logging.getLogger("asr_distill")


def prepare(root: Path, subsets: Mapping[str, str | Sequence[str]], out: Path, *,
            utterance_ids: Mapping[str, frozenset[str]] | None = None, min_seconds: float = 0.0,
            max_seconds: float = float("inf"), workers: int = 1, sample_rate: int = 16000,
            on_error: Literal["stop", "skip"] = "stop",
            executor: Executor | None = None) -> dict[str, dict[str, float | int]]:
    """Write out/<split>/cuts.jsonl.gz and rejected.json; return hours, utterances, words, speakers of each split.

    `subsets`: split -> subset folder under `root`, or several.
    `utterance_ids`: split -> the only ids to take (other splits
    take all). Utterances outside [min_seconds, max_seconds] are left out and listed in rejected.json.
    `workers` 0: one a core; an `executor` is used in their place.

    Raises UserError with one line a problem (20 at most) where `on_error` is "stop"; with "skip" each is logged,
    listed in rejected.json and left out. A missing subset folder and a split that ends up empty stop both.
    Raises ValueError for settings out of range.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
    if not 0 <= min_seconds < max_seconds:
        raise ValueError(f"0 <= min_seconds < max_seconds, not {min_seconds} and {max_seconds}")
    folders = {split: (value,) if isinstance(value, str) else tuple(value) for split, value in subsets.items()}
    for subset in dict.fromkeys(name for names in folders.values() for name in names):
        subset_directory(root, subset)
    scans = {split: _select(*_scan(root, names), "+".join(names), (utterance_ids or {}).get(split))
             for split, names in folders.items()}
    facts = _check_all(root, [utterance for utterances, _ in scans.values() for utterance in utterances],
                       workers, sample_rate, executor)
    cuts: dict[str, list[MonoCut]] = {}
    for split, (utterances, problems) in scans.items():
        bad = [Problem(u.audio, message, u.id) for u in utterances if (message := facts[u.audio].problem)]
        problems += bad
        cuts[split] = [make_cut(u, facts[u.audio].num_samples, sample_rate)
                       for u in sorted(utterances, key=lambda u: u.id) if not facts[u.audio].problem]
    everything = [problem for _, problems in scans.values() for problem in problems]
    if everything and on_error == "stop":
        raise UserError(problem_listing(root, everything))
    figures = {split: _write(out, split, cuts[split], scans[split][1], min_seconds, max_seconds) for split in cuts}
    _warn_of_overlap(cuts)
    return figures


def _scan(root: Path, subsets: Sequence[str]) -> tuple[list[CorpusUtterance], list[Problem]]:
    """Utterances and problems of several subset folders together."""
    scans = [scan_subset(root, subset) for subset in subsets]
    return [item for found, _ in scans for item in found], [item for _, wrong in scans for item in wrong]


def read_utterance_ids(path: Path) -> frozenset[str]:
    """A list of utterance ids, one a line. Raises UserError where it is missing or empty."""
    ids = frozenset(read_text(path).split())
    if not ids:
        raise UserError(f"{path}: holds no utterance ids; write one a line")
    return ids


def _select(utterances: list[CorpusUtterance], problems: list[Problem], subset: str, wanted: frozenset[str] | None,
            ) -> tuple[list[CorpusUtterance], list[Problem]]:
    """Only the wanted utterances and their problems; a wanted one that does not exist is a problem of its own."""
    if wanted is None:
        return utterances, problems
    unknown = sorted(wanted - {u.id for u in utterances} - {p.utterance for p in problems})
    utterances = [u for u in utterances if u.id in wanted]
    problems = [p for p in problems if p.utterance is None or p.utterance in wanted]
    if unknown:
        named = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        problems.append(Problem(subset, f"{len(unknown)} of the {len(wanted)} wanted utterances are not there "
                                        f"({named}); mend the list of ids"))
    return utterances, problems


def _check_all(root: Path, utterances: list[CorpusUtterance], workers: int, sample_rate: int,
               executor: Executor | None) -> dict[str, AudioFacts]:
    """Audio path -> facts. A job is a chapter (some 50 files), so that processes are not asked about single files."""
    audio = sorted({utterance.audio for utterance in utterances})
    jobs = ((str(root), tuple(chapter), sample_rate)
            for _, chapter in groupby(audio, key=lambda file: file.rpartition("/")[0]))
    facts: dict[str, AudioFacts] = {}
    with Progress("corpus: audio checked", len(audio), "files") as progress:
        for (_, files, _), found in run_jobs(check_files, jobs, workers=workers, executor=executor):
            facts.update(zip(files, found, strict=True))
            progress.update(len(files))
    return facts


def _write(out: Path, split: str, cuts: list[MonoCut], problems: list[Problem], min_seconds: float,
           max_seconds: float) -> dict[str, float | int]:
    for problem in problems:
        log.warning("left out: %s", problem)
    kept = [cut for cut in cuts if min_seconds <= cut.duration <= max_seconds]
    outside = [cut for cut in cuts if not min_seconds <= cut.duration <= max_seconds]
    if outside:
        log.info("%s: %d utterances outside %g to %g s left out", split, len(outside), min_seconds, max_seconds)
    if not kept:
        raise UserError(f"split '{split}': no utterance is left ({len(problems)} problems, {len(outside)} outside "
                        f"{min_seconds:g} to {max_seconds:g} s); mend the corpus or the settings")
    rejected = [{"utterance": p.utterance, "file": p.file, "problem": p.message} for p in problems]
    rejected += [{"utterance": cut.id, "file": cut.recording.sources[0].source,
                  "problem": f"lasts {cut.duration:.2f} s, outside {min_seconds:g} to {max_seconds:g} s"}
                 for cut in outside]
    write_json(out / split / "rejected.json", rejected)
    write_split(out, split, kept)
    return corpus_figures(kept)


def _warn_of_overlap(cuts: Mapping[str, list[MonoCut]]) -> None:
    """The same utterance in two splits is a leak unless it is meant."""
    first: dict[str, str] = {}
    shared: dict[tuple[str, str], int] = {}
    for split, members in cuts.items():
        for cut in members:
            other = first.setdefault(cut.id, split)
            if other != split:
                shared[other, split] = shared.get((other, split), 0) + 1
    for (one, two), count in shared.items():
        log.warning("splits '%s' and '%s' share %d utterances: scores on one are not independent of the other",
                    one, two, count)
