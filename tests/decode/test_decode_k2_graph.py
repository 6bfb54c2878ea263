"""HCLG without epsilons: the same weight for every label string and words, by enumeration; what k2's core makes of it
(pip's k2py holds that much of k2); its cache."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from decode_toy import WORDS, random_graph, toy_corpus, toy_graph

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.k2 import cache
from asr_distill.decode.k2.cache import load_graph
from asr_distill.decode.k2.graph import FINAL, K2Graph, without_epsilons
from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays

Weights = dict[tuple[tuple[int, ...], tuple[int, ...]], float]  # (labels, words) -> least cost


def weights_of_fst(fst: FstArrays, longest: int) -> Weights:
    found: Weights = {}

    def follow(state: int, labels: tuple[int, ...], words: tuple[int, ...], cost: float) -> None:
        if fst.finals[state] < np.inf:
            key = labels, words
            found[key] = min(found.get(key, np.inf), cost + float(fst.finals[state]))
        for arc in range(fst.offsets[state], fst.offsets[state + 1]):
            label, word = int(fst.ilabels[arc]), int(fst.olabels[arc])
            if label and len(labels) == longest:
                continue
            follow(int(fst.nextstates[arc]), (*labels, label) if label else labels, (*words, word) if word else words,
                   cost + float(fst.weights[arc]))

    follow(fst.start, (), (), 0.0)
    return found


def weights_of_k2(graph: K2Graph, longest: int) -> Weights:
    found: Weights = {}
    rows = list(zip(graph.arcs[:, :3].tolist(), graph.costs.tolist(), graph.outputs.tolist(), strict=True))

    def follow(state: int, labels: tuple[int, ...], words: tuple[int, ...], cost: float) -> None:
        for (source, target, label), weight, output in rows:
            if source != state:
                continue
            heard = (*words, *graph.words[graph.offsets[output]:graph.offsets[output + 1]].tolist())
            if label == FINAL:
                assert target == graph.states - 1
                found[labels, heard] = min(found.get((labels, heard), np.inf), cost + weight)
            elif len(labels) < longest:
                follow(target, (*labels, label), heard, cost + weight)

    follow(0, (), (), 0.0)
    return found


@pytest.mark.parametrize("seed", range(15))
def test_same_weights_by_enumeration(tmp_path: Path, seed: int) -> None:
    fst = random_graph(np.random.default_rng(seed), tmp_path)
    graph = without_epsilons(fst)
    expected, found = weights_of_fst(fst, 3), weights_of_k2(graph, 3)
    assert found.keys() == expected.keys() and len(found) > 30
    for key, cost in expected.items():
        assert found[key] == pytest.approx(cost, abs=1e-4)
    assert any(len(words) > 1 and len(labels) <= 1 for labels, words in found)  # several words on one arc
    assert (graph.arcs[:, 2] != 0).all()


def test_the_form_that_k2_wants(tmp_path: Path) -> None:
    graph = without_epsilons(FstArrays.read(toy_graph(tmp_path) / "HCLG.fst"))
    sources, targets, labels = graph.arcs[:, :3].T
    assert (np.diff(sources) >= 0).all() and sources.max() < graph.states - 1
    assert ((labels == FINAL) == (targets == graph.states - 1)).all()
    same = np.diff(sources) == 0
    assert (np.diff(labels.view(np.uint32).astype(np.int64))[same] >= 0).all()  # k2's order: -1 is last
    assert set(targets.tolist()) | {0} == set(range(graph.states))


@pytest.mark.parametrize(("arcs", "problem"), [
    ([(0, 1, 1, 0.5, 1), (1, 0, 1, 0.0, 2), (2, 0, 0, 0.1, 1)], "go round"),  # a cycle that says a word
    ([(0, 1, 1, 0.5, 1), (1, 0, 0, -0.5, 2), (2, 0, 0, 0.1, 1)], "go round"),  # a cycle that costs less than nothing
])
def test_endless_epsilons_are_told(arcs: list, problem: str) -> None:
    fst = FstArrays.from_arcs(0, np.array([np.inf, 0, 0]), *(np.array(c) for c in zip(*arcs, strict=True)))
    with pytest.raises(UserError, match=f"graph7: .*{problem}"):
        without_epsilons(fst, "graph7")


def test_a_cycle_that_says_and_gains_nothing_is_no_harm() -> None:
    arcs = [(0, 1, 1, 0.5, 1), (1, 0, 0, 0.0, 2), (2, 0, 0, 0.0, 1), (2, 2, 0, 0.25, 2)]
    fst = FstArrays.from_arcs(0, np.array([np.inf, 0.5, 1]), *(np.array(c) for c in zip(*arcs, strict=True)))
    assert weights_of_k2(without_epsilons(fst), 2) == {((1,), (1,)): 1.0, ((1, 2), (1,)): 1.25}


def test_graphs_without_an_end_are_told(tmp_path: Path) -> None:
    fst = FstArrays.read(toy_graph(tmp_path) / "HCLG.fst")
    fst.finals[:] = np.inf
    with pytest.raises(UserError, match="no state is final"):
        without_epsilons(fst)


def k2_text(graph: K2Graph, separator: int) -> str:
    """k2's text form. k2py merges adjacent equal words, so that every arc without a word says a separator."""
    lines = [f"{source} {target} {label} {(output or separator) if label != FINAL else -1} {-cost}"
             for (source, target, label), cost, output in
             zip(graph.arcs[:, :3].tolist(), graph.costs.tolist(), graph.outputs.tolist(), strict=True)]
    return "\n".join([*lines, str(graph.states - 1)])


@pytest.mark.skipif(sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="k2py is on pip for cp311 alone")
def test_k2_decodes_it_to_the_words_of_the_compiled_search(tmp_path: Path) -> None:
    k2py = pytest.importorskip("k2py", reason="k2py is not installed (extra dev)")
    directory = toy_graph(tmp_path)
    graph = without_epsilons(FstArrays.read(directory / "HCLG.fst"))
    assert graph.lengths.max() == 1  # outputs are word ids
    made = k2py.CreateFsaVecFromStr(k2_text(graph, separator=len(WORDS)), graph.states - 1)
    config = SearchConfig(beam=20.0, max_active=10_000, min_active=10)
    decoder = Decoder(directory, config)
    store, references = toy_corpus(100, noise=12.0)
    wrong = 0
    for matrix, spoken in zip(store.matrices, references.values(), strict=True):
        scores = np.pad(matrix * np.float32(config.acoustic_scale), ((0, 0), (1, 0))).astype(np.float32)
        search = k2py.OnlineDenseIntersecter(made["fsa"], made["aux_labels"], config.beam, 8.0, config.min_active,
                                             config.max_active)
        search.decode(scores, False)
        heard = tuple(WORDS[token.token_id] for token in search.finish()[0][0] if 0 < token.token_id < len(WORDS))
        expected = decoder.decode(matrix)
        assert heard == expected.words
        wrong += expected.words != spoken
    assert wrong > 3  # noise enough that the words are not plain


def test_the_cache_is_used_and_knows_its_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = toy_graph(tmp_path / "graphs" / "tri")
    first = load_graph(directory)
    assert (directory / cache.NAME).is_file()
    made = []
    monkeypatch.setattr(cache, "without_epsilons", lambda fst, name: made.append(name) or without_epsilons(fst, name))
    again = load_graph(directory)
    assert not made and all((a == b).all() for a, b in zip(first, again, strict=True))
    fst = FstArrays.read(directory / "HCLG.fst")
    fst.weights += 1
    fst.finals += 1
    fst.write(directory / "HCLG.fst")
    assert (load_graph(directory).costs > again.costs).all() and len(made) == 1  # another HCLG
    (directory / cache.NAME).write_bytes((directory / cache.NAME).read_bytes()[:100])
    assert (load_graph(directory).costs > again.costs).all() and len(made) == 2  # a damaged cache
    (tmp_path / "link").symlink_to(directory.parent)
    (directory / cache.NAME).unlink()
    load_graph(tmp_path / "link" / "tri")
    assert not (directory / cache.NAME).exists()  # nothing is written through a link
    with pytest.raises(UserError, match=r"HCLG\.fst: no such file"):
        load_graph(tmp_path / "none")
