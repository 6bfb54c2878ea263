"""What a pdf stands for, in a word: `AH 1` is a senone of the middle state of AH, in whatever neighbourhood."""

from __future__ import annotations

from asr_distill.hmm.decision_tree import DecisionTree
from asr_distill.hmm.model import HmmModel, base_phone


def pdf_phones(hmm: HmmModel) -> list[tuple[str, ...]]:
    """For each pdf the base phones that it is reached from (stress and word position left out), in their order."""
    found: list[dict[str, None]] = [{} for _ in range(hmm.num_pdfs)]
    leaves: dict[int, frozenset[int]] = {}
    for index, phone in enumerate(hmm.phones, 1):
        for state in range(hmm.states[index - 1]):
            if isinstance(hmm.tree, DecisionTree):
                pdfs = _leaves(hmm.tree, hmm.tree.roots[index - 1][state], leaves)
            else:
                pdfs = frozenset([hmm.tree.pdf(0, index, 0, state)])
            for pdf in pdfs:
                found[pdf][base_phone(phone)] = None
    return [tuple(names) for names in found]


def _leaves(tree: DecisionTree, at: int, known: dict[int, frozenset[int]]) -> frozenset[int]:
    """Pdfs below a reference, whatever the phone; `known`: those of the references seen before."""
    if at not in known:
        known[at] = frozenset([-1 - at]) if at < 0 else frozenset().union(
            *(_leaves(tree, reference, known) for reference in tree.nodes[at][2:]))
    return known[at]
