"""Sets of senones that the generalist confuses: k-means over the columns of its posteriors' covariance.

Paper, section 5.2. Senones that are likely on the same frames have like columns; no label is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.distill.specialists.config import Columns, SetConfig
from asr_distill.distill.specialists.covariance import PosteriorMoments, posterior_moments
from asr_distill.distill.specialists.kmeans import online_kmeans, squared_distances
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json, write_json

CLUSTERS = "clusters.json"


@dataclass(frozen=True)
class SenoneSet:
    """What one specialist tells apart."""

    number: int  # from 1
    senones: tuple[int, ...]  # pdf-ids, rising

    @property
    def name(self) -> str:
        """The folder of its specialist."""
        return f"specialist{self.number}"


@dataclass(frozen=True)
class ClusterResult:
    """The senones of each specialist, rising; the largest share of posterior mass first."""

    sets: tuple[tuple[int, ...], ...]
    num_pdfs: int
    figures: dict[str, Any]  # frames, left_out (senones in no set), mass (mean posterior of each set), mean_distance

    @property
    def coverage(self) -> np.ndarray:
        """How many specialists each senone is covered by, int64 (pdfs,)."""
        return np.bincount(np.array([pdf for members in self.sets for pdf in members], np.int64),
                           minlength=self.num_pdfs)

    @property
    def numbered(self) -> list[SenoneSet]:
        return [SenoneSet(number, senones) for number, senones in enumerate(self.sets, 1)]

    def save(self, path: Path) -> None:
        write_json(path, {"num_pdfs": self.num_pdfs, "sets": self.sets, "figures": self.figures})

    @staticmethod
    def load(path: Path) -> ClusterResult:
        """Raises UserError where the file is missing or damaged."""
        facts = read_json(path)
        try:
            sets = tuple(tuple(int(pdf) for pdf in members) for members in facts["sets"])
            result = ClusterResult(sets, int(facts["num_pdfs"]), dict(facts["figures"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged sets of senones ({error!r}); cluster again") from None
        for members in sets:
            if not members or sorted(set(members)) != list(members) or members[0] < 0 or members[-1] >= result.num_pdfs:
                raise UserError(f"{path}: damaged sets of senones (not rising pdf-ids); cluster again")
        return result


def cluster_store(generalist: PosteriorModel, store: FrameStore, config: SetConfig, out: Path, *,
                  label: str = "covariance of posteriors") -> ClusterResult:
    """Sets from the generalist's posteriors of the store's frames (config.frames of them), kept in `out`.

    Sets that are complete in `out` are read, not made again. Raises UserError as `cluster_moments` does.
    """
    path = out / CLUSTERS
    if path.is_file():
        return ClusterResult.load(path)
    result = cluster_moments(posterior_moments(generalist, store, config.frames, label=label), config)
    result.save(path)
    return result


def cluster_moments(moments: PosteriorMoments, config: SetConfig) -> ClusterResult:
    """Raises UserError where there are fewer senones to cluster than specialists or than the least size."""
    mean = moments.mean.cpu().numpy()
    kept = np.flatnonzero(mean >= config.rare / len(mean))  # pdf-ids
    if len(kept) < max(config.specialists, config.min_size):
        raise UserError(f"specialists: only {len(kept)} senones are frequent enough for {config.specialists} "
                        f"specialists of at least {config.min_size}: ask for fewer or smaller ones, or lower `rare`")
    columns = columns_of(moments, config.columns)[kept]  # (kept, pdfs)
    centres = online_kmeans(columns, config.specialists, passes=config.passes, seed=config.seed)
    distances = squared_distances(columns, centres)  # (kept, specialists)
    sets = [np.sort(kept[members]) for members in _members(distances, config)]
    mass = np.array([mean[members].sum() for members in sets])
    order = np.argsort(-mass, kind="stable")
    result = ClusterResult(tuple(tuple(sets[index].tolist()) for index in order), len(mean), {})
    result.figures.update(frames=moments.frames, left_out=int((result.coverage == 0).sum()), mass=mass[order].tolist(),
                          mean_distance=float(distances.min(1).mean()))
    return result


def columns_of(moments: PosteriorMoments, kind: Columns) -> np.ndarray:
    """What is clustered, a row for each senone, float64 (pdfs, pdfs).

    covariance: the columns of the covariance, as in the paper. A column's greatest entry is the senone's own variance,
    which says nothing of whom it is confused with: columns of a good model are nearly orthogonal, each point holds its
    centre to itself, and k-means stays where it began. A column's length is about the senone's frequency: all rare ones
    are near each other. And senones of a group that is often heard are negatively correlated for that alone.
    confusions: columns of E[p_i p_j] (the covariance, its means put back), the diagonal cut down to the column's
    greatest other entry (that of its nearest neighbour), scaled to unit length.
    """
    columns = moments.covariance.cpu().numpy().T.copy()
    if kind == "covariance":
        return columns
    mean = moments.mean.cpu().numpy()
    columns += np.outer(mean, mean)
    np.fill_diagonal(columns, 0)
    np.fill_diagonal(columns, columns.max(1))
    return columns / np.maximum(np.linalg.norm(columns, axis=1, keepdims=True), 1e-300)


def _members(distances: np.ndarray, config: SetConfig) -> list[np.ndarray]:
    """Columns of each set, from squared distances (columns, specialists)."""
    ranks = distances.argsort(1, kind="stable").argsort(1, kind="stable")  # 0: the column's nearest cluster
    sets = []
    for distance, rank in zip(distances.T, ranks.T, strict=True):
        inside = rank < config.per_class
        # candidates by distance, then all others by distance
        order = np.lexsort((distance, ~inside))
        size = max(int(inside.sum()), config.min_size)
        sets.append(order[:min(size, config.max_size) if config.max_size else size])
    return sets
