"""On-line k-means (MacQueen 1967): one point at a time moves its nearest centre."""

from __future__ import annotations

import numpy as np


def online_kmeans(points: np.ndarray, clusters: int, *, passes: int, seed: int) -> np.ndarray:
    """points float64 (points, dimensions) -> centres (clusters, dimensions), each nearest to one point at least.

    A centre moves towards a point by 1 / (points that it has taken, this one too). A pass counts on from what the
    centre took in the pass before, so that what older passes put into it fades by halves. Centres start as points
    drawn by their squared distance to those drawn before, the best of a few draws each time (greedy k-means++, Arthur
    and Vassilvitskii 2007); one that is nearest to no point after a pass goes to the point that is farthest from its
    centre. Needs `clusters` <= points.
    """
    random = np.random.default_rng(seed)
    centres = _first_centres(points, clusters, random)
    norms = np.square(centres).sum(1)
    taken = np.zeros(clusters, np.int64)
    for _ in range(passes):
        before, taken = np.maximum(taken, 1), np.zeros(clusters, np.int64)
        for index in random.permutation(len(points)):
            point = points[index]
            near = int(np.argmin(norms - 2 * (centres @ point)))
            taken[near] += 1
            centres[near] += (point - centres[near]) / (before[near] + taken[near])
            norms[near] = centres[near] @ centres[near]
        _fill_empty(points, centres)
        norms = np.square(centres).sum(1)
    return centres


def squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """float64 (points, centres)."""
    squares = np.square(points).sum(1)[:, None] - 2 * points @ centres.T + np.square(centres).sum(1)
    return np.maximum(squares, 0)


def _first_centres(points: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    chosen = [int(random.integers(len(points)))]
    nearest = squared_distances(points, points[chosen])[:, 0]  # of each point to the chosen ones
    draws = 2 + int(np.log(clusters))
    while len(chosen) < clusters:
        weight = nearest.copy()
        weight[chosen] = 0
        if not weight.any():  # only copies of chosen points are left
            weight[:] = 1
            weight[chosen] = 0
        drawn = random.choice(len(points), draws, p=weight / weight.sum())
        after = np.minimum(nearest[:, None], squared_distances(points, points[drawn]))  # (points, draws)
        best = int(after.sum(0).argmin())
        chosen.append(int(drawn[best]))
        nearest = after[:, best]
    return points[chosen].copy()


def _fill_empty(points: np.ndarray, centres: np.ndarray) -> None:
    """Give each centre that is nearest to no point the farthest point of a cluster of several, in place."""
    for _ in range(len(centres)):
        distances = squared_distances(points, centres)
        nearest = distances.argmin(1)
        sizes = np.bincount(nearest, minlength=len(centres))
        empty = np.flatnonzero(sizes == 0)
        if not len(empty):
            return
        far = np.where(sizes[nearest] > 1, distances[np.arange(len(points)), nearest], -1.0)
        centres[empty[0]] = points[far.argmax()]
