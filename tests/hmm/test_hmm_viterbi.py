"""Viterbi against enumeration of all paths and against Kaldi's FasterDecoder."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hmm_toys import TriphoneToy, all_paths, kaldi_best_score, kaldi_graph, toy_lang

from asr_distill.emission import from_matrix
from asr_distill.hmm.align import AlignConfig, align_words
from asr_distill.hmm.aligner import Aligner
from asr_distill.hmm.graph import GraphCompiler, UtteranceGraph
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.hmm.transitions import TransitionTable
from asr_distill.hmm.viterbi import ViterbiBatch, batches
from asr_distill.hmm.viterbi_cpu import STEP, best_path

CPU = torch.device("cpu")
LANG = toy_lang()
WORDS = [("A",), ("BACK", "A"), ("CAB", "BACK"), ("A", "A", "OTHER"), ()]


def toy_model(width: int) -> HmmModel:
    tree = TriphoneToy() if width == 3 else monophone_model(LANG.phones).tree
    return HmmModel(LANG.phones, (3,) * len(LANG.phones), tree)


def with_random_loops(hmm: HmmModel, graphs: list[UtteranceGraph], random: np.random.Generator) -> HmmModel:
    keys = {key for g in graphs for key in zip(g.phone.tolist(), g.state.tolist(), g.pdf.tolist(), strict=True)}
    return replace(hmm, self_loops={key: float(random.uniform(0.1, 0.9)) for key in sorted(keys)})


def brute_force(graph: UtteranceGraph, hmm: HmmModel, scores: np.ndarray, scale: float, loops: float) -> float:
    """Best score over every path and every way to spend the frames on its states, in float64."""
    best = -np.inf
    frames = len(scores)
    for path, weight in all_paths(graph):
        logs = [hmm.log_transitions(int(graph.phone[s]), int(graph.state[s]), int(graph.pdf[s])) for s in path]
        for cuts in itertools.combinations(range(1, frames), len(path) - 1):
            spent = np.diff([0, *cuts, frames])
            total = weight + sum(loops * (stay * (n - 1) + go) for (stay, go), n in zip(logs, spent, strict=True))
            owners = np.repeat(path, spent)
            best = max(best, total + scale * scores[np.arange(frames), graph.pdf[owners]].sum())
    return best


def score_of(graph: UtteranceGraph, hmm: HmmModel, scores: np.ndarray, states: np.ndarray, scale: float,
             loops: float) -> float:
    """What the returned states weigh, by walking them over the predecessor lists, in float64."""
    predecessors, weights = graph.predecessors()
    total = float(graph.initial[states[0]])
    for t, s in enumerate(states):
        total += scale * float(scores[t, graph.pdf[s]])
        stay, go = hmm.log_transitions(int(graph.phone[s]), int(graph.state[s]), int(graph.pdf[s]))
        if t + 1 == len(states):
            total += loops * go + float(graph.final[s])
        elif states[t + 1] == s:
            total += loops * stay
        else:
            ways = weights[states[t + 1]][predecessors[states[t + 1]] == s]
            total += loops * go + float(ways.max())
    return total


def search(form: str, graphs: list[UtteranceGraph], hmm: HmmModel, scores: list[np.ndarray], scale: float,
           self_loop_scale: float) -> list[tuple[np.ndarray, float] | None]:
    """The form for GPUs (which runs on a CPU too) or the compiled one."""
    table = TransitionTable(hmm)
    own = [scale * score[:, graph.own_pdfs[0]] for graph, score in zip(graphs, scores, strict=True)]
    if form == "batch":
        batch = ViterbiBatch(graphs, table, self_loop_scale=self_loop_scale, device=CPU)
        return batch.search([torch.from_numpy(each) for each in own])
    paths = [best_path(graph, table, len(each), lambda rows, columns, each=each: each[rows][:, columns],
                       self_loop_scale=self_loop_scale) for graph, each in zip(graphs, own, strict=True)]
    return [path and (path.states, path.score) for path in paths]


FORMS = pytest.mark.parametrize("form", ["batch", "compiled"])


@FORMS
@pytest.mark.parametrize("width", [1, 3])
def test_equals_brute_force(width: int, form: str) -> None:
    random = np.random.default_rng(width)
    hmm = toy_model(width)
    compiler = GraphCompiler(hmm, LANG)
    graphs = [compiler.compile(words) for words in WORDS]
    hmm = with_random_loops(hmm, graphs, random)
    lengths = [8, 9, 19, 11, 4]
    scores = [random.normal(0, 3, (n, hmm.num_pdfs)).astype(np.float32) for n in lengths]
    for graph, score, found in zip(graphs, scores, search(form, graphs, hmm, scores, 0.4, 0.7), strict=True):
        assert found is not None and len(found[0]) == len(score)
        expected = brute_force(graph, hmm, score, 0.4, 0.7) if len(score) < 15 else None
        assert found[1] == pytest.approx(score_of(graph, hmm, score, found[0], 0.4, 0.7), abs=1e-4)
        if expected is not None:
            assert found[1] == pytest.approx(expected, abs=1e-4)


def test_the_path_tells_its_unscaled_likelihood() -> None:
    random = np.random.default_rng(5)
    hmm = toy_model(1)
    graph = GraphCompiler(hmm, LANG).compile(("CAB",))
    score = random.normal(0, 3, (25, hmm.num_pdfs)).astype(np.float32)
    config = AlignConfig(acoustic_scale=0.3, silence_boost=2.0)
    aligner, scorer = Aligner(hmm, config, CPU), from_matrix(torch.from_numpy(score))
    ((_, path),) = aligner.align([graph], [25], lambda _: scorer)
    for found in (path, *aligner._together([graph], [25], [scorer])):  # the form for GPUs too
        assert found is not None and (found.states == path.states).all()
        assert found.acoustic == pytest.approx(score[np.arange(25), graph.pdf[path.states]].sum(), abs=1e-3)


@FORMS
@pytest.mark.parametrize("width", [1, 3])
def test_equals_kaldi_faster_decoder(width: int, form: str) -> None:
    random = np.random.default_rng(10 + width)
    hmm = toy_model(width)
    compiler = GraphCompiler(hmm, LANG)
    words = [tuple(random.choice(["A", "CAB", "BACK", "X"], n)) for n in (3, 9, 14)]
    graphs = [compiler.compile(each) for each in words]
    hmm = with_random_loops(hmm, graphs, random)
    scores = [random.normal(0, 2, (n, hmm.num_pdfs)).astype(np.float32) for n in (60, 200, 150)]
    table = TransitionTable(hmm)
    for graph, score, found in zip(graphs, scores, search(form, graphs, hmm, scores, 0.5, 0.1), strict=True):
        assert found is not None
        expected = kaldi_best_score(kaldi_graph(graph, table, 0.1), 0.5 * score, beam=1e5)
        assert found[1] == pytest.approx(expected, abs=2e-3)


def test_the_batch_does_not_matter_and_short_utterances_fail_alone() -> None:
    random = np.random.default_rng(3)
    hmm = toy_model(1)
    graphs = [GraphCompiler(hmm, LANG).compile(words) for words in [("CAB",), ("A",), ("CAB", "CAB"), ("BACK",)] * 3]
    lengths = [30, 2, 17, 45, 9, 3, 18, 6, 8, 0, 40, 5]
    scores = [random.normal(0, 3, (n, hmm.num_pdfs)).astype(np.float32) for n in lengths]
    fits = [n >= graph.shortest() for n, graph in zip(lengths, graphs, strict=True)]
    assert [i for i, ok in enumerate(fits) if not ok] == [1, 2, 8, 9, 11]
    alone = [search("batch", [graph], hmm, [score], 0.1, 0.1)[0] if len(score) else None
             for graph, score in zip(graphs, scores, strict=True)]
    some = [i for i, n in enumerate(lengths) if n]
    together = dict(zip(some, search("batch", [graphs[i] for i in some], hmm, [scores[i] for i in some], 0.1, 0.1),
                        strict=True))
    compiled = dict(Aligner(hmm, AlignConfig(), CPU).align(
        graphs, lengths, lambda i: from_matrix(torch.from_numpy(scores[i]))))
    for index, ok in enumerate(fits):
        assert (alone[index] is not None) == (together.get(index) is not None) == ok
        assert (compiled[index] is not None) == ok
        if ok:
            assert (alone[index][0] == together[index][0]).all() and (alone[index][0] == compiled[index].states).all()


def test_a_beam_scores_little_and_finds_the_best_path() -> None:
    random = np.random.default_rng(8)
    hmm = toy_model(3)
    graph = GraphCompiler(hmm, LANG).compile(("CAB", "BACK", "A") * 20)
    graph = replace(graph, pdf=np.arange(len(graph), dtype=np.int32))  # none shared
    table, frames = TransitionTable(hmm), np.arange(1500)
    scores = random.normal(-3, 0.7, (1500, len(graph))).astype(np.float32)
    asked = []

    def score(rows: slice, some: np.ndarray) -> np.ndarray:
        asked.append((rows.stop - rows.start) * len(some))
        return scores[rows][:, some]

    planted = best_path(graph, table, 1500, score, self_loop_scale=0.1)
    scores[frames, planted.states] += 3.0
    found, cost = [], []
    for beam in (np.inf, 15.0):
        asked.clear()
        found.append(best_path(graph, table, 1500, score, self_loop_scale=0.1, beam=beam))
        cost.append(sum(asked))
        assert found[-1].acoustic == pytest.approx(scores[frames, found[-1].states].sum(), rel=1e-5)
    assert (found[1].states == found[0].states).all() and found[1].score == found[0].score
    assert cost[1] < 0.3 * cost[0] < 0.3 * scores.size


def test_where_the_beam_loses_all_paths_it_is_widened() -> None:
    """The frames are like silence until it is too late for the words: only a wide beam keeps what comes to the end."""
    hmm = toy_model(1)
    graph = GraphCompiler(hmm, LANG).compile(("CAB", "CAB"))
    frames = STEP + 10  # of which the words need 18
    scores = np.full((frames, len(graph.own_pdfs[0])), -2.0, np.float32)
    scores[:STEP, 0] = 0.0
    widths = []
    for beam in (1.0, 10.0, np.inf):
        calls = []

        def score(rows: slice, some: np.ndarray, calls: list[int] = calls) -> np.ndarray:
            calls.append(rows.start)
            return scores[rows][:, some]

        path = best_path(graph, TransitionTable(hmm), frames, score, self_loop_scale=0.1, beam=beam)
        widths.append(calls.count(0))
        assert path is not None and set(graph.phone[path.states].tolist()) >= {3, 4, 5}
    assert widths == [3, 2, 1]
    assert best_path(graph, TransitionTable(hmm), 17, score, self_loop_scale=0.1, beam=1.0) is None


def test_batches_cover_all_and_stay_within_the_budget() -> None:
    lengths, sizes = [5, 100, 50, 7, 90, 1000], [10, 20, 30, 40, 50, 60]
    found = list(batches(lengths, sizes, 7000))
    assert sorted(i for batch in found for i in batch) == list(range(6))
    for batch in found:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * sum(sizes[i] for i in batch) <= 7000


def test_silence_boost_moves_the_border_of_silence() -> None:
    """Frames that fit silence only slightly worse than the word go to silence once it is boosted."""
    hmm = toy_model(1)
    graph = GraphCompiler(hmm, LANG).compile(("A",))
    scores = torch.full((40, hmm.num_pdfs), -20.0)
    scores[:, hmm.tree.pdf(0, 3, 0, 0) : hmm.tree.pdf(0, 3, 0, 2) + 1] = -1.0
    scores[20:, :3] = -1.5
    shares = []
    for boost in (1.0, 4.0):
        aligner = Aligner(hmm, AlignConfig(acoustic_scale=1.0, silence_boost=boost), CPU)
        ((_, path),) = aligner.align([graph], [40], lambda _: from_matrix(scores))
        assert path is not None
        shares.append((graph.phone[path.states] == 1).mean())
        assert path.acoustic == pytest.approx(scores.double()[range(40), graph.pdf[path.states]].sum().item())
    assert shares == [0.0, 0.5]


def test_word_spans_of_a_planted_utterance() -> None:
    hmm = toy_model(1)
    phones = [1] * 10 + [5] * 6 + [3] * 8 + [4] * 6 + [1] * 5 + [3] * 7  # SIL K AA B SIL AA
    scores = torch.full((len(phones), hmm.num_pdfs), -10.0)
    for t, phone in enumerate(phones):
        scores[t, hmm.tree.pdf(0, phone, 0, 0) : hmm.tree.pdf(0, phone, 0, 2) + 1] = 0.0
    spans = align_words(scores, ("CAB", "A"), hmm, LANG, AlignConfig(acoustic_scale=1.0))
    assert [(s.word, s.start_frame, s.end_frame) for s in spans] == [("CAB", 10, 30), ("A", 35, 42)]
    assert all(s.confidence == pytest.approx(1 / 3, abs=0.01) for s in spans)
