"""Mixtures and EM against float64 numpy and against kaldi_hmm_gmm's accumulators and update."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.emission import EmissionModel
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.hmm.em import (
    UpdateConfig,
    accumulate,
    global_mixtures,
    pdf_occupancies,
    split,
    split_targets,
    update,
)
from asr_distill.hmm.frontend import Frontend, FrontendConfig
from asr_distill.hmm.gmm import DiagGmm, Mixtures
from asr_distill.kaldi import kaldi_hmm_gmm as kaldi

COUNTS = (1, 3, 2, 5)
DIM = 6


def make_mixtures(seed: int = 0, counts: tuple[int, ...] = COUNTS) -> Mixtures:
    random = np.random.default_rng(seed)
    total = sum(counts)
    weights = np.concatenate([random.dirichlet(np.full(n, 3.0)) for n in counts])
    return Mixtures(torch.from_numpy(weights).float(), torch.from_numpy(random.normal(0, 2, (total, DIM))).float(),
                    torch.from_numpy(random.uniform(0.3, 2, (total, DIM))).float(), counts)


def make_frames(count: int = 400, seed: int = 1, pdfs: int = len(COUNTS)) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    owner = random.integers(0, pdfs, count)
    return torch.from_numpy(random.normal(0, 2, (count, DIM)) + owner[:, None] * 0.5).float(), torch.from_numpy(owner)


def log_joint(m: Mixtures, x: np.ndarray, pdf: int) -> np.ndarray:
    """float64 log(weight * density) of a pdf's components, (frames, components)."""
    part = slice(m.offsets[pdf], m.offsets[pdf + 1])
    w, mu, var = (tensor[part].double().numpy() for tensor in (m.weights, m.means, m.variances))
    square = ((x[:, None] - mu) ** 2 / var).sum(2)
    return np.log(w) - 0.5 * (square + np.log(2 * np.pi * var).sum(1))


def kaldi_model(m: Mixtures) -> kaldi.AmDiagGmm:
    model = kaldi.AmDiagGmm()
    for pdf, count in enumerate(m.counts):
        part = slice(m.offsets[pdf], m.offsets[pdf + 1])
        gmm = kaldi.DiagGmm(count, DIM)
        gmm.set_weights(m.weights[part].numpy())
        gmm.set_invvars_and_means(1 / m.variances[part].numpy(), m.means[part].numpy())
        gmm.compute_gconsts()
        model.add_pdf(gmm)
    return model


def kaldi_accumulators(model: kaldi.AmDiagGmm, x: torch.Tensor, owner: torch.Tensor) -> kaldi.AccumAmDiagGmm:
    accumulators = kaldi.AccumAmDiagGmm()
    accumulators.init(model, 15)  # means, variances, weights, transitions
    for frame, pdf in zip(x.numpy(), owner.tolist(), strict=True):
        accumulators.accumulate_for_gmm(model, frame, pdf, 1.0)
    return accumulators


@pytest.mark.parametrize("form", ["score", "score_in_blocks"])  # compiled for CPUs, and the one for GPUs
def test_scores_of_some_pdfs_are_those_of_all(form: str) -> None:
    m = make_mixtures()
    x, _ = make_frames(130)
    some = np.array([m.num_pdfs - 1, 0, 2])
    score = getattr(m, form)
    assert torch.allclose(score(x, some), score(x)[:, torch.from_numpy(some)], atol=1e-5)
    assert score(x[:0], some).shape == (0, 3)


@pytest.mark.parametrize("form", ["score", "score_in_blocks"])
def test_scores_equal_float64_and_kaldi(form: str) -> None:
    m = make_mixtures()
    x, _ = make_frames(300)
    found = getattr(m, form)(x)
    model = kaldi_model(m)
    for pdf in range(m.num_pdfs):
        joint = log_joint(m, x.double().numpy(), pdf)
        expected = np.logaddexp.reduce(joint, 1)
        assert np.abs(found[:, pdf].numpy() - expected).max() < 1e-3
        by_kaldi = [model.log_likelihood(pdf, frame) for frame in x[:20].numpy()]
        assert found[:20, pdf].numpy() == pytest.approx(by_kaldi, abs=2e-3)


def test_far_away_pdfs_keep_exact_scores() -> None:
    """No floor: a pdf hundreds of nats behind the best is still ranked."""
    m = make_mixtures()
    x = torch.full((1, DIM), 60.0)
    expected = [np.logaddexp.reduce(log_joint(m, x.double().numpy(), pdf), 1)[0] for pdf in range(4)]
    assert min(expected) < -5000
    assert m.score(x)[0].numpy() == pytest.approx(expected, rel=1e-5)


def test_statistics_equal_float64() -> None:
    m = make_mixtures()
    x, owner = make_frames()
    stats = accumulate(m, x, owner)
    wide = x.double().numpy()
    total = 0.0
    for pdf in range(m.num_pdfs):
        mine = wide[owner.numpy() == pdf]
        joint = log_joint(m, mine, pdf)
        evidence = np.logaddexp.reduce(joint, 1)
        posterior = np.exp(joint - evidence[:, None])
        part = slice(m.offsets[pdf], m.offsets[pdf + 1])
        assert np.abs(stats.occupancies[part].numpy() - posterior.sum(0)).max() < 1e-3
        assert np.abs(stats.sums[part].numpy() - posterior.T @ mine).max() < 2e-3
        assert np.abs(stats.squares[part].numpy() - posterior.T @ mine**2).max() < 1e-2
        total += evidence.sum()
    assert stats.log_likelihood == pytest.approx(total, rel=1e-6) and stats.frames == len(x)
    assert pdf_occupancies(m, stats) == pytest.approx(np.bincount(owner.numpy(), minlength=4), abs=1e-3)


@pytest.mark.parametrize("occupancy", [1.0, 30.0])  # 30: some components are removed
def test_one_em_step_equals_kaldi(occupancy: float) -> None:
    m = make_mixtures()
    x, owner = make_frames()
    model = kaldi_model(m)
    accumulators = kaldi_accumulators(model, x, owner)
    options = kaldi.MleDiagGmmOptions()
    options.min_gaussian_occupancy = occupancy
    options.min_variance = 2.5
    kaldi.mle_am_diag_gmm_update(options, accumulators, 15, model)
    stats = accumulate(m, x, owner)
    assert stats.log_likelihood == pytest.approx(accumulators.tot_log_like, rel=1e-5)
    found = update(m, stats, UpdateConfig(variance_floor=2.5, min_occupancy=occupancy))
    assert list(found.counts) == [model.num_gauss_in_pdf(pdf) for pdf in range(4)]
    assert (sum(found.counts) < sum(COUNTS)) == (occupancy == 30.0)
    assert float(found.variances.min()) == 2.5
    for pdf in range(4):
        gmm = model.get_pdf(pdf)
        part = slice(found.offsets[pdf], found.offsets[pdf + 1])
        assert np.abs(found.weights[part].numpy() - gmm.weights).max() < 1e-4
        assert np.abs(found.means[part].numpy() - gmm.means).max() < 1e-3
        assert np.abs(found.variances[part].numpy() - gmm.vars).max() < 1e-3


def test_an_unseen_pdf_stays_as_it_was() -> None:
    m = make_mixtures()
    x, owner = make_frames()
    found = update(m, accumulate(m, x[owner != 0], owner[owner != 0]), UpdateConfig())
    assert (found.means[0] == m.means[0]).all() and (found.variances[0] == m.variances[0]).all()
    assert found.counts[0] == 1 and float(found.weights[0]) == 1.0


def test_sums_can_be_of_other_features_than_the_posteriors() -> None:
    m = make_mixtures()
    x, owner = make_frames()
    y = torch.from_numpy(np.random.default_rng(9).normal(1, 2, (len(x), DIM))).float()
    stats = accumulate(m, x, owner, features_out=y)
    alone = accumulate(m, x, owner)
    assert torch.equal(stats.occupancies, alone.occupancies) and stats.log_likelihood == alone.log_likelihood
    for pdf in range(m.num_pdfs):
        mine = owner.numpy() == pdf
        joint = log_joint(m, x.double().numpy()[mine], pdf)
        posterior = np.exp(joint - np.logaddexp.reduce(joint, 1)[:, None])
        other, part = y.double().numpy()[mine], slice(m.offsets[pdf], m.offsets[pdf + 1])
        assert np.abs(stats.sums[part].numpy() - posterior.T @ other).max() < 2e-3
        assert np.abs(stats.squares[part].numpy() - posterior.T @ other**2).max() < 1e-2


def test_all_components_can_be_kept() -> None:
    """Two models' Gaussians that belong together: one that saw too few frames stays, with next to no weight."""
    m = make_mixtures()
    x, owner = make_frames()
    stats = accumulate(m, x[owner != 2], owner[owner != 2])
    stats.occupancies[1] = 0.0  # of pdf 1, with two others
    config = UpdateConfig(min_occupancy=20.0)
    found, usual = update(m, stats, config, keep_all=True), update(m, stats, config)
    assert found.counts == m.counts and sum(usual.counts) < sum(m.counts)
    few = stats.occupancies.numpy() <= 20
    assert few[1] and few[4:6].all() and not few[0]
    assert torch.equal(found.means[few], m.means[few]) and torch.equal(found.variances[few], m.variances[few])
    means = (stats.sums / stats.occupancies.unsqueeze(1)).float()
    assert torch.allclose(found.means[~few], means[~few]) and 0 < float(found.weights[1]) < 1e-7
    for begin, end in zip(m.offsets, m.offsets[1:], strict=False):
        assert float(found.weights[begin:end].sum()) == pytest.approx(1, abs=1e-6)
    assert found.weights[4:6].tolist() == [0.5, 0.5]  # a pdf without a frame
    assert torch.isfinite(found.score(x)).all()


def test_likelihood_never_falls() -> None:
    x, owner = make_frames(3000)
    x[::3] += 6.0  # something for a second component to find
    m = global_mixtures(x, 4)
    assert m.means[3].numpy() == pytest.approx(x.double().mean(0).numpy(), abs=1e-5)
    likelihoods = []
    for iteration in range(40):
        stats = accumulate(m, x, owner)
        likelihoods.append(stats.log_likelihood / stats.frames)
        m = update(m, stats, UpdateConfig(min_occupancy=1e-3, min_weight=0.0))
        if iteration == 3:
            m = split(m, [8, 8, 8, 8], seed=0, perturb=1e-3)  # so near that the likelihood hardly changes
    assert (np.diff(likelihoods) > -1e-5).all()
    assert likelihoods[-1] > likelihoods[4] + 0.5


def test_splitting_halves_the_heaviest_and_keeps_the_mean() -> None:
    m = make_mixtures()
    found = split(m, [2, 3, 4, 5], seed=1)
    assert found.counts == (2, 3, 4, 5)
    assert found.weights[:2].tolist() == [0.5, 0.5]
    assert found.means[:2].mean(0).numpy() == pytest.approx(m.means[0].numpy(), abs=1e-6)
    assert (found.means[0] != found.means[1]).all()
    assert (found.means[2:5] == m.means[1:4]).all()
    for pdf in range(4):
        part = slice(found.offsets[pdf], found.offsets[pdf + 1])
        assert float(found.weights[part].sum()) == pytest.approx(1, abs=1e-6)
    again = split(m, [2, 3, 4, 5], seed=1)
    assert (again.means == found.means).all() and not (split(m, [2, 3, 4, 5], seed=2).means == found.means).all()


def test_components_are_dealt_as_kaldi_deals_them() -> None:
    random = np.random.default_rng(5)
    occupancies = np.concatenate([random.uniform(100, 50_000, 20), [0.0, 15.0, 45.0]])
    model = kaldi.AmDiagGmm()
    m = make_mixtures(counts=(1,) * len(occupancies))
    model = kaldi_model(m)
    model.split_by_count(occupancies.astype(np.float32), 150, 0.01, 0.25, 20.0)
    expected = [model.num_gauss_in_pdf(pdf) for pdf in range(len(occupancies))]
    found = split_targets(occupancies, m.counts, 150, power=0.25, min_count=20.0)
    assert found == expected and sum(found) == 150
    assert split_targets(occupancies, (9,) * len(occupancies), 150)[-3:] == [9, 9, 9]


def make_gmm() -> DiagGmm:
    random = np.random.default_rng(2)
    stats = CmvnStats.of(random.normal(3, 2, (100, 40)))
    mixtures = global_mixtures(torch.from_numpy(random.normal(0, 1, (200, 39))).float(), 5)
    return DiagGmm(split(mixtures, [1, 2, 3, 4, 5], seed=0), Frontend(FrontendConfig(), Cmvn("speaker", stats)))


def test_a_gmm_is_an_emission_model_and_comes_back_from_disk(tmp_path: Path) -> None:
    gmm = make_gmm()
    assert isinstance(gmm, EmissionModel) and len(gmm.mixtures.weights) == 15
    raw = torch.from_numpy(np.random.default_rng(3).normal(3, 2, (70, 40))).float()
    utterance = UtteranceFeatures(raw, CmvnStats.of(raw.numpy()))
    gmm.save(tmp_path)
    back = DiagGmm.load(tmp_path, torch.device("cpu"))
    scores = gmm.log_likelihoods(utterance)
    assert scores.shape == (70, 5) and scores.dtype == torch.float32
    assert torch.equal(scores, back.log_likelihoods(utterance))
    assert back.frontend.cmvn.kind == "speaker" and back.frontend.cmvn.train.count == 100


def test_a_damaged_gmm_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gmm.safetensors: no such file"):
        DiagGmm.load(tmp_path, torch.device("cpu"))
    make_gmm().save(tmp_path)
    path = tmp_path / "gmm.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"gmm.safetensors: not a GMM"):
        DiagGmm.load(tmp_path, torch.device("cpu"))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"variance_floor": 0.0}, {"min_occupancy": -1.0}, {"min_weight": 1.0}):
        with pytest.raises(ValueError):
            UpdateConfig(**wrong)
    with pytest.raises(ValueError):
        FrontendConfig(cepstra=0)
