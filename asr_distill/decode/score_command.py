"""`asr-distill score REF HYP [HYP2]`: word error rate with interval, and the test between two systems."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from asr_distill.decode.errors import error_listing
from asr_distill.decode.score import RESAMPLES, Comparison, Score, compare, score
from asr_distill.decode.transcripts import Transcripts, check_same_utterances, read_transcripts
from asr_distill.errors import UserError
from asr_distill.files import read_text, write_text

DESCRIPTION = """Word error rate of HYP (and HYP2) against REF, with its 95 % bootstrap interval; with two systems
also the two-sided p of the matched-pairs segment test (NIST's MAPSSWE) and of the paired bootstrap. Files: text
(`id word word ...` a line), lhotse cuts or supervisions (.jsonl, .jsonl.gz), or a hypotheses.jsonl of decoding."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("reference", type=Path, metavar="REF", help="what was said")
    parser.add_argument("hypothesis", type=Path, metavar="HYP", help="what the system heard")
    parser.add_argument("other", type=Path, metavar="HYP2", nargs="?", help="what a second system heard")
    parser.add_argument("--speakers", type=Path, metavar="UTT2SPK",
                        help="draw whole speakers for the intervals: file of `utterance speaker` lines "
                             "(default: the speakers of REF where it is a lhotse manifest, else utterances are drawn)")
    parser.add_argument("--ignore-case", action="store_true", help="compare words in upper case")
    parser.add_argument("--listing", type=Path, metavar="FILE", help="write HYP's errors there, for people")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")


def run(args: argparse.Namespace) -> int:
    """Prints the table or JSON; 0. Raises UserError for files that do not fit."""
    reference = _read(args.reference, args.ignore_case)
    paths = [args.hypothesis, *([args.other] if args.other else [])]
    systems = [_read(path, args.ignore_case) for path in paths]
    for path, system in zip(paths, systems, strict=True):
        try:
            check_same_utterances(reference.words, system.words)
        except UserError as error:
            raise UserError(f"{args.reference}, {path}: {error}") from None
    speakers = _read_speakers(args.speakers) if args.speakers else reference.speakers
    blocks = speakers if speakers else None
    scores = {str(path): score(reference.words, system.words, speakers=blocks)
              for path, system in zip(paths, systems, strict=True)}
    comparison = compare(reference.words, *(system.words for system in systems), speakers=blocks) \
        if args.other else None
    if args.listing:
        write_text(args.listing, error_listing(reference.words, systems[0].words, speakers=blocks))
    drawn = f"{len(set(speakers.values()))} speakers" if speakers else "utterances"
    print(_json(scores, comparison) if args.json else _table(scores, comparison, drawn))
    return 0


def _read(path: Path, ignore_case: bool) -> Transcripts:
    transcripts = read_transcripts(path)
    return transcripts.ignoring_case() if ignore_case else transcripts


def _read_speakers(path: Path) -> dict[str, str]:
    speakers = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if len(fields) != 2:
            raise UserError(f"{path}:{number}: expected `utterance speaker`, not {line!r}")
        speakers[fields[0]] = fields[1]
    return speakers


def _json(scores: dict[str, Score], comparison: Comparison | None) -> str:
    value = {"systems": [{"hypotheses": path, **dataclasses.asdict(result)} for path, result in scores.items()],
             "comparison": dataclasses.asdict(comparison) if comparison else None}
    return json.dumps(value, indent=2, ensure_ascii=False)


def _table(scores: dict[str, Score], comparison: Comparison | None, drawn: str) -> str:
    lines = [f"{'WER %':>7} {'95 % interval':>15} {'sub':>6} {'ins':>6} {'del':>6} {'words':>8} {'utts':>6}  system"]
    for path, s in scores.items():
        interval = f"{s.wer_low:.2f} - {s.wer_high:.2f}"
        lines.append(f"{s.wer:7.2f} {interval:>15} {s.substitutions:6d} {s.insertions:6d} {s.deletions:6d} "
                     f"{s.words:8d} {s.utterances:6d}  {path}")
    lines.append(f"bootstrap over {drawn}, {RESAMPLES:,} resamples")
    if comparison:
        c = comparison
        lines.append(f"second - first: {c.wer_difference:+.2f} points ({c.difference_low:+.2f} to "
                     f"{c.difference_high:+.2f})")
        lines.append(f"p = {c.p:.3g} (matched pairs, {c.segments} segments), {c.p_bootstrap:.3g} (paired bootstrap)")
    return "\n".join(lines)
