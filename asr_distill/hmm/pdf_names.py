"""Which phones a pdf stands for, whatever their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

from asr_distill.hmm.decision_tree import PHONE, DecisionTree
from asr_distill.hmm.model import HmmModel, base_phone


def pdf_phones(hmm: HmmModel) -> list[tuple[str, ...]]:
    """For each pdf the base phones that reach it (stress and word position left out), in the phones' order."""
    found: list[dict[str, None]] = [{} for _ in range(hmm.num_pdfs)]
    for index, phone in enumerate(hmm.phones, 1):
        for state in range(hmm.states[index - 1]):
            pdfs = (_leaves(hmm.tree, hmm.tree.roots[index - 1][state], index) if isinstance(hmm.tree, DecisionTree)
                    else [hmm.tree.pdf(0, index, 0, state)])
            for pdf in pdfs:
                found[pdf][base_phone(phone)] = None
    return [tuple(names) for names in found]


def _leaves(tree: DecisionTree, at: int, phone: int) -> Iterator[int]:
    """Pdfs below a reference for this phone between any neighbours."""
    if at < 0:
        yield -1 - at
        return
    place, asked, yes, no = tree.nodes[at]
    if place == PHONE:
        yield from _leaves(tree, yes if phone in tree.sets[asked] else no, phone)
    else:
        for reference in (yes, no):
            yield from _leaves(tree, reference, phone)
