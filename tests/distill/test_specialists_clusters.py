"""The covariance against numpy, on-line k-means on what is known, sets within their bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_stand_ins import store_of
from specialists_world import CPU, GROUPS, PDFS, SETS, confusable, generalist, training_data

from asr_distill.distill.specialists.clusters import ClusterResult, cluster_moments, cluster_store
from asr_distill.distill.specialists.config import Columns, SetConfig, SpecialistConfig
from asr_distill.distill.specialists.covariance import PosteriorMoments, posterior_moments
from asr_distill.distill.specialists.kmeans import online_kmeans, squared_distances
from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures


class SoftmaxOfFrames:
    """A model whose posteriors are the softmax of the frames themselves."""

    def __init__(self, num_pdfs: int):
        self.num_pdfs, self.device = num_pdfs, CPU

    def log_posteriors(self, utterance: UtteranceFeatures, temperature: float = 1.0) -> torch.Tensor:
        return torch.log_softmax(utterance.raw / temperature, 1)


def toy_moments(seed: int = 0, *, frequent: float = 1.0, sure: float = 2.0) -> PosteriorMoments:
    """Posteriors that spread over the senones of one group a frame; group 0 is `frequent` times as frequent.

    The greater `sure`, the more often one senone of the group has most of the mass.
    """
    random = np.random.default_rng(seed)
    shares = np.array([frequent, *[1.0] * (GROUPS - 1)])
    group = random.choice(GROUPS, 4000, p=shares / shares.sum())
    scores = sure * random.normal(size=(4000, PDFS)) - 20 * (np.arange(PDFS) % GROUPS != group[:, None])
    posteriors = torch.from_numpy(scores).softmax(1)
    return PosteriorMoments(posteriors.mean(0), torch.cov(posteriors.T, correction=0), 4000)


def test_moments_are_numpys() -> None:
    random = np.random.default_rng(0)
    store = store_of([3 * random.normal(size=(length, 7)) for length in (30, 5000, 41)])
    scores = store.frames[:].astype(np.float64)
    posteriors = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    moments = posterior_moments(SoftmaxOfFrames(7), store)
    assert moments.frames == 5071 and moments.covariance.dtype == torch.float64
    np.testing.assert_allclose(moments.mean.numpy(), posteriors.mean(0), atol=1e-7)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(posteriors.T, bias=True), atol=1e-6)


def test_a_share_of_the_store() -> None:
    store = store_of([np.full((10, 3), index / 10) for index in range(40)])
    assert posterior_moments(SoftmaxOfFrames(3), store, 100).frames == 100
    assert posterior_moments(SoftmaxOfFrames(3), store, 10**6).frames == 400


def test_kmeans_finds_separate_blobs() -> None:
    random = np.random.default_rng(3)
    truth = np.repeat(np.arange(6), 30)
    points = 10 * random.normal(size=(6, 5))[truth] + random.normal(size=(180, 5))
    centres = online_kmeans(points, 6, passes=10, seed=0)
    nearest = squared_distances(points, centres).argmin(1)
    assert len({(int(a), int(b)) for a, b in zip(truth, nearest, strict=True)}) == 6  # one to one
    means = np.stack([points[nearest == k].mean(0) for k in range(6)])
    assert np.abs(centres - means).max() < 0.5  # the mean with decaying weights, not the batch mean


def test_kmeans_is_as_good_as_batch_k_means() -> None:
    """On points without clear clusters: the sum of squares within a few percent of Lloyd's best of several starts."""
    points = np.random.default_rng(4).normal(size=(200, 8))

    def cost(centres: np.ndarray) -> float:
        return float(squared_distances(points, centres).min(1).sum())

    best = np.inf
    for seed in range(5):
        centres = points[np.random.default_rng(seed).choice(200, 10, replace=False)]
        for _ in range(50):
            nearest = squared_distances(points, centres).argmin(1)
            centres = np.stack([points[nearest == k].mean(0) if (nearest == k).any() else centres[k]
                                for k in range(10)])
        best = min(best, cost(centres))
    assert cost(online_kmeans(points, 10, passes=20, seed=0)) < 1.06 * best


@pytest.mark.parametrize("clusters", [1, 5, 12])
def test_no_cluster_is_empty(clusters: int) -> None:
    """Also where points coincide: 12 points on 6 places."""
    points = np.repeat(np.random.default_rng(1).normal(size=(6, 3)), 2, 0)
    centres = online_kmeans(points, min(clusters, 6), passes=5, seed=2)
    assert len(set(squared_distances(points, centres).argmin(1))) == min(clusters, 6)
    assert np.array_equal(centres, online_kmeans(points, min(clusters, 6), passes=5, seed=2))


@pytest.mark.parametrize("columns, frequent, sure", [
    ("confusions", 1.0, 2.0), ("confusions", 30.0, 2.0), ("confusions", 1.0, 4.0), ("covariance", 1.0, 0.5)])
def test_confusable_groups_are_found(columns: Columns, frequent: float, sure: float) -> None:
    config = SetConfig(specialists=GROUPS, columns=columns)
    result = cluster_moments(toy_moments(frequent=frequent, sure=sure), config)
    assert sorted(result.sets) == sorted(SETS)
    assert result.figures["mass"] == sorted(result.figures["mass"], reverse=True)
    assert result.figures["left_out"] == 0 and (result.coverage == 1).all()


def test_confusions_of_a_trained_network(tmp_path: Path) -> None:
    store, alignment = confusable(20, 0)
    data, cmvn = training_data(store, alignment)
    model = generalist(data, cmvn, tmp_path / "generalist")
    config = SetConfig(specialists=GROUPS)
    result = cluster_store(model, store, config, tmp_path / "sets")
    assert sorted(result.sets) == sorted(SETS)
    again = cluster_store(model, store, replace(config, specialists=2), tmp_path / "sets")
    assert again == result == ClusterResult.load(tmp_path / "sets" / "clusters.json")  # complete: only read


@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_sizes_and_coverage(per_class: int) -> None:
    config = SetConfig(specialists=GROUPS, per_class=per_class)
    result = cluster_moments(toy_moments(), config)
    assert (result.coverage == per_class).all()
    bounded = cluster_moments(toy_moments(), replace(config, max_size=3))
    assert all(len(members) <= 3 for members in bounded.sets)
    assert bounded.coverage.sum() == 3 * GROUPS and bounded.figures["left_out"] == (bounded.coverage == 0).sum() > 0
    if per_class == 1:
        assert all(any(set(members) <= set(group) for group in SETS) for members in bounded.sets)
    least = cluster_moments(toy_moments(), replace(config, min_size=10))
    assert all(len(members) >= 10 for members in least.sets)


def test_rare_senones_are_left_out() -> None:
    moments = toy_moments()
    moments.mean[5] = 1e-6
    result = cluster_moments(moments, SetConfig(specialists=GROUPS))
    assert result.coverage[5] == 0 and result.figures["left_out"] == 1


def test_too_few_senones() -> None:
    with pytest.raises(UserError, match="only 16 senones"):
        cluster_moments(toy_moments(), SetConfig(specialists=17))


def test_damaged_sets(tmp_path: Path) -> None:
    path = tmp_path / "clusters.json"
    for text in ('{"sets": [[0, 1]], "figures": {}}', '{"sets": [[1, 0]], "num_pdfs": 4, "figures": {}}',
                 '{"sets": [[0, 4]], "num_pdfs": 4, "figures": {}}', '{"sets": 3, "num_pdfs": 4, "figures": {}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="cluster again"):
            ClusterResult.load(path)


@pytest.mark.parametrize("wrong", [
    {"specialists": 0}, {"per_class": 0}, {"per_class": 30}, {"min_size": 5, "max_size": 4}, {"rare": 1.0},
    {"frames": -1}])
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SetConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"special_share": 1.0}, {"active_top": 0}])
def test_other_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpecialistConfig(**wrong)
