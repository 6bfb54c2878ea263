"""The walk over the grid, and tuning end to end on the toy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from decode_toy import ToyEmission, toy_corpus, toy_graph

from asr_distill.decode.decoder import Decoder, SearchConfig
from asr_distill.decode.score import error_counts
from asr_distill.decode.tune import TuneConfig, spread, tune, walk
from asr_distill.errors import UserError


def test_walk_finds_the_lowest_point_of_a_bowl() -> None:
    for goal in itertools.product(range(7), range(5)):
        surface = {(i, j): (i - goal[0]) ** 2 + (j - goal[1]) ** 2 + 0.5 * (i - goal[0]) * (j - goal[1])
                   for i in range(7) for j in range(5)}
        asked = []
        best, seen = walk(lambda cell, s=surface, a=asked: a.append(cell) or {"wer": s[cell]}, (3, 2), (7, 5))
        assert best == goal
        assert len(asked) == len(set(asked)) == len(seen) < 24


def test_walk_stays_on_a_plain() -> None:
    best, seen = walk(lambda cell: {"wer": 1.0}, (1, 1), (3, 3))
    assert best == (1, 1) and len(seen) == 5


def test_spread() -> None:
    assert spread(range(3), 10) == [0, 1, 2]
    assert spread(range(0, 100, 2), 3) == [0, 48, 98]


def test_tuning_lowers_the_error_rate_and_goes_on(tmp_path: Path) -> None:
    graph = toy_graph(tmp_path / "graph")
    store, references = toy_corpus(60, noise=9.0)
    store.matrices = [matrix * 20 for matrix in store.matrices]  # likelihoods far too sure: the scale must fall
    search = SearchConfig(acoustic_scale=0.1)
    config = TuneConfig(acoustic_scales=(0.0025, 0.005, 0.01, 0.02, 0.05, 0.1), insertion_penalties=(-1.0, 0.0, 1.0),
                        utterances=40)
    emission = ToyEmission()
    tuned = tune(emission, store, references, graph, search, config, work=tmp_path / "work", device=torch.device("cpu"))
    assert emission.calls == 40  # the network runs once an utterance, not once a point
    rates = {(point["acoustic_scale"], point["insertion_penalty"]): point["wer"] for point in tuned.figures["grid"]}
    assert rates[tuned.search.acoustic_scale, tuned.search.insertion_penalty] == min(rates.values())
    assert rates[0.1, 0.0] > min(rates.values())
    assert tuned.search.acoustic_scale < 0.1 and tuned.search.beam == search.beam
    assert tuned.figures["utterances"] == 40
    # The best point's error rate is what a search there gives.
    decoder = Decoder(graph, tuned.search)
    chosen = spread(range(60), 40)
    ids = [store.utterances[index].id for index in chosen]
    found = {id: decoder.decode(store.matrices[index]).words for id, index in zip(ids, chosen, strict=True)}
    errors = error_counts({id: references[id] for id in ids}, found).sum()
    words = sum(len(references[id]) for id in ids)
    assert tuned.figures["best"]["wer"] == pytest.approx(100 * errors / words)
    again = tune(emission, store, references, graph, search, config, work=tmp_path / "work",
                 device=torch.device("cpu"))
    assert again.search == tuned.search and emission.calls == 40


def test_references_are_needed(tmp_path: Path) -> None:
    store, references = toy_corpus(2)
    del references["utt001"]
    with pytest.raises(UserError, match="no reference for 1 utterances, for example utt001"):
        tune(ToyEmission(), store, references, tmp_path, SearchConfig(), TuneConfig(), work=tmp_path,
             device=torch.device("cpu"))


@pytest.mark.parametrize("wrong", [{"acoustic_scales": ()}, {"acoustic_scales": (0.2, 0.1)},
                                   {"acoustic_scales": (0.0, 0.1)}, {"utterances": 0}, {"beam": 0.0},
                                   {"insertion_penalties": (0.0, 0.0)}])
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError):
        TuneConfig(**wrong)
    assert np.all(np.diff(TuneConfig().acoustic_scales) > 0)
