"""LDA, MLLT and fMLLR: statistics against float64 loops, estimates against other solvers and known distortions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from asr_distill.errors import UserError
from asr_distill.hmm.em import UpdateConfig, accumulate, update
from asr_distill.hmm.fmllr import FmllrStats, accumulate_fmllr, apply_transform, compose_transforms, estimate_fmllr
from asr_distill.hmm.gmm import Mixtures
from asr_distill.hmm.lda import LdaStats, accumulate_lda, estimate_lda
from asr_distill.hmm.mllt import MlltStats, accumulate_mllt, estimate_mllt

COUNTS = (1, 3, 2, 5, 3)


def make_mixtures(size: int = 4, counts: tuple[int, ...] = COUNTS, seed: int = 0) -> Mixtures:
    random = np.random.default_rng(seed)
    total = sum(counts)
    weights = np.concatenate([random.dirichlet(np.full(n, 3.0)) for n in counts])
    return Mixtures(torch.from_numpy(weights).float(), torch.from_numpy(random.normal(0, 2, (total, size))).float(),
                    torch.from_numpy(random.uniform(0.3, 2, (total, size))).float(), counts)


def draw(mixtures: Mixtures, frames: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames that the mixtures make, and their pdfs; pdf 0 comes last and pdf 1 most often."""
    random = np.random.default_rng(seed)
    share = np.linspace(2, 1, mixtures.num_pdfs)
    share[1] = 5
    pdfs = random.choice(mixtures.num_pdfs, frames, p=share / share.sum())
    weights = mixtures.weights.double().numpy()
    component = np.array([random.choice(np.arange(b, e), p=weights[b:e] / weights[b:e].sum()) for b, e in
                          ((mixtures.offsets[pdf], mixtures.offsets[pdf + 1]) for pdf in pdfs.tolist())])
    noise = random.standard_normal((frames, mixtures.means.shape[1]))
    x = mixtures.means.numpy()[component] + noise * mixtures.variances.sqrt().numpy()[component]
    return torch.from_numpy(x).float(), torch.from_numpy(pdfs)


def all_posteriors(mixtures: Mixtures, x: torch.Tensor, pdfs: torch.Tensor) -> np.ndarray:
    """float64 (frames, G), zero outside of the aligned pdf."""
    result = np.zeros((len(x), len(mixtures.weights)))
    w, mu, var = (t.double().numpy() for t in (mixtures.weights, mixtures.means, mixtures.variances))
    for t, (frame, pdf) in enumerate(zip(x.double().numpy(), pdfs.tolist(), strict=True)):
        mine = slice(mixtures.offsets[pdf], mixtures.offsets[pdf + 1])
        density = w[mine] * np.exp(-0.5 * ((frame - mu[mine]) ** 2 / var[mine]).sum(1)) / np.sqrt(var[mine].prod(1))
        result[t, mine] = density / density.sum()
    return result


def fmllr_by_loops(mixtures: Mixtures, x: torch.Tensor, posteriors: np.ndarray) -> FmllrStats:
    mu, var = mixtures.means.double().numpy(), mixtures.variances.double().numpy()
    size = x.shape[1]
    k, g = np.zeros((size, size + 1)), np.zeros((size, size + 1, size + 1))
    for frame, row in zip(x.double().numpy(), posteriors, strict=True):
        z = np.append(frame, 1.0)
        for j in np.flatnonzero(row):
            k += row[j] * np.outer(mu[j] / var[j], z)
            g += row[j] / var[j][:, None, None] * np.outer(z, z)
    return FmllrStats(posteriors.sum(), k, g)


def mllt_by_loops(mixtures: Mixtures, x: torch.Tensor, posteriors: np.ndarray) -> MlltStats:
    mu, var = mixtures.means.double().numpy(), mixtures.variances.double().numpy()
    g = np.zeros((x.shape[1],) * 3)
    for frame, row in zip(x.double().numpy(), posteriors, strict=True):
        for j in np.flatnonzero(row):
            g += row[j] / var[j][:, None, None] * np.outer(frame - mu[j], frame - mu[j])
    return MlltStats(posteriors.sum(), g)


def log_likelihood(mixtures: Mixtures, x: torch.Tensor, pdfs: torch.Tensor) -> float:
    return accumulate(mixtures, x, pdfs).log_likelihood / len(x)


def frame_weights(count: int) -> torch.Tensor:
    weights = torch.rand(count, generator=torch.Generator().manual_seed(3))
    return torch.where(weights < 0.3, 0.0, weights)


# EM

def test_two_feature_statistics() -> None:
    m = make_mixtures()
    x, pdfs = draw(m, 500)
    other = torch.cat([x @ torch.full((4, 3), 0.5), x[:, :2].square()], 1)  # (frames, 5)
    stats, plain = accumulate(m, x, pdfs, features_out=other), accumulate(m, x, pdfs)
    posteriors, y = all_posteriors(m, x, pdfs), other.double().numpy()
    np.testing.assert_allclose(stats.occupancies, posteriors.sum(0), rtol=1e-5)
    np.testing.assert_allclose(stats.sums, posteriors.T @ y, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(stats.squares, posteriors.T @ y**2, rtol=1e-5, atol=1e-3)
    assert stats.log_likelihood == plain.log_likelihood
    same = accumulate(m, x, pdfs, features_out=x)
    assert torch.equal(same.sums, plain.sums) and torch.equal(same.squares, plain.squares)


def test_statistics_do_not_depend_on_torchs_threads() -> None:
    m = make_mixtures(counts=tuple(range(1, 9)))
    x, pdfs = draw(m, 20_000)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append((accumulate(m, x, pdfs).sums, accumulate_fmllr(m, x, pdfs).g, accumulate_mllt(m, x, pdfs).g))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(three))


# LDA

def lda_data() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(5)
    classes = random.integers(0, 7, 3000)
    mixing = random.normal(size=(6, 6))
    x = (random.normal(size=(8, 6)) * [3, 2, 1, 0.5, 0.1, 0])[classes] + random.normal(size=(3000, 6)) + 4
    return torch.from_numpy(x @ mixing).float(), torch.from_numpy(classes)


def test_lda_is_the_generalised_eigenproblem() -> None:
    x, classes = lda_data()
    ignored = torch.where(torch.arange(len(x)) % 5 == 0, -1, classes)
    found = estimate_lda(accumulate_lda(x, ignored, 9), 3)  # two classes are never seen
    y, labels = x.double().numpy()[ignored >= 0], ignored.numpy()[ignored >= 0]
    means = np.stack([y[labels == c].mean(0) for c in range(7)])
    within = np.cov((y - means[labels]).T, bias=True)
    between = np.cov(means[labels].T, bias=True)
    values, vectors = scipy.linalg.eigh(between, within)
    expected = vectors[:, ::-1][:, :3].T  # v^T within v = 1
    np.testing.assert_allclose(np.abs(found @ within @ expected.T), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found @ within @ found.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.diag(found @ between @ found.T), values[::-1][:3], rtol=1e-6)
    scaled = estimate_lda(accumulate_lda(x, ignored, 9), 3, within_class_factor=0.25)
    spread = values[::-1][:3]
    np.testing.assert_allclose(scaled, found * np.sqrt((0.25 + spread) / (1 + spread))[:, None], rtol=1e-9)


def test_lda_statistics_add_up() -> None:
    x, classes = lda_data()
    whole = accumulate_lda(x, classes, 7)
    parts = accumulate_lda(x[:1234], classes[:1234], 7) + accumulate_lda(x[1234:], classes[1234:], 7)
    y = x.double().numpy()
    for name in ("counts", "sums", "squares"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
    np.testing.assert_allclose(whole.squares, sum(np.outer(frame, frame) for frame in y), rtol=1e-12)
    np.testing.assert_allclose(whole.sums[2], y[classes.numpy() == 2].sum(0), rtol=1e-12)


def test_lda_refuses_what_it_cannot_do() -> None:
    x, classes = lda_data()
    with pytest.raises(ValueError, match="features have 6"):
        estimate_lda(accumulate_lda(x, classes, 7), 7)
    with pytest.raises(UserError, match="do not span"):
        estimate_lda(accumulate_lda(x[:4], classes[:4], 7), 2)
    with pytest.raises(UserError, match="no frame"):
        estimate_lda(LdaStats(np.zeros(7), np.zeros((7, 6)), np.zeros((6, 6))), 2)


# MLLT

def test_mllt_statistics() -> None:
    m = make_mixtures()
    x, pdfs = draw(m, 400)
    for weights in (None, frame_weights(400)):
        found = accumulate_mllt(m, x, pdfs, weights)
        share = np.ones(400) if weights is None else weights.double().numpy()
        expected = mllt_by_loops(m, x, all_posteriors(m, x, pdfs) * share[:, None])
        assert found.count == pytest.approx(expected.count, rel=1e-6)
        np.testing.assert_allclose(found.g, expected.g, rtol=2e-5, atol=1e-3)
    parts = accumulate_mllt(m, x[:100], pdfs[:100]) + accumulate_mllt(m, x[100:], pdfs[100:])
    np.testing.assert_allclose(parts.g, accumulate_mllt(m, x, pdfs).g, rtol=2e-5, atol=1e-3)


def mllt_objective(stats: MlltStats, matrix: np.ndarray) -> float:
    return (np.log(abs(np.linalg.det(matrix)))
            - 0.5 * sum(row @ g @ row for row, g in zip(matrix, stats.g, strict=True)) / stats.count)


def test_mllt_estimate_is_the_maximum() -> None:
    m = make_mixtures(3)
    x, pdfs = draw(m, 600)
    x = x + 0.4 * x.roll(1, 1)  # correlated
    trained = update(m, accumulate(m, x, pdfs), UpdateConfig())
    stats = accumulate_mllt(trained, x, pdfs)
    objectives = [mllt_objective(stats, estimate_mllt(stats, count)[0]) for count in range(12)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(objectives))
    matrix, gain = estimate_mllt(stats)
    assert gain == pytest.approx(mllt_objective(stats, matrix) - mllt_objective(stats, np.eye(3)))
    best = scipy.optimize.minimize(lambda flat: -mllt_objective(stats, flat.reshape(3, 3)), np.eye(3).ravel(),
                                   method="BFGS", options={"gtol": 1e-7})
    assert mllt_objective(stats, matrix) == pytest.approx(-best.fun, abs=1e-6) and gain > 0.03


def test_mllt_finds_the_space_where_covariances_are_diagonal() -> None:
    """Gaussians that are diagonal in a rotated space only: the transform brings them back, the likelihood gains."""
    m = make_mixtures(5, (1,) * 20, seed=4)
    y, pdfs = draw(m, 20_000)
    mixing = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    x = y @ mixing.T
    flat = Mixtures(torch.ones(20), m.means @ mixing.T, torch.ones(20, 5), m.counts)
    start = update(flat, accumulate(flat, x, pdfs), UpdateConfig())
    matrix, gain = estimate_mllt(accumulate_mllt(start, x, pdfs))
    z = apply_transform(x, matrix)
    moved = Mixtures(start.weights, apply_transform(start.means, matrix), start.variances, start.counts)
    better = log_likelihood(moved, z, pdfs) + np.log(abs(np.linalg.det(matrix)))
    assert better - log_likelihood(start, x, pdfs) == pytest.approx(gain, abs=1e-3)
    product = np.abs(matrix @ mixing.numpy())  # a scaled permutation
    assert (np.sort(product, 1)[:, -2] < 0.1 * product.max(1)).all() and gain > 0.03


# fMLLR

def test_fmllr_statistics() -> None:
    m = make_mixtures()
    x, pdfs = draw(m, 400)
    for weights in (None, frame_weights(400)):
        found = accumulate_fmllr(m, x, pdfs, frame_weights=weights)
        share = np.ones(400) if weights is None else weights.double().numpy()
        expected = fmllr_by_loops(m, x, all_posteriors(m, x, pdfs) * share[:, None])
        assert found.beta == pytest.approx(expected.beta, rel=1e-6)
        np.testing.assert_allclose(found.k, expected.k, rtol=2e-5, atol=2e-3)
        np.testing.assert_allclose(found.g, expected.g, rtol=2e-5, atol=2e-3)
    parts = accumulate_fmllr(m, x[:100], pdfs[:100]) + accumulate_fmllr(m, x[100:], pdfs[100:])
    np.testing.assert_allclose(parts.g, accumulate_fmllr(m, x, pdfs).g, rtol=2e-5, atol=2e-3)


def test_fmllr_with_posteriors_of_another_model() -> None:
    m, other = make_mixtures(), make_mixtures(6, seed=9)
    x, pdfs = draw(m, 300)
    seen = torch.cat([x + 1, x[:, :2]], 1)  # (frames, 6)
    found = accumulate_fmllr(m, x, pdfs, posterior_mixtures=other, posterior_features=seen)
    expected = fmllr_by_loops(m, x, all_posteriors(other, seen, pdfs))
    np.testing.assert_allclose(found.k, expected.k, rtol=2e-5, atol=2e-3)
    np.testing.assert_allclose(found.g, expected.g, rtol=2e-5, atol=2e-3)
    alone = accumulate_fmllr(m, x, pdfs, posterior_features=x + 1)  # one model, two streams
    np.testing.assert_allclose(alone.k, fmllr_by_loops(m, x, all_posteriors(m, x + 1, pdfs)).k, rtol=2e-5, atol=2e-3)
    with pytest.raises(ValueError, match="as many components"):
        accumulate_fmllr(m, x, pdfs, posterior_mixtures=make_mixtures(counts=(3, 3, 2, 3, 3)))


def fmllr_objective(stats: FmllrStats, matrix: np.ndarray) -> float:
    size = len(matrix)
    return np.log(abs(np.linalg.det(matrix[:, :size]))) + sum(
        k @ row - 0.5 * row @ g @ row for row, k, g in zip(matrix, stats.k, stats.g, strict=True)) / stats.beta


def test_fmllr_estimate_is_the_maximum() -> None:
    m = make_mixtures(3)
    x, pdfs = draw(m, 700)
    stats = accumulate_fmllr(m, x @ torch.tensor([[1.2, 0.2, 0], [0, 0.8, 0.1], [-0.3, 0, 1]]) + 0.5, pdfs)
    objectives = [fmllr_objective(stats, estimate_fmllr(stats, iterations=count)[0]) for count in range(10)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(objectives))
    matrix, gain = estimate_fmllr(stats, iterations=100)
    assert gain == pytest.approx(fmllr_objective(stats, matrix) - fmllr_objective(stats, np.eye(3, 4)))
    best = scipy.optimize.minimize(lambda flat: -fmllr_objective(stats, flat.reshape(3, 4)), np.eye(3, 4).ravel(),
                                   method="BFGS", options={"gtol": 1e-7})
    assert fmllr_objective(stats, matrix) == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(matrix, best.x.reshape(3, 4), atol=1e-3)


def test_fmllr_undoes_a_known_distortion() -> None:
    m = make_mixtures(5, (2,) * 12, seed=2)
    y, pdfs = draw(m, 20_000)
    random = np.random.default_rng(6)
    distort = np.eye(5, 6) + 0.15 * random.normal(size=(5, 6))
    x = apply_transform(y, distort)
    undo, gain = np.eye(5, 6), 0.0
    for _ in range(4):  # the posteriors get better with the transform
        matrix, step = estimate_fmllr(accumulate_fmllr(m, apply_transform(x, undo), pdfs))
        undo, gain = compose_transforms(matrix, undo), gain + step
    np.testing.assert_allclose(compose_transforms(undo, distort), np.eye(5, 6), atol=0.05)
    adapted = log_likelihood(m, apply_transform(x, undo), pdfs) + np.linalg.slogdet(undo[:, :5])[1]
    assert adapted - log_likelihood(m, x, pdfs) >= gain - 1e-3 > 0.1


def test_fmllr_of_too_little_is_the_identity() -> None:
    m = make_mixtures()
    x, pdfs = draw(m, 600)
    for frames, aligned in ((x[:400], pdfs[:400]), (torch.full_like(x, 0.7), pdfs)):  # few frames; digital silence
        matrix, gain = estimate_fmllr(accumulate_fmllr(m, frames, aligned))
        assert np.array_equal(matrix, np.eye(4, 5)) and gain == 0.0
    assert estimate_fmllr(accumulate_fmllr(m, x[:400], pdfs[:400]), min_count=300)[1] > 0
    nothing = accumulate_fmllr(m, x, pdfs, frame_weights=torch.zeros(600))
    assert nothing.beta == 0 and not nothing.g.any()


def test_transforms_are_applied_and_composed() -> None:
    random = np.random.default_rng(8)
    first, second = random.normal(size=(3, 5)), random.normal(size=(2, 4))
    x = torch.from_numpy(random.normal(size=(10, 4)))
    expected = np.stack([second[:, :3] @ (first[:, :4] @ frame + first[:, 4]) + second[:, 3] for frame in x.numpy()])
    np.testing.assert_allclose(apply_transform(apply_transform(x, first), second), expected, rtol=1e-12)
    np.testing.assert_allclose(apply_transform(x, compose_transforms(second, first)), expected, rtol=1e-12)
    np.testing.assert_allclose(apply_transform(x, first[:, :4]), x.numpy() @ first[:, :4].T, rtol=1e-12)
    with pytest.raises(ValueError, match="does not fit"):
        apply_transform(x[:, :2], second)


def test_float32_sums_are_close_at_real_sizes() -> None:
    """40 dimensions, 200 pdfs, 60,000 frames off zero: products in float32 against the same in float64."""
    random = np.random.default_rng(0)
    m = make_mixtures(40, tuple(random.integers(1, 12, 200).tolist()))
    pdfs = torch.from_numpy(random.integers(0, 200, 60_000))
    first = torch.tensor(m.offsets)[pdfs]
    x = m.means[first] + m.variances[first].sqrt() * torch.randn(60_000, 40) + 3
    exact = Mixtures(m.weights.double(), m.means.double(), m.variances.double(), m.counts)
    weights, order = np.empty((60_000, 40)), torch.argsort(pdfs, stable=True)
    means_part, at = np.empty((60_000, 40)), 0
    for pdf, count in enumerate(torch.bincount(pdfs, minlength=200).tolist()):
        rows, part = order[at : at + count], slice(m.offsets[pdf], m.offsets[pdf + 1])
        w, mu, var = exact.weights[part], exact.means[part], exact.variances[part]
        square = ((x[rows].double().unsqueeze(1) - mu) ** 2 / var).sum(2) + var.log().sum(1)
        posterior = torch.softmax(w.log() - 0.5 * square, 1)
        weights[rows], means_part[rows] = posterior @ (1 / var), posterior @ (mu / var)
        at += count
    z = np.concatenate([x.double().numpy(), np.ones((60_000, 1))], 1)
    g = np.stack([(z * weights[:, d, None]).T @ z for d in range(40)])
    found = accumulate_fmllr(m, x, pdfs)
    expected = FmllrStats(60_000.0, means_part.T @ z, g)
    np.testing.assert_allclose(found.g, g, rtol=1e-4, atol=1e-5 * g.max())
    a, b = estimate_fmllr(found)[0], estimate_fmllr(expected)[0]
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-4)  # offsets are about 3
