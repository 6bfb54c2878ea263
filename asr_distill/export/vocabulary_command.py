"""`asr-distill vocabulary DIR --out NEW`: other words for a recogniser, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asr_distill.errors import UserError
from asr_distill.logs import to_terminal

if TYPE_CHECKING:
    from asr_distill.export.vocabulary import VocabularyConfig

PROBABILITY = 1e-4  # of each word that is added
DESCRIPTION = """Make of a recogniser another one that hears more words (--words), only the sentences of a grammar
(--grammar), or the same words with a smaller graph (--prune). The network stays as it is; docs/vocabulary.md says what
the files look like."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("directory", type=Path, metavar="DIR", help="a recogniser, or an experiment's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="NEW", help="folder to write")
    add_word_arguments(parser)
    parser.add_argument("--grammar", type=Path, metavar="FILE",
                        help="a sentence a line, with (a | b), [x] and /2/ for weights; or a .json list of phrases")
    parser.add_argument("--prune", type=float, default=0.0, metavar="THRESHOLD",
                        help="leave out n-grams that cost the perplexity relatively less, as 1e-7")


def add_word_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--words", type=Path, metavar="FILE",
                        help="words to add, one a line: WORD, WORD PH PH ..., WORD 1e-3, WORD like OTHER")
    parser.add_argument("--probability", type=float, metavar="P",
                        help="of each word that is added (default 1e-4; all together at most 0.01)")
    parser.add_argument("--spell", action="store_true",
                        help="words that no dictionary has are said by the names of their letters")
    parser.add_argument("--g2p", type=Path, metavar="FOLDER",
                        help="keep there what was learned to guess pronunciations, for the next time")


def run(arguments: argparse.Namespace) -> int:
    """Write the recogniser and print what changed; 0."""
    from asr_distill.export.vocabulary import change_vocabulary, summary  # heavy: not for --help

    to_terminal()
    facts = change_vocabulary(arguments.directory, arguments.out,
                              config_of(arguments, grammar=arguments.grammar, prune=arguments.prune))
    for word, spoken in facts["pronunciations"].items():
        print(f"{word}\t{' | '.join(spoken['phones'])}\t({spoken['from']})")
    print(f"{arguments.out}: {summary(facts)}")
    return 0


def config_of(arguments: argparse.Namespace, *, grammar: Path | None = None, prune: float = 0.0) -> VocabularyConfig:
    """The settings of a command that has `add_word_arguments`. Raises UserError where they contradict each other."""
    from asr_distill.export.vocabulary import VocabularyConfig

    check_partners(arguments, grammar=grammar)
    probability = PROBABILITY if arguments.probability is None else arguments.probability
    try:
        return VocabularyConfig(words=arguments.words, probability=probability, spell=arguments.spell,
                                g2p=arguments.g2p, grammar=grammar, prune=prune)
    except ValueError as error:
        raise UserError(f"vocabulary: {error}") from None


def check_partners(arguments: argparse.Namespace, *, grammar: Path | None = None) -> None:
    """Raises UserError for an option that says something of words, where there are none."""
    if arguments.probability is not None and not arguments.words:
        raise UserError("--probability is of the words that --words adds; give --words FILE too")
    if (arguments.spell or arguments.g2p) and not (arguments.words or grammar):
        raise UserError(f"--{'spell' if arguments.spell else 'g2p'} is for new words; give --words FILE too")
