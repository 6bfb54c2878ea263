"""`asr-distill export DIR --to TARGET`: a recogniser in the form that a stock runtime loads."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from asr_distill.errors import UserError
from asr_distill.export.vocabulary_command import add_word_arguments, check_partners, config_of
from asr_distill.logs import to_terminal

DESCRIPTION = """Make of a recogniser (a recipe's export stage wrote it) a directory for another runtime, with a README,
a manifest of sizes and sha256 digests, and the word error rate that it has there. With --dev it is decoded by that
runtime and refused where it is worse than the recogniser by more than --margin (paired test)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("directory", type=Path, metavar="DIR", help="a recogniser, or an experiment's folder")
    parser.add_argument("--to", required=True, metavar="TARGET", help="onnx, sherpa-onnx or vosk")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder to write (default: ./TARGET[-precision])")
    parser.add_argument("--precision", metavar="KIND",
                        help="float32 (default), float16, int8, int8-static; vosk: float32, int16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="another setting of the target (repeatable)")
    parser.add_argument("--dev", type=Path, metavar="FOLDER",
                        help="speech to measure on: a folder in LibriSpeech's layout, or a split's manifest folder")
    parser.add_argument("--dev-audio", type=Path, metavar="ROOT", help="where the manifest's audio lies")
    parser.add_argument("--dev-ids", type=Path, metavar="FILE", help="the only utterance ids to take, one a line")
    parser.add_argument("--utterances", type=int, metavar="N", help="so many of them (default: all)")
    parser.add_argument("--margin", type=float, metavar="POINTS",
                        help="percent points of WER that may be lost (default 0.3)")
    parser.add_argument("--force", action="store_true", help="write it even if it is worse")
    add_word_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the export and print what it is; 0."""
    from asr_distill.export.devset import DevSet  # heavy: not for --help
    from asr_distill.export.exporter import exporter_of
    from asr_distill.export.exporting import default_out, export, settings_of
    from asr_distill.export.gate import GateConfig
    from asr_distill.export.source import Source
    from asr_distill.export.vocabulary import change_vocabulary

    to_terminal()
    exporter = exporter_of(arguments.to)
    overrides = arguments.overrides + ([f"precision={arguments.precision}"] if arguments.precision else [])
    settings = settings_of(exporter, overrides)
    check_partners(arguments)
    for name in ("dev_audio", "dev_ids", "utterances", "margin"):
        if getattr(arguments, name) is not None and not arguments.dev:
            raise UserError(f"--{name.replace('_', '-')} is of the measurement on --dev; give --dev FOLDER too")
    if arguments.utterances is not None and arguments.utterances < 1:
        raise UserError(f"--utterances {arguments.utterances}: give 1 or more, or leave it out for all")
    try:
        gate = GateConfig() if arguments.margin is None else GateConfig(arguments.margin)
    except ValueError as error:
        raise UserError(f"--margin: {error}") from None
    dev = DevSet.open(arguments.dev, audio=arguments.dev_audio, ids=arguments.dev_ids,
                      utterances=arguments.utterances or 0) if arguments.dev else None
    out = arguments.out or default_out(exporter.name, settings)
    with tempfile.TemporaryDirectory() as folder:
        recogniser = arguments.directory
        if arguments.words:
            recogniser = Path(folder) / "recogniser"
            change_vocabulary(arguments.directory, recogniser, config_of(arguments))
        made = export(Source.open(recogniser), exporter.name, out, settings, dev=dev, gate=gate,
                      force=arguments.force)
    print(f"{out}: {made['bytes']:,} bytes, of these {made['network_bytes']:,} the network")
    return 0
