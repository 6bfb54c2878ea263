"""`asr-distill tree DIR`: which question leads which senone where."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="a directory with hmm.json (an acoustic model)")
    parser.add_argument("--phone", metavar="PHONE",
                        help="only this phone: AH (all its variants) or AH0_B (its own way)")
    parser.add_argument("--state", type=int, metavar="N", help="only this state of a phone, from 0")
    parser.add_argument("--pdf", type=int, metavar="N", help="instead: which contexts reach this pdf (senone)")


def run(arguments: argparse.Namespace) -> int:
    """Print the tree or a pdf's contexts. Raises UserError for a phone, state or pdf that the model lacks."""
    from asr_distill.errors import UserError
    from asr_distill.hmm.model import HmmModel  # heavy: not for --help
    from asr_distill.hmm.tree_text import pdf_text, tree_text

    hmm = HmmModel.load(arguments.directory)
    if arguments.pdf is None:
        print(tree_text(hmm, arguments.phone, arguments.state))
    elif arguments.phone is None and arguments.state is None:
        print(pdf_text(hmm, arguments.pdf))
    else:
        raise UserError("--pdf goes without --phone and --state: a pdf belongs to all that reach it")
    return 0
