"""The finished tree: on disk, in alignment graphs, in Kaldi's ContextDependency, on real speech."""

from __future__ import annotations

import dataclasses
import itertools
import lzma
import timeit
from pathlib import Path

import numpy as np
import pytest
import torch
from hmm_toys import all_paths, toy_lang
from tree_toys import PHONES, SILENCE, STATES, toy_corpus, toy_hmm

from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.errors import UserError
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import AlignConfig, Alignment, align_store
from asr_distill.hmm.decision_tree import LEFT, PHONE, RIGHT, DecisionTree
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.kaldi import context_dependency, transition_model
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.mono import MonoConfig, train_mono
from asr_distill.hmm.tree_build import TreeConfig, build_tree
from asr_distill.hmm.tree_stats import (
    accumulate_tree_stats,
    context_independent_phones,
    convert_alignment,
)
from asr_distill.lang.lang import prepare_lang
from asr_distill.lang.lexicon import Lexicon

SMALL = DecisionTree(sets=(frozenset({1, 3}), frozenset({2})), roots=((-1, 0), (-5,), (0, 1)),
                     nodes=((LEFT, 0, 2, 1), (RIGHT, 1, -2, -3), (PHONE, 1, -2, -4)))


@pytest.fixture(scope="module")
def hmm() -> HmmModel:
    features, alignment, offsets, _ = toy_corpus(utterances=30)
    stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    tree, _ = build_tree(stats, PHONES, STATES, TreeConfig(leaves=60, min_count=4, split_threshold=3))
    assert {place for place, *_ in tree.nodes} == {LEFT, PHONE, RIGHT}
    return dataclasses.replace(toy_hmm(), tree=tree)


def walk(data: dict[str, list[str]], left: int, phone: int, right: int, state: int) -> int:
    """The pdf by the written form alone."""
    at = int(data["roots"][phone - 1].split()[state])
    while at >= 0:
        place, asked, yes, no = map(int, data["nodes"][at].split())
        at = yes if str((left, phone, right)[place]) in data["sets"][asked].split() else no
    return -1 - at


def test_questions_are_answered_by_hand() -> None:
    assert SMALL.num_pdfs == 5 and SMALL.context_width == 3 and SMALL.kind == "decision"
    assert SMALL.pdf(9, 1, 9, 0) == 0 and SMALL.pdf(9, 2, 9, 0) == 4
    assert SMALL.pdf(1, 1, 2, 1) == 3 and SMALL.pdf(3, 3, 0, 0) == 3  # left in {1, 3}, phone not in {2}
    assert SMALL.pdf(2, 3, 2, 0) == SMALL.pdf(0, 3, 2, 1) == 1  # left not in {1, 3}, right in {2}
    assert SMALL.pdf(0, 1, 0, 1) == 2  # the edge of an utterance is in no set


def test_the_tree_comes_back_from_disk_with_its_model(hmm: HmmModel, tmp_path: Path) -> None:
    hmm.save(tmp_path)
    back = HmmModel.load(tmp_path)
    assert back == hmm and isinstance(back.tree, DecisionTree) and back.num_pdfs == hmm.num_pdfs
    data = hmm.tree.to_dict()
    for context in itertools.product(range(10), range(1, 10), range(10), range(2)):
        assert hmm.tree.pdf(*context) == back.tree.pdf(*context) == walk(data, *context)


@pytest.mark.parametrize("change", [
    {"nodes": ["0 0 -1"]}, {"nodes": ["0 7 -1 -2"]}, {"nodes": ["3 0 -1 -2"]}, {"nodes": ["0 0 0 -2"]},
    {"nodes": ["0 0 9 -2"]}, {"nodes": ["0 0 -1 -9"]}, {"nodes": ["0 0 x -1"]}, {"roots": ["4"]}, {"sets": None}])
def test_a_damaged_tree_is_refused(hmm: HmmModel, tmp_path: Path, change: dict[str, list[str]]) -> None:
    hmm.save(tmp_path)
    whole = {"kind": "decision", "sets": ["1"], "nodes": ["0 0 -1 -2"], "roots": ["0 0"]}
    DecisionTree.from_dict(whole)
    broken = HmmModel(("SIL",), (2,), _Raw({**whole, **change}))
    broken.save(tmp_path)
    with pytest.raises(UserError, match=r"hmm\.json: not an HMM model"):
        HmmModel.load(tmp_path)


class _Raw(DecisionTree):
    """Writes what it is told."""

    def __init__(self, data: dict[str, list[str]]):
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "num_pdfs", 2)

    def to_dict(self) -> dict[str, list[str]]:
        return self.data  # type: ignore[attr-defined]


def test_a_lookup_takes_microseconds(hmm: HmmModel) -> None:
    contexts = list(itertools.product(range(10), range(1, 10), range(10), range(2)))
    seconds = min(timeit.repeat(lambda: [hmm.tree.pdf(*context) for context in contexts], number=5, repeat=5))
    assert seconds / (5 * len(contexts)) < 3e-6


def test_alignment_graphs_carry_the_trees_pdfs() -> None:
    lang = toy_lang()  # SIL SPN AA B K
    tree = DecisionTree(sets=(frozenset({3}), frozenset({1})), nodes=((LEFT, 0, -2, 1), (RIGHT, 1, -3, -4)),
                        roots=((-1, -1), (-1, -1), (0, 0), (-5, 0), (1, -5)))
    hmm = HmmModel(lang.phones, (2,) * 5, tree)
    graph = GraphCompiler(hmm, lang).compile(["BACK", "A"])
    seen = set()
    for path, _ in all_paths(graph):
        phones = [int(graph.phone[s]) for s in path if graph.state[s] == 0]
        for at, s in enumerate(path):
            instance = at // 2
            left = phones[instance - 1] if instance else 0
            right = phones[instance + 1] if instance + 1 < len(phones) else 0
            assert graph.pdf[s] == tree.pdf(left, phones[instance], right, int(graph.state[s]))
            seen.add(int(graph.pdf[s]))
    assert seen == {0, 1, 2, 3, 4}


def test_kaldis_context_dependency_says_the_same(hmm: HmmModel) -> None:
    context = context_dependency(hmm)
    assert context.context_width == 3 and context.num_pdfs == hmm.num_pdfs
    neighbours = range(len(PHONES) + 1)
    for left, phone, right in itertools.product(neighbours, range(1, len(PHONES) + 1), neighbours):
        for state in range(STATES[phone - 1]):
            assert context.compute([left, phone, right], state) == (True, hmm.tree.pdf(left, phone, right, state))
    entries = {entry.__getstate__()[:3] for entry in transition_model(hmm, context).tuples}
    assert {pdf for *_, pdf in entries} == set(range(hmm.num_pdfs))


@pytest.mark.slow
def test_context_tells_of_unheard_speech_too(shared: Path, librispeech: Path, tmp_path: Path) -> None:
    """A tree from one half of real utterances raises the other half's likelihood, unseen contexts among them."""
    cpu = torch.device("cpu")
    prepare(librispeech, {"train": "train-clean-5"}, tmp_path / "corpus")
    compute_store(load_split(tmp_path / "corpus", "train", librispeech), tmp_path / "store", FbankConfig(), cpu,
                  workers=1, label="features")
    store = FrameStore(tmp_path / "store")
    (tmp_path / "lexicon.txt").write_bytes(lzma.decompress((shared / "reference" / "lexicon.txt.xz").read_bytes()))
    known = Lexicon.read(tmp_path / "lexicon.txt")
    spoken = {word for utterance in store.utterances for word in utterance.words}
    lang = prepare_lang(known.restricted(word for word in spoken if word in known), tmp_path / "lang")
    mono = MonoConfig(utterances=100, iterations=8, gaussians=250, growth_iterations=6, realign=tuple(range(1, 8)))
    hmm, gmm, _ = train_mono(store, lang, mono, tmp_path / "mono", cpu)
    whole = align_store(gmm, store, hmm, lang, AlignConfig(), cpu)
    halves = []
    for indices in np.split(np.arange(len(store.utterances)), [len(store.utterances) // 2]):
        rows = slice(int(store.offsets[indices[0]]), int(store.offsets[indices[-1] + 1]))
        alignment = Alignment(whole.pdf_ids[rows], whole.phone_ids[rows], whole.states[rows], whole.aligned[indices],
                              whole.num_pdfs)
        features = torch.cat([gmm.frontend(store.features(i, cpu)) for i in indices.tolist()])
        halves.append((features, alignment, store.offsets[[*indices, indices[-1] + 1]] - rows.start))
    stats = [accumulate_tree_stats(*half, hmm, context_independent_phones(lang.phones)) for half in halves]
    tree, figures = build_tree(stats[0], lang.phones, hmm.states, TreeConfig(leaves=400))
    assert figures["splits"] == 400 - figures["roots"] and figures["seconds"] < 20

    def held_out(pdfs: list[np.ndarray]) -> float:
        """Mean log-likelihood of the second half under Gaussians of the first, by float64 numpy on raw frames."""
        x, y = (half[0].double().numpy() for half in halves)
        total = 0.0
        for number in np.unique(pdfs[1][pdfs[1] >= 0]):
            own = x[pdfs[0] == number]
            mean, variance = own.mean(0), np.maximum(own.var(0), 0.01)
            scores = np.log(2 * np.pi * variance) + (y[pdfs[1] == number] - mean) ** 2 / variance
            total -= 0.5 * float(scores.sum())
        return total / int((pdfs[1] >= 0).sum())

    before = held_out([half[1].pdf_ids for half in halves])
    senones = dataclasses.replace(hmm, tree=tree)
    after = held_out([convert_alignment(half[1], half[2], senones).pdf_ids for half in halves])
    assert 0.3 < after - before < figures["gain_per_frame"]
    seen = {tuple(context) for context in stats[0].contexts.tolist()}
    fresh = np.array([tuple(context) not in seen for context in stats[1].contexts.tolist()])
    assert stats[1].counts[fresh].sum() > 0.05 * stats[1].counts.sum(), "contexts that only the questions can place"
