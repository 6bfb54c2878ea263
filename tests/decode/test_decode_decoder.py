"""The beam search against a plain Viterbi search, and what happens at the edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decode_toy import NUM_PDFS, WORDS, toy_corpus, toy_graph, viterbi

from asr_distill.decode.decoder import Decoder, SearchConfig, read_words
from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


@pytest.mark.parametrize(("scale", "penalty"), [(0.1, 0.0), (0.3, 0.0), (0.1, 2.5), (0.2, -1.0)])
def test_equals_viterbi(graph: Path, scale: float, penalty: float) -> None:
    config = SearchConfig(beam=200.0, max_active=100_000, acoustic_scale=scale, insertion_penalty=penalty)
    decoder = Decoder(graph, config)
    arrays = FstArrays.read(graph / "HCLG.fst")
    store, _ = toy_corpus(6, noise=10.0)
    for matrix in store.matrices:
        cost, words = viterbi(arrays, matrix, scale, penalty)
        found = decoder.decode(matrix)
        assert found.words == words
        assert found.cost == pytest.approx(cost, rel=1e-4, abs=1e-3)
        assert found.graph_cost + scale * found.acoustic_cost == pytest.approx(found.cost, rel=1e-4)
        assert found.reached_final and found.frames == len(matrix)


def test_penalty_shifts_the_words(graph: Path) -> None:
    store, _ = toy_corpus(20, noise=20.0)
    lengths = []
    for penalty in (-5.0, 0.0, 5.0):
        decoder = Decoder(graph, SearchConfig(insertion_penalty=penalty))
        lengths.append(sum(len(decoder.decode(matrix).words) for matrix in store.matrices))
    assert lengths[0] > lengths[1] > lengths[2]


def test_a_search_that_does_not_end_gives_its_partial(graph: Path) -> None:
    store, _ = toy_corpus(1, noise=0.1)
    decoder = Decoder(graph, SearchConfig(beam=3.0, min_active=0))
    whole = decoder.decode(store.matrices[0])
    # Cut in the middle of a word: no final state is near.
    inside = next(length for length in range(len(store.matrices[0]) - 12, 10, -1)
                  if not decoder.decode(store.matrices[0][:length]).reached_final)
    partial = decoder.decode(store.matrices[0][:inside])
    assert whole.reached_final and not partial.reached_final
    assert partial.words == whole.words[:len(partial.words)] and partial.words


def test_no_frames_and_one_frame(graph: Path) -> None:
    decoder = Decoder(graph, SearchConfig())
    assert decoder.decode(np.zeros((0, NUM_PDFS), np.float32), "u").words == ()
    one = decoder.decode(np.zeros((1, NUM_PDFS), np.float32), "u")
    assert (one.words, one.frames, one.reached_final) == ((), 1, False)


def test_impossible_pdfs_are_allowed_nan_is_not(graph: Path) -> None:
    store, references = toy_corpus(1, noise=1.0)
    matrix = store.matrices[0].copy()
    matrix[matrix < 4] = -np.inf
    assert Decoder(graph, SearchConfig()).decode(matrix).words == references["utt000"]
    for bad in (np.nan, np.inf):
        matrix[3, 3] = bad
        with pytest.raises(UserError, match=r"utt7: .*NaN"):
            Decoder(graph, SearchConfig()).decode(matrix, "utt7")


def test_non_contiguous_and_wide_matrices(graph: Path) -> None:
    store, references = toy_corpus(1, noise=1.0)
    wide = np.zeros((NUM_PDFS + 5, len(store.matrices[0])), np.float64)
    wide[:NUM_PDFS] = store.matrices[0].T
    assert Decoder(graph, SearchConfig()).decode(wide.T).words == references["utt000"]


def test_too_few_pdfs_are_refused(graph: Path) -> None:
    with pytest.raises(UserError, match="needs 27 pdfs"):
        Decoder(graph, SearchConfig()).decode(np.zeros((5, NUM_PDFS - 1), np.float32), "u")


def test_damaged_graphs(tmp_path: Path) -> None:
    directory = toy_graph(tmp_path)
    data = (directory / "HCLG.fst").read_bytes()
    for broken in (data[:40], data[:-7], data + b"\0\0\0\0", b"hello" * 30):
        (directory / "HCLG.fst").write_bytes(broken)
        with pytest.raises(UserError, match=r"HCLG\.fst"):
            Decoder(directory, SearchConfig())
    (directory / "HCLG.fst").write_bytes(data)
    (directory / "words.txt").write_text("".join(f"{word} {i}\n" for i, word in enumerate(WORDS[:-1])))
    with pytest.raises(UserError, match=r"words\.txt ends at 4"):
        Decoder(directory, SearchConfig())
    (directory / "words.txt").unlink()
    with pytest.raises(UserError, match=r"words\.txt: no such file"):
        Decoder(directory, SearchConfig())


@pytest.mark.parametrize("text", ["a 0\nb\n", "a 0\nb 0\n", "a 0\nb 2\n", "a x\n", ""])
def test_words_are_checked(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(UserError, match=r"words\.txt"):
        read_words(tmp_path / "words.txt")


@pytest.mark.parametrize("wrong", [{"beam": 0.0}, {"max_active": 100}, {"min_active": -1}, {"acoustic_scale": 0.0},
                                   {"insertion_penalty": float("nan")}, {"beam": float("inf")}])
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError):
        SearchConfig(**wrong)
