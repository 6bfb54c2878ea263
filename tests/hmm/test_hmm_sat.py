"""Speaker-adaptive training and adaptation on a made world whose speakers are distorted by known affine maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hmm_worlds import LANG, MONO, SILENCE, World, in_cepstra, killed_after, make_world, templates

from asr_distill.errors import UserError
from asr_distill.features.cmvn import CmvnStats, UtteranceFeatures
from asr_distill.features.store import FrameStore
from asr_distill.hmm import sat, training
from asr_distill.hmm.adapt import FmllrConfig, speaker_transform
from asr_distill.hmm.align import AlignConfig, Alignment, align_store
from asr_distill.hmm.fmllr import apply_transform
from asr_distill.hmm.frontend import FrontendConfig
from asr_distill.hmm.sat import SatConfig, SatModel, train_sat
from asr_distill.hmm.sat_adapt import adapt_store, align_adapted
from asr_distill.hmm.tree_build import TreeConfig
from asr_distill.hmm.triphone import TriphoneConfig, train_triphone

CPU = torch.device("cpu")
CEPSTRA = 5  # 15 coefficients with deltas: an affine map of the cepstra is one of these too
SCALES = AlignConfig(acoustic_scale=0.3)
TREE = TreeConfig(leaves=40, split_threshold=100.0)
FMLLR = FmllrConfig(min_count=400.0)
BELOW = TriphoneConfig(iterations=8, gaussians=60, growth_iterations=5, realign=(3,), align=SCALES, tree=TREE,
                       frontend=FrontendConfig(cepstra=CEPSTRA))
CONFIG = SatConfig(iterations=9, gaussians=60, growth_iterations=6, realign=(4,), align=SCALES, tree=TREE,
                   fmllr=FMLLR, fmllr_iterations=(2, 4, 6))
SPEAKERS = (*((f"speaker{number}", 10) for number in range(7)), ("brief", 2))


def distortion(speaker: str) -> tuple[np.ndarray, np.ndarray]:
    """A map of the cepstra: matrix and offset."""
    random = np.random.default_rng(sum(speaker.encode()))
    return np.eye(CEPSTRA) + random.normal(0, 0.35, (CEPSTRA, CEPSTRA)), random.normal(0, 5, CEPSTRA)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    means = templates(np.random.default_rng(11), 5.0)
    means[SILENCE] = means[SILENCE] * 0.5

    def sound(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return means[rows[:, 1], rows[:, 3]] + random.normal(0, 2.0, (len(rows), 40))

    return make_world(tmp_path_factory.mktemp("speakers"), sound, SPEAKERS,
                      distort=lambda speaker, frames: in_cepstra(*distortion(speaker), frames))


@pytest.fixture(scope="module")
def below(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_triphone(world.store, world.truth, MONO, LANG, BELOW, tmp_path_factory.mktemp("below"), CPU)[:2]


@pytest.fixture(scope="module")
def alignment(world: World, below: Any) -> Alignment:
    return align_store(below[1], world.store, below[0], LANG, SCALES, CPU)


@pytest.fixture(scope="module")
def trained(world: World, below: Any, alignment: Alignment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_sat(world.store, alignment, *below, LANG, CONFIG, tmp_path_factory.mktemp("sat"), CPU)


@pytest.fixture(scope="module")
def again(world: World, trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Alignment, FrameStore]:
    """The training store aligned under the model, and adapted."""
    hmm, model, _ = trained
    return align_adapted(model, world.store, hmm, LANG, SCALES, FMLLR, tmp_path_factory.mktemp("adapted"), CPU, "sat")


def frames_of(world: World, model: SatModel) -> np.ndarray:
    """Unadapted features of all frames, float64 (frames, 15)."""
    frontend = model.independent.frontend
    return np.concatenate([frontend(world.store.features(index, CPU)).double().numpy()
                           for index in range(len(world.store.utterances))])


def rows_of(world: World) -> dict[str, np.ndarray]:
    """Frames of every speaker."""
    store = world.store
    owners = np.repeat([u.speaker for u in store.utterances], np.diff(store.offsets))
    return {speaker: np.flatnonzero(owners == speaker) for speaker, _ in SPEAKERS}


def separation(frames: np.ndarray, rows: np.ndarray) -> float:
    """How far apart the states lie, in their own scatter: trace(within^-1 between), the same under any affine map."""
    speech = rows[:, 1] != SILENCE
    frames, code = frames[speech], rows[speech, 1] * 3 + rows[speech, 3]
    states, owner = np.unique(code, return_inverse=True)
    between = np.cov(np.stack([frames[code == state].mean(0) for state in states])[owner].T, bias=True)
    return float(np.trace(np.linalg.solve(np.cov(frames.T, bias=True) - between, between)))


def test_adapted_features_are_near_the_undistorted_ones(world: World, trained: Any, again: Any) -> None:
    _, model, figures = trained
    frontend = model.independent.frontend
    stats, bounds = CmvnStats.of(world.plain), zip(world.store.offsets, world.store.offsets[1:], strict=False)
    plain = np.concatenate([frontend(UtteranceFeatures(torch.from_numpy(world.plain[a:b]).float(), stats)).numpy()
                            for a, b in bounds])
    usual = np.isin(np.arange(world.store.num_frames), rows_of(world)["brief"], invert=True)
    best, distorted, found = (separation(frames[usual].astype(np.float64), world.rows[usual]) for frames in
                              (plain, frames_of(world, model), np.array(again[1].adapted.frames)))
    assert distorted < 0.4 * best and found > 0.9 * best
    assert figures["speakers"] == len(SPEAKERS) and figures["pdfs"] == trained[0].num_pdfs
    likelihoods = figures["log_likelihood_per_frame"]
    assert len(likelihoods) == CONFIG.iterations and likelihoods[-1] > likelihoods[1] + 0.5


def test_adaptation_raises_the_likelihood(world: World, trained: Any, again: Any, tmp_path: Path) -> None:
    hmm, model, _ = trained
    alignment, store = again
    assert (alignment.phone_ids == world.rows[:, 1]).mean() > 0.95
    base, heard = frames_of(world, model), np.array(store.adapted.frames, np.float64)
    determinants = np.zeros(len(base))
    for speaker, rows in rows_of(world).items():
        affine = np.linalg.lstsq(np.c_[base[rows], np.ones(len(rows))], heard[rows], rcond=None)[0].T
        assert np.abs(base[rows] @ affine[:, :-1].T + affine[:, -1] - heard[rows]).max() < 0.05  # float16
        determinants[rows] = np.linalg.slogdet(affine[:, :-1])[1]
        assert np.allclose(affine, np.eye(*affine.shape), atol=1e-3) == (speaker == "brief")  # under min_count frames
    unadapted = align_store(model.independent, world.store, hmm, LANG, SCALES, CPU).figures["log_likelihood_per_frame"]
    assert alignment.figures["log_likelihood_per_frame"] + determinants.mean() > unadapted + 5
    pdfs = torch.from_numpy(alignment.pdf_ids.astype(np.int64)).unsqueeze(1)
    by_adapted, of_base = (model.adapted.mixtures.score(torch.from_numpy(frames).float()).gather(1, pdfs).squeeze(1)
                           for frames in (heard, base))
    usual = np.setdiff1d(np.arange(len(base)), rows_of(world)["brief"])
    assert (by_adapted - of_base)[usual].mean().item() + determinants[usual].mean() > 5


def test_a_second_pass_takes_posteriors_from_the_adapted_model(world: World, trained: Any, again: Any,
                                                               tmp_path: Path) -> None:
    hmm, model, _ = trained
    alignment, store = again
    second = adapt_store(model, store, alignment, hmm.phones, FMLLR, tmp_path, CPU)
    assert second.adapted is not None and second.directory == world.store.directory
    rows = rows_of(world)["speaker3"]
    base = torch.from_numpy(frames_of(world, model)[rows]).float()
    speech = torch.from_numpy((alignment.phone_ids[rows] != SILENCE).astype(np.float32))
    pdfs = torch.from_numpy(alignment.pdf_ids[rows].astype(np.int64))
    heard = torch.from_numpy(np.array(store.adapted.frames[rows], np.float32))
    given = model.adapted.mixtures, base, pdfs, speech, FMLLR
    expected, first = (apply_transform(base, speaker_transform(
        *given, posterior_mixtures=mixtures, posterior_features=seen)).numpy()
        for mixtures, seen in ((model.adapted.mixtures, heard), (model.independent.mixtures, base)))
    found = np.array(second.adapted.frames[rows], np.float64)
    assert np.abs(found - expected).max() < 0.02 < np.abs(found - first).max()
    assert np.abs(found - heard.numpy()).mean() < 0.2  # nor is it far from the first pass
    assert separation(np.array(second.adapted.frames, np.float64), world.rows) > \
        0.98 * separation(np.array(store.adapted.frames, np.float64), world.rows)


def test_frames_that_are_not_aligned_are_adapted_too(world: World, trained: Any, again: Any, tmp_path: Path) -> None:
    hmm, model, _ = trained
    alignment = again[0]
    missing = slice(int(world.store.offsets[3]), int(world.store.offsets[5]))  # of the first speaker
    pdfs, phones, states = (array.copy() for array in (alignment.pdf_ids, alignment.phone_ids, alignment.states))
    for array in (pdfs, phones, states):
        array[missing] = -1
    aligned = alignment.aligned.copy()
    aligned[3:5] = False
    partial = dataclasses.replace(alignment, pdf_ids=pdfs, phone_ids=phones, states=states, aligned=aligned)
    found = adapt_store(model, world.store, partial, hmm.phones, FMLLR, tmp_path, CPU)
    base, heard = frames_of(world, model), np.array(found.adapted.frames, np.float64)
    rest = np.setdiff1d(rows_of(world)["speaker0"], np.arange(missing.start, missing.stop))
    affine = np.linalg.lstsq(np.c_[base[rest], np.ones(len(rest))], heard[rest], rcond=None)[0]
    assert np.abs(np.c_[base[missing], np.ones(missing.stop - missing.start)] @ affine - heard[missing]).max() < 0.05
    assert np.abs(heard[missing] - base[missing]).mean() > 0.3
    other = rows_of(world)["speaker5"]
    complete = adapt_store(model, world.store, alignment, hmm.phones, FMLLR, tmp_path / "complete", CPU)
    assert np.array_equal(found.adapted.frames[other], complete.adapted.frames[other])
    assert not np.array_equal(found.adapted.frames[rest], complete.adapted.frames[rest])  # helped in no estimate


def test_the_two_models_belong_together_and_come_back_from_disk(world: World, trained: Any, again: Any,
                                                                tmp_path: Path) -> None:
    hmm, model, figures = trained
    assert model.independent.mixtures.counts == model.adapted.mixtures.counts
    assert figures["gaussians"] == len(model.adapted.mixtures.weights) == len(model.independent.mixtures.weights)
    hmm.save(tmp_path)
    model.save(tmp_path)
    back = SatModel.load(tmp_path, CPU)
    features = again[1].features(4, CPU)
    for name in ("independent", "adapted"):
        mine, theirs = getattr(model, name), getattr(back, name)
        assert torch.equal(mine.log_likelihoods(features), theirs.log_likelihoods(features))
    with pytest.raises(ValueError, match="speaker-adapted frames"):
        back.adapted.log_likelihoods(world.store.features(4, CPU))
    (tmp_path / "adapted" / "gmm.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapted/gmm.safetensors: no such file"):
        SatModel.load(tmp_path, CPU)


def test_likelihoods_never_fall_as_transforms_are_estimated(world: World, below: Any, alignment: Alignment,
                                                            tmp_path: Path) -> None:
    """On a fixed alignment, with single Gaussians and silence as good as speech: one objective, Jacobian included."""
    config = dataclasses.replace(CONFIG, realign=(), gaussians=1, fmllr=FmllrConfig(silence_weight=1.0, min_count=400))
    figures = train_sat(world.store, alignment, *below, LANG, config, tmp_path, CPU)[2]
    assert (np.diff(figures["log_likelihood_per_frame"]) > -1e-4).all()
    never = dataclasses.replace(config, fmllr_iterations=())
    fewer = train_sat(world.store, alignment, *below, LANG, never, tmp_path, CPU)[2]
    assert figures["log_likelihood_per_frame"][-1] > fewer["log_likelihood_per_frame"][-1] + 0.01


@pytest.mark.parametrize("survived", [0, 5])
def test_training_goes_on_after_a_kill_to_the_same_result(world: World, below: Any, alignment: Alignment, trained: Any,
                                                          survived: int, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    hmm, model, figures = trained
    given = world.store, alignment, *below, LANG
    revive = killed_after(monkeypatch, training, survived)
    with pytest.raises(KeyboardInterrupt):
        train_sat(*given, CONFIG, tmp_path, CPU)
    revive()
    steps: list[Any] = []
    monkeypatch.setattr(training, "accumulate", lambda *a, real=training.accumulate: (steps.append(1), real(*a))[1])
    ended: list[Any] = []
    real = sat.train_gmm
    monkeypatch.setattr(sat, "train_gmm", lambda *a, **k: (ended.append(real(*a, **k)), ended[-1])[1])
    hmm_again, model_again, figures_again = train_sat(*given, CONFIG, tmp_path, CPU)
    assert len(steps) == CONFIG.iterations - 1 - survived and hmm_again == hmm
    for name in ("independent", "adapted"):
        mine, theirs = (getattr(each, name).mixtures.tensors() for each in (model, model_again))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
    assert figures_again["log_likelihood_per_frame"] == figures["log_likelihood_per_frame"]
    train_sat(*given, CONFIG, tmp_path, CPU)
    assert np.array_equal(ended[0].state.speakers, ended[1].state.speakers)
    assert torch.equal(ended[0].features, ended[1].features) and len(steps) == CONFIG.iterations - 1 - survived
    train_sat(*given, dataclasses.replace(CONFIG, fmllr=FmllrConfig(min_count=401.0)), tmp_path, CPU)
    assert len(steps) == 2 * CONFIG.iterations - 1 - survived  # not the state of these settings


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"silence_weight": 1.5}, {"min_count": 0.0}):
        with pytest.raises(ValueError):
            FmllrConfig(**wrong)
