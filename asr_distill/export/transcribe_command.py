"""`asr-distill transcribe DIR FILE...`: text of sound files."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from asr_distill.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="an exported recogniser (a recipe's export stage)")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE",
                        help="sound files: wav, flac, ogg, mp3; any rate, channels and length")
    parser.add_argument("--json", action="store_true",
                        help="a JSON object a line and file, with start, end (seconds) and confidence of every word")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the network (default 1)")
    parser.add_argument("--skip-graph-check", action="store_true",
                        help="do not compare the large search graph with its digest: starts sooner")


def run(arguments: argparse.Namespace) -> int:
    """Print a transcript per file; a file that cannot be read is reported, and the others still come. 1 if any."""
    from asr_distill.export.transcribe import Transcriber  # heavy: not for --help

    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    transcriber = Transcriber(arguments.directory, threads=arguments.threads,
                              check_graph=not arguments.skip_graph_check)
    failed = 0
    for path in arguments.files:
        try:
            transcript = transcriber.transcribe(path, word_times=arguments.json)
        except UserError as error:
            failed += 1
            print(f"asr-distill: error: {error}", file=sys.stderr)
            if arguments.json:
                print(json.dumps({"file": str(path), "error": str(error)}, ensure_ascii=False), flush=True)
            continue
        if arguments.json:
            fields = {"file": str(path), **dataclasses.asdict(transcript)}
            fields["seconds"], fields["rtf"] = round(transcript.seconds, 3), round(transcript.rtf, 4)
            print(json.dumps(fields, ensure_ascii=False), flush=True)
        else:
            several = len(arguments.files) > 1
            print(f"{path}\t{transcript.text}" if several else transcript.text, flush=True)
    return 1 if failed else 0
