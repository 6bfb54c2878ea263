"""The search whose frames come bit by bit: the batch search for every cut, and what it tells while it goes on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from decode_toy import NUM_PDFS, toy_corpus, toy_graph, utterance, viterbi

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.online import OnlineSearch
from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays

SILENCE = (0, 1, 2)  # pdfs of the toy's first phone


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return Decoder(toy_graph(tmp_path_factory.mktemp("graph")), SearchConfig(acoustic_scale=0.3, nbest=10))


def chunks_of(random: np.random.Generator, matrix: np.ndarray, longest: int) -> list[np.ndarray]:
    """The rows in pieces of 0 to `longest`."""
    pieces, begin = [], 0
    while begin < len(matrix):
        end = begin + int(random.integers(0, longest + 1))
        pieces.append(matrix[begin:end])
        begin = end
    return pieces


@pytest.mark.parametrize("longest", [1, 7, 60, 1000])
@pytest.mark.parametrize("lattice", [False, True])
def test_every_cut_gives_the_batch_search(decoder: Decoder, longest: int, lattice: bool) -> None:
    random = np.random.default_rng(longest)
    store, _ = toy_corpus(6, noise=11.0, seed=longest)
    search = OnlineSearch(decoder, SILENCE, lattice=lattice)
    for matrix in store.matrices:
        search.reset()
        for piece in chunks_of(random, matrix, longest):
            search.advance(piece)
        found, wanted = search.finish("a"), decoder.decode(matrix, "a")
        assert (found.words, found.cost, found.graph_cost, found.frames, found.reached_final) == (
            wanted.words, wanted.cost, wanted.graph_cost, len(matrix), True)
        if lattice:
            ours, theirs = search.lattice(), decoder.lattice(matrix)
            assert ours is not None and theirs is not None and len(ours.targets) > len(matrix)
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine, other)


def test_pruned_searches_are_cut_alike(tmp_path: Path) -> None:
    decoder = Decoder(toy_graph(tmp_path), SearchConfig(beam=5.0, max_active=12, min_active=3, acoustic_scale=0.3))
    store, _ = toy_corpus(10, noise=14.0, seed=5)
    search = OnlineSearch(decoder)
    for matrix in store.matrices:
        search.reset()
        for row in matrix:
            search.advance(row[None])
        found, wanted = search.finish(), decoder.decode(matrix)
        assert (found.words, found.cost) == (wanted.words, wanted.cost)


def test_words_at_any_time_are_those_of_an_exhaustive_search_that_may_end_anywhere(decoder: Decoder,
                                                                                  tmp_path: Path) -> None:
    matrix = utterance(np.random.default_rng(2), ("no", "stop", "yes"), noise=9.0)
    fst = FstArrays.read(toy_graph(tmp_path) / "HCLG.fst")
    fst.finals[:] = 0.0
    wide = decoder.with_config(SearchConfig(beam=1000.0, max_active=100_000, acoustic_scale=0.3))
    search = OnlineSearch(wide)
    for end in range(1, len(matrix) + 1):
        search.advance(matrix[end - 1:end])
        if end % 5 == 0:
            assert search.partial().words == viterbi(fst, matrix[:end], 0.3, 0.0)[1]
            assert search.partial().frames == search.frames == end


def test_silence_at_the_end_is_counted_and_final_costs_are_told(decoder: Decoder) -> None:
    sure = np.full((40, NUM_PDFS), -60.0, np.float32)  # silence (6), "up" (ef, 18 frames), silence (16)
    spoken = [0, 0, 1, 1, 2, 2, *(pdf for pdf in range(15, 21) for _ in range(3)), *[0] * 8, *[1] * 4, *[2] * 4]
    sure[np.arange(40), spoken] = 0.0
    search = OnlineSearch(decoder, SILENCE)
    counted, finals = [], []
    for row in sure:
        search.advance(row[None])
        counted.append(search.partial().silence_frames)
        finals.append(search.partial().final_cost)
    assert counted == [*range(1, 7), *[0] * 18, *range(1, 17)]
    assert search.partial().words == ("up",)
    assert finals[5] == finals[-1] == pytest.approx(0.2) and finals[23] == pytest.approx(0.1)  # as toy_graph says
    assert finals[12] == math.inf or finals[12] > 5  # inside a word
    assert OnlineSearch(decoder).partial().silence_frames == 0


def test_an_utterance_after_another_knows_nothing_of_it(decoder: Decoder) -> None:
    store, _ = toy_corpus(2, seed=9)
    search = OnlineSearch(decoder, SILENCE, lattice=True)
    search.advance(store.matrices[0])
    first = search.finish()
    assert search.finish() == first
    with pytest.raises(RuntimeError, match="reset"):
        search.advance(store.matrices[1])
    search.reset()
    assert search.partial().words == () and search.frames == 0 and search.finish().words == ()
    assert search.lattice() is None
    search.reset()
    search.advance(store.matrices[1])
    assert search.finish().words == decoder.decode(store.matrices[1]).words != first.words


def test_where_no_path_survives_nothing_is_said(tmp_path: Path) -> None:
    """A graph of two frames and no loop."""
    FstArrays.from_arcs(0, np.array([np.inf, np.inf, 0.0]), *(np.array(column) for column in zip(
        (0, 1, 1, 0.5, 1), (1, 1, 0, 0.5, 2), strict=True))).write(tmp_path / "HCLG.fst")
    (tmp_path / "words.txt").write_text("<eps> 0\na 1\n")
    search = OnlineSearch(Decoder(tmp_path, SearchConfig()), lattice=True)
    search.advance(np.zeros((2, 1), np.float32))
    assert search.partial().words == ("a",) and search.alive
    search.advance(np.zeros((3, 1), np.float32))
    search.advance(np.zeros((3, 1), np.float32))
    assert not search.alive and search.partial().words == () and search.finish().words == ()
    assert search.lattice() is None


def test_bad_scores_are_refused(decoder: Decoder) -> None:
    search = OnlineSearch(decoder, SILENCE)
    with pytest.raises(UserError, match="NaN"):
        search.advance(np.full((3, NUM_PDFS), np.nan, np.float32))
    with pytest.raises(UserError, match="two trees"):
        search.advance(np.zeros((3, 5), np.float32))
    with pytest.raises(RuntimeError, match="lattice=True"):
        search.lattice()
