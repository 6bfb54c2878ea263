"""Decoding with k2 against the compiled search: the same words, costs, lattices; its edges and its absence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_k2
import numpy as np
import pytest
import torch
from decode_toy import LEXICON, NUM_PDFS, ToyEmission, random_graph, toy_corpus, toy_graph

from asr_distill import k2fsa
from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.k2.decoder import K2Decoder
from asr_distill.decode.k2.pool import BATCH, K2Pool, batches
from asr_distill.decode.lattice import distinct_paths
from asr_distill.decode.pools import search_pool
from asr_distill.decode.rescore import Weights, read_alternatives, rescored
from asr_distill.decode.search import Job, SearchPool, decode_store, read_hypotheses
from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays

CPU = torch.device("cpu")
EXACT = SearchConfig(beam=200.0, max_active=100_000, lattice_beam=6.0, nbest=30, insertion_penalty=0.4)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def test_words_and_costs_of_the_compiled_search(k2: Any, graph: Path) -> None:
    store, _ = toy_corpus(20, noise=14.0)
    decoder, other = K2Decoder(graph, CPU), Decoder(graph, EXACT)
    found = decoder.search(store.matrices, EXACT, [""] * 20)
    for each, matrix in zip(found, store.matrices, strict=True):
        expected = other.decode(matrix)
        assert each is not None and each.reached_final and each.lattice is None
        assert tuple(decoder.words[word] for word in each.best.words) == expected.words
        assert each.best.graph_cost == pytest.approx(expected.graph_cost, abs=1e-3)
        assert each.best.acoustic_cost == pytest.approx(expected.acoustic_cost, abs=0.05)


def test_the_frames_of_words_stand_where_the_words_were_spoken(k2: Any, graph: Path) -> None:
    store, references = toy_corpus(5, noise=0.1)
    decoder = K2Decoder(graph, CPU)
    for matrix, words in zip(store.matrices, references.values(), strict=True):
        (found,) = decoder.search([matrix], SearchConfig(), ["u"])
        assert found is not None and [decoder.words[word] for word in found.best.words] == list(words)
        first_pdfs = [3 * "SIL a b c d e f g h".split().index(LEXICON[word][0]) for word in words]
        assert matrix[found.best.frames].argmax(1).tolist() == first_pdfs  # a word stands on its first phone's entry
        assert found.best.frames == sorted(set(found.best.frames))


def test_nbest_and_lattices_of_the_compiled_search(k2: Any, graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(6, noise=13.0)
    ours = decode_store(ToyEmission(), store, graph, EXACT, work=tmp_path / "cpu", device=CPU)
    with K2Pool(CPU) as pool:
        theirs = decode_store(ToyEmission(), store, graph, EXACT, work=tmp_path / "k2", device=CPU, pool=pool)
    assert [h.words for h in theirs] == [h.words for h in ours]
    lists = [[json.loads(line) for line in (tmp_path / name / "nbest.jsonl").read_text().splitlines()]
             for name in ("cpu", "k2")]
    for a, b in zip(*lists, strict=True):
        inside = [place for place, costs in enumerate(zip(a["graph_costs"], a["acoustic_costs"], strict=True))
                  if costs[0] + 0.1 * costs[1] < a["graph_costs"][0] + 0.1 * a["acoustic_costs"][0] + 5.9]
        assert a["id"] == b["id"] and len(inside) > 1
        theirs_by_words = dict(zip(b["words"], zip(b["graph_costs"], b["acoustic_costs"], strict=True), strict=True))
        for place in inside:
            assert theirs_by_words[a["words"][place]] == (pytest.approx(a["graph_costs"][place], abs=0.01),
                                                          pytest.approx(a["acoustic_costs"][place], abs=0.1))


@pytest.mark.parametrize("seed", range(8))
def test_graphs_with_words_on_epsilons_and_at_the_end(k2: Any, tmp_path: Path, seed: int) -> None:
    """Several words on one arc, words on final arcs, final costs: lattices as the compiled search has them."""
    random = np.random.default_rng(seed)
    random_graph(random, tmp_path)
    matrix = random.normal(0, 3, (6, 4)).astype(np.float32)
    config = replace(EXACT, acoustic_scale=0.4, lattice_beam=4.0, nbest=10_000)
    expected, paths = Decoder(tmp_path, config).decode_nbest(matrix)
    with K2Pool(CPU) as pool:
        ((found, nbest),) = pool.search(tmp_path, config, iter([Job("u", matrix, 0.0)]))
    assert (found.words, found.reached_final) == (expected.words, True)
    assert found.cost == pytest.approx(expected.cost, abs=1e-3)
    theirs = {path.words: path.graph_cost + 0.4 * path.acoustic_cost for path in nbest}
    inside = [path for path in paths if path.graph_cost + 0.4 * path.acoustic_cost < expected.cost + 4.0 - 1e-2]
    assert len(inside) > 3
    for path in inside:
        assert theirs[path.words] == pytest.approx(path.graph_cost + 0.4 * path.acoustic_cost, abs=1e-3)


def test_batches_do_not_matter_and_rescoring_takes_them(k2: Any, graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(BATCH + 3, noise=12.0)
    config = replace(EXACT, nbest=5)
    alone = K2Decoder(graph, CPU)
    with K2Pool(CPU) as pool:
        found = decode_store(ToyEmission(), store, graph, config, work=tmp_path, device=CPU, pool=pool)
    for hypothesis, matrix in zip(found, store.matrices, strict=True):
        (single,) = alone.search([matrix], config, [""])
        assert single is not None and hypothesis.words == tuple(alone.words[word] for word in single.best.words)
        assert hypothesis.frames == len(matrix) and hypothesis.seconds > 0

    class Same:
        def score(self, sentences: Any) -> np.ndarray:
            return np.zeros(len(sentences))

    lists = read_alternatives(tmp_path, Same(), Same())
    again = {h.id: h.words for h in rescored(lists, Weights(0.1, 0.4))}
    assert again == {h.id: h.words for h in found}


def test_a_search_that_does_not_end_gives_its_partial(k2: Any, tmp_path: Path) -> None:
    """A chain of four labels, words on the first and the third; three frames do not come to its end."""
    arcs = [(0, 1, 1, 0.25, 1), (1, 2, 0, 0.5, 2), (2, 3, 2, 0.75, 3), (3, 4, 0, 1.0, 4)]
    FstArrays.from_arcs(0, np.array([np.inf] * 4 + [0.5]), *(np.array(c) for c in zip(*arcs, strict=True))).write(
        tmp_path / "HCLG.fst")
    (tmp_path / "words.txt").write_text("<eps> 0\na 1\nb 2\n")
    matrix = np.full((4, 4), -2.0, np.float32)
    matrix[np.arange(4), np.arange(4)] = -0.5
    partial, whole = K2Decoder(tmp_path, CPU).search([matrix[:3], matrix], EXACT, ["", ""], lattices=True)
    for found, frames in ((partial, 3), (whole, 4)):
        expected = Decoder(tmp_path, EXACT).decode(matrix[:frames])
        assert found is not None and found.lattice is not None and found.reached_final == expected.reached_final
        assert (found.best.words, found.best.frames) == ([1, 2], [0, 2])
        assert found.best.graph_cost == pytest.approx(expected.graph_cost)
        assert found.best.acoustic_cost == pytest.approx(expected.acoustic_cost)
        (best,) = distinct_paths(found.lattice, 1, EXACT.acoustic_scale)
        assert (best.words, best.graph_cost) == ((1, 2), pytest.approx(expected.graph_cost))
        assert found.lattice.frames[0] == 0 and found.lattice.frames[-1] == frames + 1
    assert not partial.reached_final and whole.reached_final


def test_no_frames_few_frames_and_impossible_pdfs(k2: Any, graph: Path) -> None:
    store, references = toy_corpus(1, noise=1.0)
    matrix = store.matrices[0].copy()
    matrix[matrix < 4] = -np.inf
    decoder = K2Decoder(graph, CPU)
    none, one, whole = decoder.search([np.zeros((0, NUM_PDFS), np.float32), np.zeros((1, NUM_PDFS), np.float32),
                                       matrix], SearchConfig(), ["a", "b", "c"])
    assert none is None and one is not None and not one.reached_final
    assert whole is not None and tuple(decoder.words[word] for word in whole.best.words) == references["utt000"]
    assert decoder.search([np.zeros((0, NUM_PDFS), np.float32)], SearchConfig(), ["a"]) == [None]
    for bad, problem in ((np.full((3, NUM_PDFS), np.nan, np.float32), "NaN"),
                         (np.zeros((3, NUM_PDFS - 1), np.float32), "needs 27 pdfs")):
        with pytest.raises(UserError, match=problem):
            decoder.search([matrix, bad], SearchConfig(), ["a", "b"])


def test_the_insertion_penalty_can_change_between_searches(k2: Any, graph: Path) -> None:
    store, _ = toy_corpus(12, noise=20.0)
    decoder, lengths = K2Decoder(graph, CPU), []
    for penalty in (-5.0, 0.0, 5.0, -5.0):
        config = replace(EXACT, insertion_penalty=penalty)
        found = decoder.search(store.matrices, config, [""] * 12)
        expected = [Decoder(graph, config).decode(matrix) for matrix in store.matrices]
        assert [each and len(each.best.words) for each in found] == [len(each.words) for each in expected]
        lengths.append(sum(len(each.best.words) for each in found if each))
    assert lengths[0] == lengths[3] > lengths[1] > lengths[2]


def test_work_of_another_backend_is_not_mixed_in(k2: Any, graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(4, noise=1.0)
    config = SearchConfig()
    for calls in (4, 0):
        emission = ToyEmission()
        with search_pool(1, "k2", CPU) as pool:
            decode_store(emission, store, graph, config, work=tmp_path, device=CPU, pool=pool)
        assert emission.calls == calls
    emission = ToyEmission()
    decode_store(emission, store, graph, config, work=tmp_path, device=CPU)
    assert emission.calls == 4 and len(read_hypotheses(tmp_path / "hypotheses.jsonl")) == 4


def test_batches_hold_so_many_utterances_and_frames() -> None:
    lengths = [10, 7000, 7000, 5000, 100, 30_000, 20, *[10] * 40]
    jobs = [Job(str(place), np.zeros((length, 1), np.float32), 0.0) for place, length in enumerate(lengths)]
    made = list(batches(iter(jobs)))
    assert [job for batch in made for job in batch] == jobs
    for batch in made:
        padded = len(batch) * max(len(job.log_likelihoods) for job in batch)
        assert len(batch) <= BATCH and (padded <= 20_000 or len(batch) == 1)
    assert len(made) < 9


@pytest.fixture
def no_k2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "k2", None)  # `import k2` fails
    k2fsa._works.cache_clear()
    yield
    k2fsa._works.cache_clear()


def test_without_k2_one_line_says_where_to_get_it(no_k2: None, graph: Path) -> None:
    version = torch.__version__.partition("+")[0]
    with pytest.raises(UserError, match=r"^k2 .*k2-fsa\.github\.io/k2/.*docs/decoding\.md") as raised:
        K2Decoder(graph, CPU)
    text = str(raised.value)
    assert f"torch {version}" in text and f"cp{sys.version_info[0]}{sys.version_info[1]}" in text and "\n" not in text
    with pytest.raises(UserError, match="k2"):
        search_pool(1, "k2", CPU)
    assert search_pool(1, "auto", torch.device("cuda")).backend == "cpu"  # goes on without


def test_auto_means_k2_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k2", fake_k2)
    k2fsa._works.cache_clear()
    kinds = [type(search_pool(1, backend, torch.device(device))) for backend, device in
             (("auto", "cpu"), ("auto", "cuda"), ("cpu", "cuda"), ("k2", "cpu"))]
    k2fsa._works.cache_clear()
    assert kinds == [SearchPool, K2Pool, SearchPool, K2Pool]
