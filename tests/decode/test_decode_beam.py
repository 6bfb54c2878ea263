"""The compiled search against kaldi_decoder's FasterDecoder, and what is particular to it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from decode_toy import NUM_PDFS, toy_corpus, toy_graph

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.tokens import TOKEN, WORD, collect, sentence
from asr_distill.kaldi import kaldi_decoder, kaldifst
from asr_distill.lang.fst_arrays import FstArrays


def faster(graph: Path, matrix: np.ndarray, config: SearchConfig) -> tuple[tuple[str, ...], float]:
    """kaldi_decoder's words and cost."""
    fst = kaldifst.StdVectorFst.read(str(graph / "HCLG.fst"))
    names = [line.split()[0] for line in (graph / "words.txt").read_text().splitlines()]
    options = kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active,
                                                 min_active=config.min_active)
    search = kaldi_decoder.FasterDecoder(fst, options)
    scaled = (matrix * np.float32(config.acoustic_scale)).astype(np.float32)
    search.decode(kaldi_decoder.DecodableCtc(scaled))
    _, path = search.get_best_path()
    _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
    return tuple(names[label] for label in labels), weight.value1 + weight.value2


def random_graph(random: np.random.Generator, directory: Path, states: int = 400) -> Path:
    """Word loops with epsilons, some of negative weight, some with words."""
    rows = []
    for source in range(states):
        rows.append((source, random.integers(1, 41), 0, 0.7, source))
        for target in random.integers(0, states, size=4).tolist():
            rows.append((source, random.integers(1, 41), random.integers(0, 9) * (random.random() < 0.2),
                         random.gamma(2.0), target))
        if source < states - 1 and random.random() < 0.5:
            rows.append((source, 0, random.integers(0, 9) * (random.random() < 0.3), random.normal(0.5, 0.5),
                         random.integers(source + 1, states)))
    finals = np.where(random.random(states) < 0.3, random.random(states), np.inf)
    FstArrays.from_arcs(0, finals, *(np.array(column) for column in zip(*rows, strict=True))).write(
        directory / "HCLG.fst")
    (directory / "words.txt").write_text("<eps> 0\n" + "".join(f"w{i} {i}\n" for i in range(1, 9)))
    return directory


@pytest.mark.parametrize("seed", range(6))
def test_wide_beams_find_what_faster_decoder_finds(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = random_graph(random, tmp_path)
    config = SearchConfig(beam=200.0, max_active=100_000, acoustic_scale=0.3)
    decoder = Decoder(graph, config)
    for _ in range(5):
        matrix = random.normal(0, 6, (int(random.integers(1, 80)), 40)).astype(np.float32)
        words, cost = faster(graph, matrix, config)
        found = decoder.decode(matrix)
        assert found.words == words and found.cost == pytest.approx(cost, abs=5e-3)


@pytest.mark.parametrize("max_active", [30, 100, 7000])
def test_narrow_searches_are_as_good(tmp_path: Path, max_active: int) -> None:
    """Pruning is not the same to the token, so costs are compared: in the sum, ours must not be worse by 0.1 %."""
    random = np.random.default_rng(7)
    graph = random_graph(random, tmp_path)
    config = SearchConfig(beam=8.0, max_active=max_active, min_active=20, acoustic_scale=0.3)
    decoder = Decoder(graph, config)
    ours = theirs = size = 0.0
    for _ in range(20):
        matrix = random.normal(0, 6, (150, 40)).astype(np.float32)
        ours += decoder.decode(matrix).cost
        theirs += faster(graph, matrix, config)[1]
        size += abs(faster(graph, matrix, config)[1])
    assert ours < theirs + 1e-3 * size


def test_fewer_tokens_cost_more(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    graph = random_graph(random, tmp_path)
    matrices = [random.normal(0, 6, (120, 40)).astype(np.float32) for _ in range(10)]
    costs = []
    for max_active in (5, 20, 80, 7000):
        decoder = Decoder(graph, SearchConfig(beam=9.0, max_active=max_active, min_active=0, acoustic_scale=0.3))
        costs.append(sum(decoder.decode(matrix).cost for matrix in matrices))
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_words_no_token_ends_with_are_dropped() -> None:
    random = np.random.default_rng(0)
    history = np.zeros(2000, WORD)
    for place in range(1, 2000):
        history[place] = (random.integers(max(0, place - 9), place), random.integers(1, 50))
    tokens = np.zeros(30, TOKEN)
    tokens["history"] = random.integers(1000, 2000, 30)
    tokens["history"][0] = 0
    before = [sentence(history, last).tolist() for last in tokens["history"]]
    kept = collect(history, 2000, tokens, 30)
    assert kept < 2000 and tokens["history"].max() < kept
    assert [sentence(history, last).tolist() for last in tokens["history"]] == before
    assert before[0] == [] and max(map(len, before)) > 100


def test_python_runs_on_while_it_searches(tmp_path: Path) -> None:
    decoder = Decoder(toy_graph(tmp_path), SearchConfig())
    decoder.decode(np.zeros((3, NUM_PDFS), np.float32))  # compiled by now
    matrix = np.random.default_rng(0).normal(0, 5, (150_000, NUM_PDFS)).astype(np.float32)
    search = threading.Thread(target=decoder.decode, args=(matrix,))
    search.start()
    ticks = 0
    while search.is_alive():
        time.sleep(0.002)
        ticks += 1
    assert ticks > 20


def test_threads_share_one_graph(tmp_path: Path) -> None:
    decoder = Decoder(toy_graph(tmp_path), SearchConfig(nbest=20))
    store, _ = toy_corpus(12, noise=13.0)
    alone = [decoder.decode_nbest(matrix)[1] for matrix in store.matrices]
    found: dict[int, list] = {}

    def work(indices: range) -> None:
        for index in indices:
            found[index] = decoder.decode_nbest(store.matrices[index])[1]

    threads = [threading.Thread(target=work, args=(range(start, 12, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(12)] == alone
