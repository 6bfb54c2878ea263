"""`asr-distill report EXP`: the results of an experiment as one HTML page that needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from asr_distill.errors import UserError

DESCRIPTION = """Write the results of a finished experiment as one HTML file: tables, charts, and utterances to listen
to with what the systems heard. The page loads nothing from anywhere; the recordings of its examples are inside it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("experiment", type=Path, metavar="EXP", help="an experiment's folder, with its RESULTS.json")
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write (default EXP/report.html)")
    parser.add_argument("--examples", type=int, default=8, metavar="N",
                        help="utterances to listen to (default 8; 0: no audio in the page)")
    parser.add_argument("--audio-limit", type=float, default=8.0, metavar="MB",
                        help="most megabytes of FLAC in the page (default 8)")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="where the audio lies, if the corpus was moved")


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print what it is; 0."""
    from asr_distill.files import write_text  # heavy: not for --help
    from asr_distill.logs import to_terminal
    from asr_distill.report.page.examples import collect_examples
    from asr_distill.report.page.experiment import Experiment
    from asr_distill.report.page.page import page

    if arguments.examples < 0:
        raise UserError(f"--examples {arguments.examples}: give 0 (none) or more")
    if not 0 < arguments.audio_limit < float("inf"):
        raise UserError(f"--audio-limit {arguments.audio_limit:g}: give megabytes above 0 (--examples 0: no audio)")
    if arguments.out and arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: is a folder; give a file's name")
    to_terminal()
    experiment = Experiment(arguments.experiment)
    examples = collect_examples(experiment, arguments.examples, round(1e6 * arguments.audio_limit), arguments.corpus)
    out = arguments.out or arguments.experiment / "report.html"
    write_text(out, page(experiment, examples))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(examples.items)} examples "
          f"({examples.bytes / 1e6:.1f} MB of audio)")
    if examples.reason:
        print(examples.reason)
    return 0
