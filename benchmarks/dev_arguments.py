"""The command line of benchmarks that a recogniser and development speech are given to."""

from __future__ import annotations

import argparse
from pathlib import Path


def dev_parser(doc: str | None, *, utterances: int = 0, meaning: str = "") -> argparse.ArgumentParser:
    """RECOGNISER --dev FOLDER [--dev-ids FILE] [--utterances N]."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("--dev", type=Path, required=True, help="a folder in LibriSpeech's layout")
    parser.add_argument("--dev-ids", type=Path)
    parser.add_argument("--utterances", type=int, default=utterances, help=meaning or None)
    return parser
