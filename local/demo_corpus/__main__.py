"""`python -m local.demo_corpus OUT CACHE`: the corpus alone, with default settings or a factor of their minutes."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from asr_distill.errors import UserError
from local.demo_corpus.make import make_corpus
from local.demo_corpus.settings import DemoCorpusSettings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.demo_corpus", description="Make the demo speech corpus.")
    parser.add_argument("out", type=Path, help="folder of the corpus")
    parser.add_argument("cache", type=Path, help="folder of the downloads")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all minutes (default 1)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default one a core)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    default, scale = DemoCorpusSettings(), arguments.scale
    try:
        settings = DemoCorpusSettings(
            minutes_train=default.minutes_train * scale, minutes_fast=default.minutes_fast * scale,
            minutes_dev=default.minutes_dev * scale, minutes_test=default.minutes_test * scale,
            workers=arguments.workers)
        print(json.dumps(make_corpus(arguments.out, arguments.cache, settings), indent=2))
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
