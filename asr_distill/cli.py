"""The command line: thin, one verb per kind of work."""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass

from asr_distill import __version__
from asr_distill.command import guarded


@dataclass(frozen=True)
class Verb:
    """One command: its module offers `add_arguments(parser)` and `run(arguments) -> int`."""

    name: str
    module: str
    summary: str


# Modules are imported only when their verb is used: `--help` answers at once.
CONTENTS: dict[str, list[Verb]] = {
    "Train": [
        Verb("recipes", "asr_distill.recipes_command", "list the recipes and their stages"),
        Verb("run", "asr_distill.run_command", "run a recipe's numbered stages, skipping what is done"),
        Verb("study", "asr_distill.study.command", "run a recipe over a grid of settings: one table, and plots"),
        Verb("plan", "asr_distill.plan.command", "time, memory and disk of a recipe on more hours or other machines"),
        Verb("tree", "asr_distill.hmm.tree_command", "print the senone tree of a model directory, for people"),
    ],
    "Evaluate": [
        Verb("score", "asr_distill.decode.score_command",
             "word error rate with confidence interval, paired test, error listing"),
        Verb("report", "asr_distill.report.page_command", "results as one HTML page, with audio"),
    ],
    "Deploy": [
        Verb("export", "asr_distill.export.export_command",
             "a recogniser as onnx, sherpa-onnx or vosk directory, measured there"),
        Verb("vocabulary", "asr_distill.export.vocabulary_command",
             "more words, a grammar or a smaller language model, without training"),
        Verb("transcribe", "asr_distill.export.transcribe_command", "text (and word times) of audio files"),
    ],
    "Measure": [
        Verb("bench", "asr_distill.bench_command", "all speed and size measurements of this machine, in one run"),
    ],
}


def contents() -> str:
    lines = []
    for chapter, verbs in CONTENTS.items():
        lines.append(f"{chapter}:")
        lines += [f"  {verb.name:12}{verb.summary}" for verb in verbs]
    lines.append("\nasr-distill VERB --help tells more of each.")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `asr-distill`; returns the exit code (0; 1 user's mistake; 2 usage; 130 interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="asr-distill", usage="asr-distill VERB ...", epilog=contents(),
        description="Distil an ensemble of acoustic models into one small network, and prove it by word error rate.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"asr-distill {__version__}")
    verbs = {verb.name: verb for chapter in CONTENTS.values() for verb in chapter}
    parser.add_argument("verb", choices=list(verbs), metavar="VERB", help=argparse.SUPPRESS)
    if not argv:
        parser.print_help()
        return 2
    verb = verbs[parser.parse_args(argv[:1]).verb]
    module = importlib.import_module(verb.module)
    own = argparse.ArgumentParser(prog=f"asr-distill {verb.name}", description=verb.summary[:1].upper() +
                                  verb.summary[1:] + ".")
    module.add_arguments(own)
    arguments = own.parse_args(argv[1:])
    arguments.argv = argv[1:]  # for who starts the same command again
    return guarded(module.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
