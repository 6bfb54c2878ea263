"""Rescoring of the n best against searches with the other model in the graph, and the grid against plain loops."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from decode_toy import LEXICON, WORDS, ToyEmission, toy_corpus, toy_graph

from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.journal import read_hypotheses, read_nbest
from asr_distill.decode.rescore import (
    RescoreConfig,
    Weights,
    oracle_wer,
    read_alternatives,
    rescore_store,
    rescored,
    tune_weights,
)
from asr_distill.decode.score import error_counts, texts_of
from asr_distill.decode.search import decode_store
from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays

CPU = torch.device("cpu")
SEARCH = SearchConfig(beam=60.0, lattice_beam=25.0, nbest=400, insertion_penalty=0.3)


class Unigram:
    """Costs of words, nothing for the end."""

    def __init__(self, costs: Sequence[float]):
        self.costs = dict(zip(LEXICON, costs, strict=True))

    def score(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([-sum(self.costs[word] for word in sentence) for sentence in sentences], np.float64)


SMALL = Unigram([1.2 + 0.2 * number for number in range(1, 6)])  # as in the toy's graph
LARGE = Unigram([0.4, 3.0, 1.1, 2.0, 1.7])


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def test_equals_a_search_with_the_large_model(graph: Path, tmp_path: Path) -> None:
    fst = FstArrays.read(graph / "HCLG.fst")
    for number, word in enumerate(LEXICON, 1):
        fst.weights[fst.olabels == WORDS.index(word)] += np.float32(LARGE.costs[word] - (1.2 + 0.2 * number))
    fst.write(tmp_path / "large" / "HCLG.fst")
    (tmp_path / "large" / "words.txt").write_text((graph / "words.txt").read_text())
    store, _ = toy_corpus(12, noise=13.0)
    decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path / "small", device=CPU)
    for scale, penalty in ((0.1, 0.3), (0.12, 1.0), (0.09, -0.5)):
        found = rescore_store(tmp_path / "small", SMALL, LARGE, Weights(scale, penalty), out=tmp_path / "out")
        searched = decode_store(ToyEmission(), store, tmp_path / "large", device=CPU, work=tmp_path / f"large_{scale}",
                                config=replace(SEARCH, nbest=0, acoustic_scale=scale, insertion_penalty=penalty))
        assert [hypothesis.id for hypothesis in found] == [hypothesis.id for hypothesis in searched]
        for a, b in zip(found, searched, strict=True):
            assert a.words == b.words
            # At other scales than the search's, times of words may be better than those that the lists' costs hold.
            assert b.cost - 2e-3 <= a.cost <= b.cost + (2e-3 if scale == 0.1 else 1.0)
        assert read_hypotheses(tmp_path / "out" / "hypotheses.jsonl") == found
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["rtf"] > json.loads((tmp_path / "small" / "figures.json").read_text())["rtf"]


def test_the_search_itself_comes_back_where_nothing_changes(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(10, noise=14.0)
    first = decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path, device=CPU, workers=2)
    lists = read_alternatives(tmp_path, SMALL, SMALL)
    again = {hypothesis.id: hypothesis.words for hypothesis in rescored(lists, Weights(0.1, 0.3))}
    assert again == {hypothesis.id: hypothesis.words for hypothesis in first}


def test_weights_are_the_best_of_the_grid(graph: Path, tmp_path: Path) -> None:
    store, references = toy_corpus(30, noise=20.0)
    decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path, device=CPU)
    lists = read_alternatives(tmp_path, SMALL, LARGE)
    config = RescoreConfig((0.05, 0.1, 0.2), (-1.0, 0.5), (0.0, 1.0))
    rates = {}
    for scale, penalty, weight in itertools.product(*vars(config).values()):
        found = texts_of(rescored(lists, Weights(scale, penalty, weight)))
        rates[scale, penalty, weight] = 100 * error_counts(references, found).sum() / sum(map(len, references.values()))
    weights, figures = tune_weights(lists, references, config)
    assert rates[weights.acoustic_scale, weights.insertion_penalty, weights.lm_weight] == min(rates.values())
    assert figures["best"]["wer"] == pytest.approx(min(rates.values()))
    assert min(rates.values()) < max(rates.values())
    assert figures["oracle_wer"] == oracle_wer(lists, references) < min(rates.values())
    # The oracle by plain loops.
    least = sum(min(int(error_counts({id: words}, {id: path.words}).sum()) for path in read_nbest(
        tmp_path / "nbest.jsonl")[id]) for id, words in references.items())
    assert figures["oracle_wer"] == pytest.approx(100 * least / sum(map(len, references.values())))


def test_nbest_are_kept_and_a_killed_run_goes_on(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(8, noise=13.0)
    decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path, device=CPU)
    whole = read_nbest(tmp_path / "nbest.jsonl")
    assert len(whole) == 8 and all(1 < len(paths) <= 400 for paths in whole.values())
    for id, paths in whole.items():
        costs = [path.graph_cost + 0.1 * path.acoustic_cost for path in paths]
        assert all(b > a - 1e-3 for a, b in itertools.pairwise(costs)) and len({path.words for path in paths}) == len(
            paths), id
    journal, nbest = tmp_path / "hypotheses.jsonl", tmp_path / "nbest.jsonl"
    lines, lists = journal.read_bytes().splitlines(True), nbest.read_bytes().splitlines(True)
    # Killed after five lists, in the sixth; the fifth's hypothesis was not yet written.
    journal.write_bytes(b"".join(lines[:4]))
    nbest.write_bytes(b"".join(lists[:5]) + lists[5][:-20])
    emission = ToyEmission()
    decode_store(emission, store, graph, SEARCH, work=tmp_path, device=CPU)
    assert emission.calls == 4 and read_nbest(nbest) == whole


def test_without_nbest_rescoring_is_refused(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(2)
    decode_store(ToyEmission(), store, graph, replace(SEARCH, nbest=0), work=tmp_path, device=CPU)
    assert not (tmp_path / "nbest.jsonl").exists()
    with pytest.raises(UserError, match=r"nbest\.jsonl: no alternatives of utt000; decode with nbest"):
        read_alternatives(tmp_path, SMALL, LARGE)


def test_lost_utterances_and_missing_references(graph: Path, tmp_path: Path) -> None:
    store, references = toy_corpus(3, noise=1.0)
    store.matrices[1] = store.matrices[1][:0]
    decode_store(ToyEmission(), store, graph, SEARCH, work=tmp_path, device=CPU)
    lists = read_alternatives(tmp_path, SMALL, LARGE)
    assert [len(hypothesis.words) > 0 for hypothesis in rescored(lists, Weights(0.1))] == [True, False, True]
    assert oracle_wer(lists, references) == pytest.approx(
        100 * len(references["utt001"]) / sum(map(len, references.values())))
    assert tune_weights(lists, references)[1]["best"]["wer"] >= oracle_wer(lists, references)
    with pytest.raises(UserError, match="no reference for 3 utterances, for example utt000"):
        tune_weights(lists, {})


@pytest.mark.parametrize("wrong", [{"acoustic_scales": ()}, {"acoustic_scales": (0.0, 0.1)}, {"lm_weights": (-1.0,)},
                                   {"insertion_penalties": (1.0, 0.0)}])
def test_grids_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"grid|above 0"):
        RescoreConfig(**wrong)
    assert math.isclose(Weights(0.1).lm_weight, 1.0)
