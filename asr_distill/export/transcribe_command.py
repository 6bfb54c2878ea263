"""`asr-distill transcribe DIR FILE...`: text of sound files."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.executor import available_cpus
from asr_distill.export import live_command

FORM_NAMES = ("json", "srt", "ctm")  # of forms.FORMS; plain text without a flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR",
                        help="a recogniser, or the folder of an experiment that has exported one")
    files = parser.add_argument(
        "files", type=Path, nargs="+", default=[], metavar="FILE",
        help="sound files (wav, flac, ogg, mp3; any rate, channels and length) and folders of them")
    files.required = False  # --stream takes none ("*" would allow no option between DIR and FILE)
    form = parser.add_mutually_exclusive_group()
    for name, text in zip(FORM_NAMES, (
            "a JSON object a line and file, with start, end (seconds) and confidence of every word",
            "subtitles (SubRip)", "NIST's CTM: file, channel, start, duration, word, confidence"), strict=True):
        form.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--nbest", type=int, default=0, metavar="N",
                        help="N different texts with their posteriors (plain text and JSON)")
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="a file for each recording below FOLDER; what is there already is not done again")
    parser.add_argument("--force", action="store_true", help="with --out: do again what is there already")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="recordings at a time (0: one a core; default 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the network (default 1)")
    parser.add_argument("--skip-graph-check", action="store_true",
                        help="do not compare the large search graph with its digest: starts sooner")
    live_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """A transcript per recording; one that cannot be read is reported, and the others still come. 1 if any."""
    if arguments.stream:
        for name in ("srt", "ctm", "nbest", "out", "force"):
            if getattr(arguments, name):
                raise UserError(f"--{name} is for sound files; --stream prints text or, with --json, objects")
        if arguments.jobs != 1:
            raise UserError("--jobs is for sound files; --stream is one recording")
        return live_command.run(arguments)
    for name in live_command.OPTIONS:
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name} is for --stream, sound from standard input")
    if not arguments.files:
        raise UserError("no sound files given; name some, or --stream for sound from standard input")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("asr-distill: error: interrupted; what --out holds is kept: the same command goes on from there",
              file=sys.stderr, flush=True)
        os._exit(130)  # at once: threads inside compiled code cannot be told to end, and leave nothing half done


def _run(arguments: argparse.Namespace) -> int:
    from asr_distill.export.batch import Watch, transcribe_all  # heavy: not for --help
    from asr_distill.export.forms import FORMS
    from asr_distill.export.output import InFolder, Output, Printed
    from asr_distill.export.recordings import find_recordings, shown
    from asr_distill.export.source import recogniser_in
    from asr_distill.export.transcribe import Transcriber

    name = next((name for name in FORM_NAMES if getattr(arguments, name)), "text")
    form = FORMS[name]
    _check(arguments)
    if arguments.nbest and not form.alternatives:
        raise UserError(f"--{name} has no place for n best; use --json or plain text with --nbest")
    recordings = find_recordings(arguments.files)
    output: Output
    if arguments.out:
        folder = output = InFolder(form, arguments.out, recordings)
        todo = recordings if arguments.force else folder.unfinished(recordings)
        if len(todo) < len(recordings):
            print(f"asr-distill: {len(recordings) - len(todo)} of {len(recordings)} recordings are in {arguments.out} "
                  "already (--force does them again)", file=sys.stderr)
    else:
        todo, output = recordings, Printed(form, recordings)
    if not todo:
        return 0
    transcriber = Transcriber(recogniser_in(arguments.directory), threads=arguments.threads,
                              check_graph=not arguments.skip_graph_check)
    failed = 0
    with Watch(todo) as watch:
        for outcome in transcribe_all(transcriber, todo, jobs=arguments.jobs or available_cpus(),
                                      word_times=form.word_times, nbest=arguments.nbest, watch=watch):
            watch.clear()
            if outcome.error:
                failed += 1
                print(f"asr-distill: error: {shown(str(outcome.error))}", file=sys.stderr)
            output.write(outcome)
    return 1 if failed else 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises UserError for settings out of their range."""
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    if arguments.jobs < 0 or arguments.nbest < 0:
        raise UserError("--jobs and --nbest must not be negative")
    if arguments.force and not arguments.out:
        raise UserError("--force goes with --out FOLDER")
