"""Monophone training and store alignment on a made world whose true segmentation is known."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmm_toys import ToyStore, toy_lang
from hmm_worlds import killed_after

from asr_distill.errors import UserError
from asr_distill.hmm import training
from asr_distill.hmm.align import AlignConfig, Alignment, align_store
from asr_distill.hmm.flat_start import equal_alignment
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import monophone_model
from asr_distill.hmm.mono import MonoConfig, train_mono
from asr_distill.lang.lang import UNKNOWN_WORD
from asr_distill.lang.lexicon import Pronunciation

CPU = torch.device("cpu")
ENTRIES = {
    UNKNOWN_WORD: (Pronunciation(("SPN",)),),
    "TEA": (Pronunciation(("T", "IY")),), "EAT": (Pronunciation(("IY", "T")),),
    "MET": (Pronunciation(("M", "EH", "T")),), "TEAM": (Pronunciation(("T", "IY", "M")),),
    "EM": (Pronunciation(("EH", "M")), Pronunciation(("EH", "M", "IY"))),
}
LANG = toy_lang(ENTRIES)
CONFIG = MonoConfig(utterances=0, iterations=14, gaussians=40, growth_iterations=8, realign=tuple(range(1, 12)),
                    align=AlignConfig(acoustic_scale=0.3))


def make_world(count: int = 40, seed: int = 0) -> tuple[ToyStore, np.ndarray]:
    """Utterances of random words, and the true phone id of every frame."""
    random = np.random.default_rng(seed)
    templates = random.normal(0, 3, (len(LANG.phones) + 1, 3, 40))
    templates[1] = -6.0  # silence has little energy
    utterances, truth = [], []
    for index in range(count):
        words = random.choice(["TEA", "EAT", "MET", "TEAM", "EM"], random.integers(2, 7)).tolist()
        phones = [1]
        for word in words:
            variants = LANG.lexicon.pronunciations(word)
            chosen = variants[random.integers(len(variants))]
            phones += [LANG.phones.index(p) + 1 for p in chosen.phones] + [1] * int(random.random() < 0.3)
        phones += [1] * (phones[-1] != 1)
        rows = [(phone, state) for phone in phones for state in range(3)
                for _ in range(random.integers(2, 9 if phone == 1 else 5))]
        frames = np.array([templates[row] for row in rows]) + random.normal(0, 1.5, (len(rows), 40))
        utterances.append((f"utt{index:02d}", words, frames))
        truth += [phone for phone, _ in rows]
    return ToyStore(utterances), np.array(truth)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store, truth = make_world()
    hmm, gmm, figures = train_mono(store, LANG, CONFIG, tmp_path_factory.mktemp("mono"), CPU)
    return store, truth, hmm, gmm, figures


def test_flat_start_gives_every_state_its_share() -> None:
    graph = GraphCompiler(monophone_model(LANG.phones), LANG).compile(("TEA", "EM"))
    path = equal_alignment(graph, 180)
    runs = np.flatnonzero(np.diff(path, prepend=-1))
    assert graph.phone[path[runs]][::3].tolist() == [LANG.phones.index(p) + 1 for p in
                                                     ("SIL", "T", "IY", "EH", "M", "SIL")]
    assert np.diff([*runs, 180]).tolist() == [10] * 18
    short = equal_alignment(graph, 13)  # no room for silence
    assert sorted(set(graph.phone[short].tolist())) == sorted(LANG.phones.index(p) + 1 for p in
                                                              ("T", "IY", "EH", "M"))
    with pytest.raises(ValueError, match="too few"):
        equal_alignment(graph, 11)


def test_training_finds_the_true_segmentation(trained: Any) -> None:
    store, truth, hmm, gmm, figures = trained
    likelihoods = figures["log_likelihood_per_frame"]
    assert len(likelihoods) == CONFIG.iterations
    assert likelihoods[-1] > likelihoods[5] > likelihoods[1] > likelihoods[0]
    assert figures["failed"] == [] and figures["utterances"] == 40 and figures["frames"] == store.num_frames
    assert hmm.num_pdfs < figures["gaussians"] <= 41 and gmm.num_pdfs == hmm.num_pdfs == 3 * len(LANG.phones)
    alignment = align_store(gmm, store, hmm, LANG, AlignConfig(acoustic_scale=0.3), CPU)
    assert (alignment.phone_ids == truth).mean() > 0.95
    assert figures["silence_share"] == pytest.approx((truth == 1).mean(), abs=0.03)
    assert alignment.figures["silence_share"] == pytest.approx((truth == 1).mean(), abs=0.03)
    assert alignment.aligned.all() and alignment.figures["share_aligned"] == 1.0
    expected = [hmm.tree.pdf(0, p, 0, s) for p, s in
                zip(alignment.phone_ids.tolist(), alignment.states.tolist(), strict=True)]
    assert alignment.pdf_ids.tolist() == expected
    scores = torch.cat([gmm.log_likelihoods(store.features(i, CPU)) for i in range(40)])
    mean = scores[torch.arange(len(scores)), torch.from_numpy(alignment.pdf_ids).long()].double().mean().item()
    assert alignment.figures["log_likelihood_per_frame"] == pytest.approx(mean, abs=1e-4)


def test_self_loops_learn_durations(trained: Any) -> None:
    """Three states of speech last 9 frames on average, three of silence 15 (expected: the sum of 1 / (1 - stay))."""
    hmm = trained[2]
    for phone, frames in (("T", 9), ("EH", 9), ("SIL", 15)):
        number = LANG.phones.index(phone) + 1
        stays = [hmm.self_loop(number, s, hmm.tree.pdf(0, number, 0, s)) for s in range(3)]
        assert sum(1 / (1 - stay) for stay in stays) == pytest.approx(frames, rel=0.1)


@pytest.mark.parametrize("survived", [0, 1, 7, 12])
def test_training_goes_on_after_a_kill_to_the_same_result(trained: Any, survived: int, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, hmm, gmm, figures = trained
    revive = killed_after(monkeypatch, training, survived)
    with pytest.raises(KeyboardInterrupt):
        train_mono(store, LANG, CONFIG, tmp_path, CPU)
    revive()
    started = []
    monkeypatch.setattr(training, "accumulate", lambda *a, real=training.accumulate: (started.append(1), real(*a))[1])
    hmm_again, gmm_again, figures_again = train_mono(store, LANG, CONFIG, tmp_path, CPU)
    assert len(started) == CONFIG.iterations - 1 - survived
    assert hmm_again == hmm
    for name, tensor in gmm.mixtures.tensors().items():
        assert torch.equal(tensor, gmm_again.mixtures.tensors()[name])
    assert figures_again["log_likelihood_per_frame"] == figures["log_likelihood_per_frame"]


def test_a_state_of_other_settings_is_not_taken_up_and_a_damaged_one_is_named(
        trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = trained[0]
    short = dataclasses.replace(CONFIG, iterations=2)
    train_mono(store, LANG, short, tmp_path, CPU)
    calls = []
    monkeypatch.setattr(training, "accumulate", lambda *a, real=training.accumulate: (calls.append(1), real(*a))[1])
    train_mono(store, LANG, short, tmp_path, CPU)
    assert not calls
    train_mono(store, LANG, dataclasses.replace(short, seed=1), tmp_path, CPU)
    assert len(calls) == 2
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:50])
    with pytest.raises(UserError, match=r"state.safetensors: damaged"):
        train_mono(store, LANG, short, tmp_path, CPU)


def test_utterances_too_short_for_their_words_are_reported(trained: Any, tmp_path: Path,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    whole, _, hmm, gmm, _ = trained
    utterances = [(u.id, u.words, whole.frames[a:b]) for u, a, b in
                  zip(whole.utterances[:6], whole.offsets, whole.offsets[1:], strict=False)]
    utterances[2] = ("hurried", ("MET", "TEAM"), utterances[2][2][:17])
    utterances[4] = ("foreign", ("MET", "XYZZY"), utterances[4][2])
    store = ToyStore(utterances)
    with caplog.at_level(logging.WARNING, "asr_distill"):
        alignment = align_store(gmm, store, hmm, LANG, AlignConfig(), CPU)
    assert "hurried" in caplog.text and alignment.figures["failed"] == ["hurried"]
    rows = slice(store.offsets[2], store.offsets[3])
    for array in (alignment.pdf_ids, alignment.phone_ids, alignment.states):
        assert (array[rows] == -1).all() and (np.delete(array, np.r_[rows]) >= 0).all()
    assert alignment.aligned.tolist() == [True, True, False, True, True, True]
    assert alignment.figures["share_aligned"] == pytest.approx(1 - 17 / store.num_frames)
    spoken = alignment.phone_ids[store.offsets[4] : store.offsets[5]]
    assert (spoken == LANG.phones.index("SPN") + 1).any()
    alignment.save(tmp_path)
    assert Alignment.load(tmp_path).figures["failed"] == ["hurried"]
    config = dataclasses.replace(CONFIG, iterations=2)
    assert train_mono(store, LANG, config, tmp_path, CPU)[2]["failed"] == ["hurried"]


def test_the_shortest_utterances_are_taken(trained: Any, tmp_path: Path) -> None:
    store = trained[0]
    figures = train_mono(store, LANG, dataclasses.replace(CONFIG, iterations=1, utterances=7), tmp_path, CPU)[2]
    assert figures["frames"] == np.sort(np.diff(store.offsets))[:7].sum()


def test_nothing_to_align_is_one_clear_line(trained: Any, tmp_path: Path) -> None:
    hmm, gmm = trained[2:4]
    store = ToyStore([("tiny", ("MET", "TEAM"), np.zeros((5, 40)))])
    with pytest.raises(UserError, match="none of the 1 utterances"):
        align_store(gmm, store, hmm, LANG, AlignConfig(), CPU)
    with pytest.raises(UserError, match="none of the 1 utterances"):
        train_mono(store, LANG, CONFIG, tmp_path, CPU)
    with pytest.raises(UserError, match="no utterance"):
        train_mono(ToyStore([("dumb", (), np.zeros((50, 40)))]), LANG, CONFIG, tmp_path, CPU)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"iterations": 0}, {"utterances": -1}, {"gaussians": 0}):
        with pytest.raises(ValueError):
            MonoConfig(**wrong)
    for scale in ({"acoustic_scale": 0.0}, {"silence_boost": -1.0}, {"batch_cells": -1}):
        with pytest.raises(ValueError):
            AlignConfig(**scale)
