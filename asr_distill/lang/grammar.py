"""G: an ARPA model as an acceptor over word ids (Kaldi's arpa2fst)."""

from __future__ import annotations

import tempfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import kaldilm
import numpy as np

from asr_distill.errors import UserError
from asr_distill.kaldi import kaldifst
from asr_distill.lang.arpa import read_arpa, write_arpa
from asr_distill.lang.ngram_model import BEGIN, END, NgramModel, NgramTable
from asr_distill.lang.ngram_scorer import check_model


@dataclass(frozen=True)
class GrammarFigures:
    """What was kept of the language model."""

    ngrams: dict[int, int]  # kept, per order
    dropped_words: int  # words of the model that the lexicon lacks
    dropped_ngrams: int  # n-grams (of all orders) that hold such a word


def grammar_fst(arpa: Path, known_words: Container[str],
                words_txt: Path) -> tuple[kaldifst.StdVectorFst, GrammarFigures]:
    """G with #0 on its backoff arcs, `<s>` and `</s>` as start and end, sorted by input label.

    N-grams with a word that is not in `known_words` are left out. `words_txt` is the symbol table.
    Raises UserError where `arpa` is no complete model, is broken, or shares no word with the lexicon.
    """
    model = read_arpa(arpa)
    check_model(model, str(arpa))
    with tempfile.TemporaryDirectory() as folder:
        restricted = Path(folder) / "lm.arpa"
        kept, figures = restrict(model, known_words)
        if figures.ngrams[1] <= 2:
            raise UserError(f"{arpa}: no word of this language model is in the lexicon")
        write_arpa(kept, restricted)
        fst_file = Path(folder) / "G.fst"
        kaldilm.arpa2fst(str(restricted), output_fst=str(fst_file), disambig_symbol="#0",
                         read_symbol_table=str(words_txt))
        fst = kaldifst.StdVectorFst.read(str(fst_file))
    kaldifst.arcsort(fst, sort_type="ilabel")
    return fst, figures


def restrict(model: NgramModel, known_words: Container[str]) -> tuple[NgramModel, GrammarFigures]:
    """The model without the n-grams that hold an unknown word (their mass is not spread over the rest)."""
    known = np.array([word in (BEGIN, END) or word in known_words for word in model.words])
    words = [word for word, kept in zip(model.words, known, strict=True) if kept]
    tables: list[NgramTable] = []
    renumbered = np.cumsum(known) - 1  # old row -> new row, of words
    keep, moved = known, renumbered  # the same of the order below
    for order, table in enumerate(model.tables, 1):
        keys = renumbered[known]
        if order > 1:
            prefix, last = np.divmod(table.keys, len(model.words))
            keep, below = keep[prefix] & known[last], moved
            keys = below[prefix[keep]] * len(words) + renumbered[last[keep]]
            moved = np.cumsum(keep) - 1
        tables.append(NgramTable(keys, table.log10[keep], table.backoff[keep]))
    kept = NgramModel(words, [table for table in tables if len(table)])
    return kept, GrammarFigures(dict(enumerate(kept.sizes, 1)), len(model.words) - len(words),
                                sum(model.sizes) - sum(kept.sizes))
