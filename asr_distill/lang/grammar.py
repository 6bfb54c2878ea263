"""G: an ARPA model as an acceptor over word ids (Kaldi's arpa2fst)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import kaldilm

from asr_distill.errors import UserError
from asr_distill.kaldi import kaldifst
from asr_distill.lang.arpa import BEGIN, END, Arpa, check_model


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
    model = Arpa.read(arpa)
    check_model(model, str(arpa))
    with tempfile.TemporaryDirectory() as folder:
        restricted = Path(folder) / "lm.arpa"
        figures = restrict(model, known_words, restricted)
        if figures.ngrams[1] <= 2:
            raise UserError(f"{arpa}: no word of this language model is in the lexicon")
        fst_file = Path(folder) / "G.fst"
        kaldilm.arpa2fst(str(restricted), output_fst=str(fst_file), disambig_symbol="#0",
                         read_symbol_table=str(words_txt))
        fst = kaldifst.StdVectorFst.read(str(fst_file))
    kaldifst.arcsort(fst, sort_type="ilabel")
    return fst, figures


def restrict(model: Arpa, known_words: Container[str], out: Path) -> GrammarFigures:
    """Write the model without the n-grams that hold an unknown word (their mass is not spread over the rest)."""
    kept: Counter[int] = Counter()
    dropped: Counter[int] = Counter()
    sections: dict[int, list[str]] = {}
    for ngram, probability in model.ngrams.items():
        order = len(ngram)
        if all(word in (BEGIN, END) or word in known_words for word in ngram):
            kept[order] += 1
            backoff = model.backoffs.get(ngram)
            tail = "" if backoff is None else f"\t{backoff:.7g}"
            sections.setdefault(order, []).append(f"{probability:.7g}\t{' '.join(ngram)}{tail}\n")
        else:
            dropped[order] += 1
    with open(out, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {order}={kept[order]}\n" for order in sections)
        for order, lines in sections.items():
            file.write(f"\n\\{order}-grams:\n")
            file.writelines(lines)
        file.write("\n\\end\\\n")
    return GrammarFigures(dict(kept), dropped[1], dropped.total())
