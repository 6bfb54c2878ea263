"""Triphones, LDA and MLLT on made worlds: sounds that depend on neighbours, a hum that neighbouring frames undo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmm_worlds import IDS, LANG, MONO, SILENCE, World, in_cepstra, killed_after, make_world, templates

from asr_distill.errors import UserError
from asr_distill.hmm import training, triphone
from asr_distill.hmm.align import AlignConfig, Alignment, align_store
from asr_distill.hmm.frontend import FrontendConfig, splice_frames
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.mono import MonoConfig, train_mono
from asr_distill.hmm.tree_build import TreeConfig
from asr_distill.hmm.triphone import LdaConfig, TriphoneConfig, train_lda, train_triphone

CPU = torch.device("cpu")
SCALES = AlignConfig(acoustic_scale=0.3)
TRIPHONE = TriphoneConfig(iterations=10, gaussians=80, growth_iterations=6, realign=(3, 6), align=SCALES,
                          tree=TreeConfig(leaves=60, split_threshold=100.0))
LDA = LdaConfig(iterations=9, gaussians=60, growth_iterations=6, realign=(3, 6), align=SCALES, dimension=12,
                tree=TreeConfig(leaves=40, split_threshold=100.0), mllt_iterations=(2, 4, 6),
                frontend=FrontendConfig(cepstra=8, splice=2))
VOWELS = ("EH", "IH", "IY")


@pytest.fixture(scope="module")
def accented(tmp_path_factory: pytest.TempPathFactory) -> World:
    """T after a vowel is another sound, and so is IY before M."""
    random = np.random.default_rng(5)
    usual, other = templates(random), templates(random)

    def sound(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        after_vowel = (rows[:, 1] == IDS["T"]) & np.isin(rows[:, 0], [IDS[vowel] for vowel in VOWELS])
        before_m = (rows[:, 1] == IDS["IY"]) & (rows[:, 2] == IDS["M"])
        phone, state = rows[:, 1], rows[:, 3]
        means = np.where((after_vowel | before_m)[:, None], other[phone, state], usual[phone, state])
        return means + random.normal(0, 1.5, means.shape)

    return make_world(tmp_path_factory.mktemp("accented"), sound, (("one", 60),))


@pytest.fixture(scope="module")
def humming(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A loud hum that changes its sign from frame to frame, and noise whose directions MLLT can find."""
    random = np.random.default_rng(5)
    means, directions = templates(random, 1.5), random.normal(size=(8, 8))
    loudness = 2.0 * np.exp(random.uniform(-1, 1, (len(means), 3, 8)))

    def sound(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        hum = np.cumsum(random.normal(0, 0.5, (len(rows), 40)), 0) + random.normal(0, 10, 40)
        hum[1::2] *= -1
        frames = means[rows[:, 1], rows[:, 3]] + hum
        noise = random.normal(size=(len(rows), 8)) * loudness[rows[:, 1], rows[:, 3]]
        return frames + in_cepstra(np.zeros((8, 8)), noise @ directions.T * 0.3, np.zeros_like(frames))

    return make_world(tmp_path_factory.mktemp("humming"), sound, (("one", 60),))


@pytest.fixture(scope="module")
def ladder(accented: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A monophone alignment, and triphones trained on it."""
    work = tmp_path_factory.mktemp("ladder")
    config = MonoConfig(utterances=0, iterations=14, gaussians=50, growth_iterations=8, realign=tuple(range(1, 12)),
                        align=SCALES)
    mono_hmm, mono_gmm, mono_figures = train_mono(accented.store, LANG, config, work / "mono", CPU)
    start = align_store(mono_gmm, accented.store, mono_hmm, LANG, SCALES, CPU)
    return start, mono_hmm, mono_figures, train_triphone(accented.store, start, mono_hmm, LANG, TRIPHONE, work, CPU)


def test_senones_tell_the_contexts_apart(accented: World, ladder: Any) -> None:
    start, _, mono_figures, (hmm, gmm, figures) = ladder
    t, iy, middle = IDS["T"], IDS["IY"], 1  # deltas see the neighbours' sounds too in the first and last state
    after_vowel = {hmm.tree.pdf(IDS[vowel], t, SILENCE, middle) for vowel in VOWELS}
    after_others = {hmm.tree.pdf(left, t, SILENCE, middle) for left in (SILENCE, IDS["M"], IDS["K"])}
    assert not after_vowel & after_others
    before_m = {hmm.tree.pdf(left, iy, IDS["M"], middle) for left in (IDS["T"], IDS["M"])}
    before_others = {hmm.tree.pdf(left, iy, right, middle) for left in (IDS["T"], IDS["M"])
                     for right in (SILENCE, IDS["T"], IDS["K"])}
    assert not before_m & before_others
    assert len({hmm.tree.pdf(left, IDS["M"], IDS["T"], middle) for left in (SILENCE, *(IDS[v] for v in VOWELS))}) == 1
    assert hmm.num_pdfs == gmm.num_pdfs == figures["pdfs"] == figures["tree"]["leaves"] > MONO.num_pdfs
    likelihoods = figures["log_likelihood_per_frame"]
    assert len(likelihoods) == 10 and likelihoods[-1] > likelihoods[1] + 1 and likelihoods[1] > likelihoods[0] + 10
    assert likelihoods[-1] > mono_figures["log_likelihood_per_frame"][-1] + 1
    truth = accented.rows[:, 1]
    assert (start.phone_ids == truth).mean() > 0.9
    alignment = align_store(gmm, accented.store, hmm, LANG, SCALES, CPU)
    assert (alignment.phone_ids == truth).mean() > 0.95
    contexts = accented.rows[alignment.phone_ids == truth]
    pdfs = alignment.pdf_ids[alignment.phone_ids == truth]
    mine = (contexts[:, 1] == t) & (alignment.states[alignment.phone_ids == truth] == middle)
    sounds_other = np.isin(contexts[mine][:, 0], [IDS[vowel] for vowel in VOWELS])
    assert not set(pdfs[mine][sounds_other]) & set(pdfs[mine][~sounds_other])


def trained_lda(world: World, config: LdaConfig, work: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`train_lda` on the true alignment, and what `train_gmm` gave it."""
    kept = []
    real = triphone.train_gmm
    monkeypatch.setattr(triphone, "train_gmm", lambda *a, **k: (kept.append(real(*a, **k)), kept[-1])[1])
    return *train_lda(world.store, world.truth, MONO, LANG, config, work, CPU), kept[-1]


def test_lda_finds_what_lies_in_neighbouring_frames(humming: World, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    store, truth = humming.store, humming.rows[:, 1]
    hmm, gmm, figures, trained = trained_lda(humming, LDA, tmp_path, monkeypatch)
    alignment = align_store(gmm, store, hmm, LANG, SCALES, CPU)
    assert (alignment.phone_ids == truth).mean() > 0.95
    weights = gmm.frontend.projection.view(12, 5, 8)[0]  # of the best direction: frames, cepstra
    assert (weights[1] @ weights[2] > 0) and (weights[2] @ weights[3] > 0)  # neighbours added: the hum cancels
    frames = torch.cat([gmm.features(store.features(index, CPU)) for index in range(len(store.utterances))])
    assert trained.features.shape == frames.shape == (store.num_frames, 12)
    assert (frames - trained.features).abs().max() < 1e-4
    transform = trained.state.transform
    assert transform.shape == (12, 12) and np.abs(transform - np.eye(12)).max() > 0.05
    gmm.save(tmp_path / "saved")
    again = DiagGmm.load(tmp_path / "saved", CPU)
    for index in (0, 7):
        features = store.features(index, CPU)
        assert torch.equal(gmm.log_likelihoods(features), again.log_likelihoods(features))
    assert figures["parameters"] == gmm.parameters == len(gmm.mixtures.weights) * 25 + 12 * 40


def test_likelihoods_never_fall_as_mllt_is_estimated(humming: World, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fixed alignment, with single Gaussians and all frames: EM and MLLT share one objective."""
    fixed = dataclasses.replace(LDA, realign=(), gaussians=1)
    never = dataclasses.replace(fixed, mllt_iterations=())
    without = trained_lda(humming, never, tmp_path / "without", monkeypatch)[2]["log_likelihood_per_frame"]
    speech = trained_lda(humming, fixed, tmp_path / "speech", monkeypatch)[2]["log_likelihood_per_frame"]
    assert speech[:2] == without[:2] and speech[-1] > without[-1] + 0.1
    monkeypatch.setattr(triphone, "frame_weights", lambda labels, *_: np.ones(len(labels.pdf_ids), np.float32))
    _, gmm, figures, trained = trained_lda(humming, fixed, tmp_path / "all", monkeypatch)
    likelihoods = figures["log_likelihood_per_frame"]
    assert (np.diff(likelihoods) > -1e-4).all() and likelihoods[-1] > speech[-1]
    rows = torch.arange(humming.store.num_frames)
    scores = gmm.mixtures.score(trained.features)[rows, torch.from_numpy(trained.state.labels.pdf_ids).long()]
    jacobian = np.linalg.slogdet(trained.state.transform)[1]
    assert scores.double().mean().item() + jacobian == pytest.approx(likelihoods[-1], abs=1e-3)


Train = Callable[..., Any]


@pytest.mark.parametrize("survived", [0, 4])
@pytest.mark.parametrize(("train", "config"), [(train_triphone, TRIPHONE), (train_lda, LDA)])
def test_training_goes_on_after_a_kill_to_the_same_result(humming: World, train: Train, config: TriphoneConfig,
                                                          survived: int, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    given = humming.store, humming.truth, MONO, LANG
    hmm, gmm, figures = train(*given, config, tmp_path / "whole", CPU)
    revive = killed_after(monkeypatch, training, survived)
    with pytest.raises(KeyboardInterrupt):
        train(*given, config, tmp_path / "killed", CPU)
    revive()
    steps = []
    monkeypatch.setattr(training, "accumulate", lambda *a, real=training.accumulate: (steps.append(1), real(*a))[1])
    hmm_again, gmm_again, figures_again = train(*given, config, tmp_path / "killed", CPU)
    assert len(steps) == config.iterations - 1 - survived
    assert hmm_again == hmm
    for name, tensor in {**gmm.mixtures.tensors(), **gmm.frontend.tensors()}.items():
        assert torch.equal(tensor, {**gmm_again.mixtures.tensors(), **gmm_again.frontend.tensors()}[name])
    assert figures_again["log_likelihood_per_frame"] == figures["log_likelihood_per_frame"]
    steps.clear()
    train(*given, config, tmp_path / "killed", CPU)
    assert not steps
    train(*given, dataclasses.replace(config, seed=1), tmp_path / "killed", CPU)  # not the state of these settings
    assert len(steps) == config.iterations


def test_a_state_that_began_with_another_alignment_is_not_taken_up(accented: World, ladder: Any, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(TRIPHONE, iterations=2, realign=(), tree=TreeConfig(leaves=1))
    start = accented.truth
    train_triphone(accented.store, start, MONO, LANG, short, tmp_path, CPU)
    steps = []
    monkeypatch.setattr(training, "accumulate", lambda *a, real=training.accumulate: (steps.append(1), real(*a))[1])
    states = start.states.copy()
    first = np.flatnonzero(np.diff(states) == 1)[0]
    states[first] = states[first + 1]  # one frame more for the next state
    pdfs = start.pdf_ids.copy()
    pdfs[first] = pdfs[first + 1]
    other = dataclasses.replace(start, states=states, pdf_ids=pdfs)
    train_triphone(accented.store, other, MONO, LANG, short, tmp_path, CPU)
    assert len(steps) == 2


def test_utterances_to_train_on_are_spread_evenly(accented: World, tmp_path: Path) -> None:
    config = dataclasses.replace(TRIPHONE, iterations=1, utterances=7, realign=())
    aligned = np.ones(60, bool)
    aligned[[0, 31]] = False
    start = dataclasses.replace(accented.truth, aligned=aligned)
    figures = train_triphone(accented.store, start, MONO, LANG, config, tmp_path, CPU)[2]
    left = np.flatnonzero(aligned)
    expected = [left[round(step * 57 / 6)] for step in range(7)]  # 9.5 apart: from the first aligned one to the last
    assert expected[0] == 1 and expected[-1] == 59
    assert figures["utterances"] == 7 and figures["frames"] == np.diff(accented.store.offsets)[expected].sum()
    whole = dataclasses.replace(config, utterances=60)
    assert train_triphone(accented.store, start, MONO, LANG, whole, tmp_path, CPU)[2]["utterances"] == 58


def test_an_alignment_of_another_store_is_one_clear_line(accented: World, humming: World, tmp_path: Path) -> None:
    truth = humming.truth
    for train, config in ((train_triphone, TRIPHONE), (train_lda, LDA)):
        with pytest.raises(UserError, match=rf"has {accented.store.num_frames} frames.*align this store"):
            train(accented.store, Alignment(truth.pdf_ids[1:], truth.phone_ids[1:], truth.states[1:], truth.aligned,
                                            MONO.num_pdfs), MONO, LANG, config, tmp_path, CPU)


@pytest.mark.parametrize(("length", "context"), [(1, 3), (2, 1), (9, 4)])
def test_spliced_frames_equal_the_definition(length: int, context: int) -> None:
    frames = np.random.default_rng(3).normal(size=(length, 3)).astype(np.float32)
    expected = [np.concatenate([frames[min(max(t + shift, 0), length - 1)] for shift in range(-context, context + 1)])
                for t in range(length)]
    assert np.array_equal(splice_frames(torch.from_numpy(frames), context).numpy(), np.array(expected))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"utterances": -1}, {"iterations": 0}):
        with pytest.raises(ValueError):
            TriphoneConfig(**wrong)
    for dimension in (0, 92):  # 7 frames of 13 cepstra are 91
        with pytest.raises(ValueError, match="dimension must be within 1 and 91"):
            LdaConfig(dimension=dimension)
