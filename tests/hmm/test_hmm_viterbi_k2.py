"""Forced alignment by k2 against the compiled Viterbi search and the one for GPUs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hmm_toys import TriphoneToy, toy_lang

from asr_distill.emission import from_matrix
from asr_distill.errors import UserError
from asr_distill.hmm.align import AlignConfig, align_words
from asr_distill.hmm.aligner import Aligner
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import ViterbiBatch
from asr_distill.hmm.viterbi_k2 import K2Viterbi

CPU = torch.device("cpu")
LANG = toy_lang()


def toy_model(width: int) -> HmmModel:
    tree = TriphoneToy() if width == 3 else monophone_model(LANG.phones).tree
    return HmmModel(LANG.phones, (3,) * len(LANG.phones), tree)


@pytest.mark.parametrize("width", [1, 3])
def test_equals_both_other_forms(k2: Any, width: int) -> None:
    random = np.random.default_rng(width)
    hmm = toy_model(width)
    words = [tuple(random.choice(["A", "CAB", "BACK", "X"], n)) for n in (3, 1, 4, 0, 2)]
    graphs = [GraphCompiler(hmm, LANG).compile(each) for each in words]
    table = TransitionTable(hmm)
    scores = [torch.from_numpy(random.normal(-3, 2, (n, len(graph.own_pdfs[0]))).astype(np.float32))
              for n, graph in zip((45, 30, 60, 4, 5), graphs, strict=True)]  # the last has too few frames
    expected = ViterbiBatch(graphs, table, self_loop_scale=0.3, device=CPU).search(scores)
    found = K2Viterbi(graphs, table, self_loop_scale=0.3, device=CPU).search(scores)
    assert [each is None for each in found] == [each is None for each in expected] == [False] * 4 + [True]
    for ours, theirs in zip(expected[:4], found[:4], strict=True):
        assert ours is not None and theirs is not None
        assert theirs[0].tolist() == ours[0].tolist() and theirs[0].dtype == np.int32
        assert theirs[1] == pytest.approx(ours[1], abs=1e-3)


def test_as_the_backend_of_an_aligner(k2: Any) -> None:
    random = np.random.default_rng(4)
    hmm = toy_model(1)
    graphs = [GraphCompiler(hmm, LANG).compile(words) for words in [("CAB",), ("A",), ("CAB", "BACK"), ("BACK",)] * 2]
    lengths = [30, 2, 37, 25, 0, 19, 18, 6]
    scores = [random.normal(0, 3, (n, hmm.num_pdfs)).astype(np.float32) for n in lengths]
    found = [dict(Aligner(hmm, AlignConfig(backend=backend, silence_boost=1.5, batch_cells=2000), CPU).align(
        graphs, lengths, lambda i: from_matrix(torch.from_numpy(scores[i])))) for backend in ("auto", "k2")]
    assert set(found[0]) == set(found[1]) == set(range(8))
    for index, ours in found[0].items():
        theirs = found[1][index]
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert theirs.states.tolist() == ours.states.tolist()
            assert (theirs.score, theirs.acoustic) == (pytest.approx(ours.score, abs=1e-3),
                                                       pytest.approx(ours.acoustic, abs=1e-2))
    assert sum(path is not None for path in found[0].values()) >= 4


def test_word_times(k2: Any) -> None:
    hmm = toy_model(1)
    phones = [1] * 10 + [5] * 6 + [3] * 8 + [4] * 6 + [1] * 5 + [3] * 7  # SIL K AA B SIL AA
    scores = torch.full((len(phones), hmm.num_pdfs), -10.0)
    for t, phone in enumerate(phones):
        scores[t, hmm.tree.pdf(0, phone, 0, 0) : hmm.tree.pdf(0, phone, 0, 2) + 1] = 0.0
    spans = align_words(scores, ("CAB", "A"), hmm, LANG, AlignConfig(acoustic_scale=1.0, backend="k2"))
    assert [(s.word, s.start_frame, s.end_frame) for s in spans] == [("CAB", 10, 30), ("A", 35, 42)]


def test_without_k2_it_is_told_before_anything_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(UserError, match=r"k2-fsa\.github\.io/k2"):
        Aligner(toy_model(1), AlignConfig(backend="k2"), CPU)
