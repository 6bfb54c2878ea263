"""Equation 5 against a slow minimiser, its limits, and hard cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from asr_distill.distill.specialists.combine import Groups, combine

CPU = torch.device("cpu")
Sets = list[list[int]]


def problem(random: np.random.Generator, pdfs: int, sets: Sets, frames: int, sharp: float) -> tuple[
        np.ndarray, list[np.ndarray]]:
    """Random posteriors of a generalist (frames, pdfs) and of specialists (frames, senones + 1)."""
    def posteriors(classes: int) -> np.ndarray:
        scores = np.exp(sharp * random.normal(size=(frames, classes)))
        return scores / scores.sum(1, keepdims=True)

    return posteriors(pdfs), [posteriors(len(members) + 1) for members in sets]


def combined(general: np.ndarray, special: list[np.ndarray], sets: Sets, active: np.ndarray) -> np.ndarray:
    mass = general.copy()
    for column, (members, posteriors) in enumerate(zip(sets, special, strict=True)):
        mass[:, members] += posteriors[:, :-1] * active[:, [column]]
    dustbins = np.stack([posteriors[:, -1] for posteriors in special], 1)
    groups = Groups.of(sets, general.shape[1], CPU)
    log_mass = torch.from_numpy(mass).log().float()
    log_q = combine(log_mass, torch.from_numpy(dustbins), torch.from_numpy(active), groups)
    assert log_q.dtype == torch.float32
    q = log_q.double().exp().numpy()
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-6)
    return q / q.sum(1, keepdims=True)


def objective(q: np.ndarray, general: np.ndarray, special: list[np.ndarray], sets: Sets, active: np.ndarray) -> float:
    """KL(p_g, q) + sum of KL(p_m, q) of one frame, from the definition."""
    total = float((general * np.log(general / q)).sum())
    for members, posteriors, on in zip(sets, special, active, strict=True):
        if on:
            outside = np.delete(q, members).sum()
            theirs = np.append(q[members], outside)
            total += float((posteriors * np.log(posteriors / theirs)).sum())
    return total


def slow(general: np.ndarray, special: list[np.ndarray], sets: Sets, active: np.ndarray) -> np.ndarray:
    """The paper's way: down the gradient of the objective in the logits of q, in float64."""
    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        q = np.exp(z - z.max())
        q /= q.sum()
        slope = general.copy()  # of the log-likelihood by log q
        for members, posteriors, on in zip(sets, special, active, strict=True):
            if on:
                out = np.setdiff1d(np.arange(len(q)), members)
                slope[members] += posteriors[:-1]
                slope[out] += posteriors[-1] * q[out] / q[out].sum()
        return objective(q, general, special, sets, active), slope.sum() * q - slope

    best = minimize(value, np.log(general), jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 10_000})
    q = np.exp(best.x - best.x.max())
    return q / q.sum()


@pytest.mark.parametrize("sets, sharp", [
    ([[0, 1, 2]], 1.0), ([[0, 1, 2], [3, 4]], 2.0), ([[0, 1, 2, 3], [2, 3, 4, 5], [3, 5, 6]], 1.0),
    ([[0, 1], [1, 2], [2, 3], [0, 3]], 3.0), ([[0, 1, 2, 3, 4, 5, 6], [7]], 1.0)])
def test_minimises_the_sum_of_divergences(sets: Sets, sharp: float) -> None:
    random = np.random.default_rng(len(sets))
    general, special = problem(random, 8, sets, 12, sharp)
    active = random.random((12, len(sets))) < 0.7
    found = combined(general, special, sets, active)
    for frame in range(12):
        of_frame = (general[frame], [posteriors[frame] for posteriors in special], sets, active[frame])
        reference = slow(*of_frame)
        assert np.abs(found[frame] - reference).max() < 1e-6
        assert objective(found[frame], *of_frame) < objective(reference, *of_frame) + 1e-9


def test_nobody_active_is_the_generalist() -> None:
    general, special = problem(np.random.default_rng(0), 6, [[0, 1], [2, 3]], 5, 1.0)
    np.testing.assert_allclose(combined(general, special, [[0, 1], [2, 3]], np.zeros((5, 2), bool)), general, rtol=1e-6)


@pytest.mark.parametrize("sharp", [1.0, 12.0])
def test_specialists_that_agree_change_nothing(sharp: float) -> None:
    """Also far down: at sharp = 12 the least of the generalist's posteriors are near 1e-20."""
    sets = [[0, 1, 2], [2, 3], [5, 6, 7, 8]]
    general, _ = problem(np.random.default_rng(1), 10, sets, 40, sharp)
    special = [np.concatenate([general[:, members], np.delete(general, members, 1).sum(1, keepdims=True)], 1)
               for members in sets]
    found = combined(general, special, sets, np.ones((40, 3), bool))
    error = np.abs(np.log(found) - np.log(general))
    assert error[general > 1e-8].max() < 1e-4
    assert error.max() < 0.5  # nats


def test_one_specialist_has_a_closed_form() -> None:
    """Inside the set the mean of both; outside, the generalist's shape with the mean of both masses."""
    sets = [[1, 4]]
    general, (special,) = problem(np.random.default_rng(2), 6, sets, 30, 2.0)
    expected = general.copy()
    expected[:, [1, 4]] = (general[:, [1, 4]] + special[:, :2]) / 2
    outside = [0, 2, 3, 5]
    mass = general[:, outside].sum(1, keepdims=True)
    expected[:, outside] *= (mass + special[:, 2:]) / (2 * mass)
    np.testing.assert_allclose(combined(general, [special], sets, np.ones((30, 1), bool)), expected, atol=1e-6)


def test_contradictions_converge(caplog: pytest.LogCaptureFixture) -> None:
    """A generalist that is sure of the sets and specialists that are sure of their dustbins: EM would crawl here."""
    sets = [[0, 1, 2], [1, 2, 3]]
    frames = 25
    tiny = np.logspace(-3, -27, frames)
    general = np.stack([np.full(frames, 0.25)] * 4 + [tiny, 3 * tiny], 1)
    general /= general.sum(1, keepdims=True)
    special = [np.tile([0.02, 0.03, 0.05, 0.9], (frames, 1)), np.tile([0.1, 0.1, 0.1, 0.7], (frames, 1))]
    found = combined(general, special, sets, np.ones((frames, 2), bool))
    assert not caplog.records
    np.testing.assert_allclose(found[:, 5] / found[:, 4], 3, rtol=1e-4)  # one group: the generalist's ratio
    np.testing.assert_allclose(found[-1], found[12], atol=1e-6)  # the limit is reached
    for frame in (0, 5, 10):
        of_frame = (general[frame], [posteriors[frame] for posteriors in special], sets, np.ones(2, bool))
        at_optimum = objective(found[frame], *of_frame)
        for _ in range(50):  # no nearby distribution is better
            other = found[frame] * np.exp(1e-2 * np.random.default_rng(frame).normal(size=6))
            assert objective(other / other.sum(), *of_frame) > at_optimum - 1e-12


def test_few_active_of_many_sets() -> None:
    """Groups that the active ones do not tell apart are merged: the same as a problem of the active sets alone."""
    random = np.random.default_rng(5)
    sets = [np.sort(random.choice(30, 9, replace=False)).tolist() for _ in range(12)]
    general, special = problem(random, 30, sets, 20, 2.0)
    active = np.zeros((20, 12), bool)
    for row in active:
        row[random.choice(12, random.integers(0, 4), replace=False)] = True
    found = combined(general, special, sets, active)
    for frame, on in enumerate(active):
        few = [members for members, chosen in zip(sets, on, strict=True) if chosen]
        theirs = [posteriors[[frame]] for posteriors, chosen in zip(special, on, strict=True) if chosen]
        reference = slow(general[frame], [one[0] for one in theirs], few, np.ones(len(few), bool))
        assert np.abs(found[frame] - reference).max() < 1e-6
        if few:
            alone = combined(general[[frame]], theirs, few, np.ones((1, len(few)), bool))
            np.testing.assert_allclose(found[[frame]], alone, atol=1e-7)
