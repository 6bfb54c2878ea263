"""Which phones reach a pdf: against every context one by one."""

from __future__ import annotations

import dataclasses

from tree_toys import PHONES, SILENCE, STATES, toy_corpus, toy_hmm

from asr_distill.hmm.model import base_phone, monophone_model
from asr_distill.hmm.pdf_names import pdf_phones
from asr_distill.hmm.tree_build import TreeConfig, build_tree
from asr_distill.hmm.tree_stats import accumulate_tree_stats


def test_the_phones_of_a_built_tree() -> None:
    features, alignment, offsets, _ = toy_corpus(utterances=30)
    stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    tree, _ = build_tree(stats, PHONES, STATES, TreeConfig(leaves=60, min_count=4, split_threshold=3))
    hmm = dataclasses.replace(toy_hmm(), tree=tree)
    reached: list[set[str]] = [set() for _ in range(hmm.num_pdfs)]
    for index, phone in enumerate(PHONES, 1):
        for state in range(STATES[index - 1]):
            for left in range(len(PHONES) + 1):
                for right in range(len(PHONES) + 1):
                    reached[tree.pdf(left, index, right, state)].add(base_phone(phone))
    found = pdf_phones(hmm)
    assert [set(names) for names in found] == reached
    assert all(len(set(names)) == len(names) for names in found)


def test_monophones() -> None:
    hmm = monophone_model(("SIL", "AH0", "AH1", "B"), states=2, share_stress=True)
    assert pdf_phones(hmm) == [("SIL",), ("SIL",), ("AH",), ("AH",), ("B",), ("B",)]
