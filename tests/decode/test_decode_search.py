"""Decoding of a store: order, resumption after kill -9, figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from decode_toy import ToyEmission, ToyStore, toy_corpus, toy_graph

from asr_distill.decode.search import Decoder, SearchConfig, decode_store, read_hypotheses
from asr_distill.errors import UserError

CPU = torch.device("cpu")
CONFIG = SearchConfig(insertion_penalty=0.5)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_graph(tmp_path_factory.mktemp("graph"))


def test_order_words_and_figures(graph: Path, tmp_path: Path) -> None:
    store, references = toy_corpus(12, noise=1.0)
    chosen = [7, 2, 11, 0]
    hypotheses = decode_store(ToyEmission(), store, graph, CONFIG, work=tmp_path, device=CPU, utterances=chosen)
    assert [h.id for h in hypotheses] == ["utt007", "utt002", "utt011", "utt000"]
    assert all(h.words == references[h.id] for h in hypotheses)
    figures = json.loads((tmp_path / "figures.json").read_text())
    frames = sum(len(store.matrices[index]) for index in chosen)
    assert (figures["utterances"], figures["frames"], figures["partial"]) == (4, frames, 0)
    assert figures["audio_seconds"] == pytest.approx(0.01 * frames)
    assert 0 < figures["rtf_search"] < figures["rtf"]


def test_threads_find_the_same(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(9, noise=12.0)
    alone = Decoder(graph, CONFIG)
    hypotheses = decode_store(ToyEmission(), store, graph, CONFIG, work=tmp_path, workers=2, device=CPU)
    expected = [alone.decode(matrix, f"utt{index:03d}") for index, matrix in enumerate(store.matrices)]
    assert [replace(h, seconds=0, forward_seconds=0) for h in hypotheses] == [replace(h, seconds=0) for h in expected]


def test_finished_utterances_are_kept_and_torn_lines_dropped(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(6, noise=1.0)
    first = decode_store(ToyEmission(), store, graph, CONFIG, work=tmp_path, device=CPU)
    journal = tmp_path / "hypotheses.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:-9])
    emission = ToyEmission()
    again = decode_store(emission, store, graph, CONFIG, work=tmp_path, device=CPU)
    assert emission.calls == 2
    assert [(h.id, h.words, h.cost) for h in again] == [(h.id, h.words, h.cost) for h in first]
    assert len(read_hypotheses(journal)) == 6


def test_other_settings_or_graph_start_anew(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(3)
    for config, calls in ((CONFIG, 3), (CONFIG, 0), (replace(CONFIG, beam=9.0), 3)):
        emission = ToyEmission()
        decode_store(emission, store, graph, config, work=tmp_path, device=CPU)
        assert emission.calls == calls


def test_damage_inside_the_journal_is_told(graph: Path, tmp_path: Path) -> None:
    store, _ = toy_corpus(2)
    decode_store(ToyEmission(), store, graph, CONFIG, work=tmp_path, device=CPU)
    journal = tmp_path / "hypotheses.jsonl"
    journal.write_bytes(b"{nonsense\n" + journal.read_bytes())
    with pytest.raises(UserError, match=r"hypotheses\.jsonl:1: .*delete the file"):
        decode_store(ToyEmission(), store, graph, CONFIG, work=tmp_path, device=CPU)


def test_missing_graph(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"HCLG\.fst: no such file"):
        decode_store(ToyEmission(), ToyStore([]), tmp_path / "none", CONFIG, work=tmp_path, device=CPU)


def test_empty_store(graph: Path, tmp_path: Path) -> None:
    assert decode_store(ToyEmission(), ToyStore([]), graph, CONFIG, work=tmp_path, device=CPU) == []


SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from decode_toy import ToyEmission, toy_corpus
from asr_distill.decode.search import SearchConfig, decode_store
class Slow(ToyEmission):
    def log_likelihoods(self, utterance):
        time.sleep(0.05)
        return super().log_likelihoods(utterance)
store, _ = toy_corpus(40, noise=1.0)
decode_store(Slow(), store, Path(sys.argv[1]), SearchConfig(insertion_penalty=0.5), work=Path(sys.argv[2]),
             device=torch.device("cpu"))
"""


def test_killed_run_goes_on(graph: Path, tmp_path: Path) -> None:
    journal = tmp_path / "work" / "hypotheses.jsonl"
    run = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(graph), str(tmp_path / "work"),
                            str(Path(__file__).parent)])
    try:
        limit = time.monotonic() + 60
        while (not journal.exists() or journal.read_bytes().count(b"\n") < 5) and time.monotonic() < limit:
            time.sleep(0.02)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done = len(read_hypotheses(journal))
    assert 5 <= done < 40
    store, references = toy_corpus(40, noise=1.0)
    emission = ToyEmission()
    hypotheses = decode_store(emission, store, graph, CONFIG, work=tmp_path / "work", device=CPU)
    assert emission.calls == 40 - done
    assert {h.id: h.words for h in hypotheses} == references
