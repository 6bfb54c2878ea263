"""The few calls of k2 that we make, in plain float64 Python and without search beams, for machines without k2.

Where k2 is installed the same tests run with k2 itself (fixture `k2` of the tests that use this).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

FINAL = -1
Row = tuple[int, int, int, float, int, int]  # source, target, label, score, arc of the graph or -1, frame


class RaggedArc:
    """Arcs of one FSA (2 axes) or of several (3 axes)."""

    def __init__(self, values: torch.Tensor, sizes: Sequence[tuple[int, int]]):
        """`sizes`: states and arcs of every FSA."""
        self._values, self._states = values, [states for states, _ in sizes]
        owners = values[:, 0].long()  # by state of all FSAs
        for index, (states, arcs) in enumerate(sizes):
            owners[sum(count for _, count in sizes[:index]) + arcs:] += states
        self._arc_splits = [0, *torch.bincount(owners, minlength=sum(self._states)).cumsum(0).tolist()]

    def values(self) -> torch.Tensor:
        return self._values

    def row_splits(self, axis: int) -> torch.Tensor:
        return torch.tensor([0, *np.cumsum(self._states)] if axis == 1 else self._arc_splits, dtype=torch.int32)


class Fsa:
    def __init__(self, arcs: torch.Tensor | RaggedArc):
        assert not torch.is_inference_mode_enabled()  # k2 reads _version of tensors, which has none there
        if isinstance(arcs, torch.Tensor):
            assert arcs.dtype == torch.int32 and (arcs[1:, 0] >= arcs[:-1, 0]).all()
            last = int(arcs[:, 1].max())
            assert (arcs[arcs[:, 2] == FINAL, 1] == last).all() and (arcs[arcs[:, 1] == last, 2] == FINAL).all()
            arcs = RaggedArc(arcs.clone(), [(last + 1, len(arcs))])
        self.__dict__.update(arcs=arcs, attributes={})

    def __setattr__(self, name: str, value: torch.Tensor) -> None:
        assert len(value) == len(self.arcs.values())
        if name == "scores":
            assert value.dtype == torch.float32
            self.arcs.values()[:, 3] = value.view(torch.int32)
        else:
            self.attributes[name] = value

    def __getattr__(self, name: str) -> torch.Tensor:
        return self.attributes[name]

    @property
    def scores(self) -> torch.Tensor:
        return self.arcs.values()[:, 3].contiguous().view(torch.float32)

    def parts(self) -> list[tuple[int, list[Row]]]:
        """States and arcs of every FSA; an arc's last two fields are its place among all arcs, and 0."""
        splits, ends = self.arcs.row_splits(1).tolist(), self.arcs.row_splits(2).tolist()
        rows = [(*row[:3], score, place, 0) for place, (row, score) in
                enumerate(zip(self.arcs.values().tolist(), self.scores.tolist(), strict=True))]
        return [(b - a, rows[ends[a]:ends[b]]) for a, b in itertools.pairwise(splits)]


def create_fsa_vec(fsas: Sequence[Fsa]) -> Fsa:
    made = Fsa(RaggedArc(torch.cat([fsa.arcs.values() for fsa in fsas]),
                         [(states, len(rows)) for fsa in fsas for states, rows in fsa.parts()]))
    for name in fsas[0].attributes:
        setattr(made, name, torch.cat([fsa.attributes[name] for fsa in fsas]))
    return made


class DenseFsaVec:
    def __init__(self, log_probs: torch.Tensor, supervision_segments: torch.Tensor):
        assert log_probs.dtype == torch.float32 and supervision_segments.dtype == torch.int32
        self.parts = [log_probs[row, begin:begin + count].double().numpy()
                      for row, begin, count in supervision_segments.tolist()]


def intersect_dense_pruned(a_fsas: Fsa, b_fsas: DenseFsaVec, search_beam: float, output_beam: float,
                           min_active_states: int, max_active_states: int, frame_idx_name: str,
                           allow_partial: bool) -> Fsa:
    assert search_beam > 0 and 0 <= min_active_states < max_active_states
    (graph,) = a_fsas.parts()
    return _made(a_fsas, [_paths(graph, dense, output_beam, allow_partial) for dense in b_fsas.parts], frame_idx_name)


def intersect_dense(a_fsas: Fsa, b_fsas: DenseFsaVec, output_beam: float, max_states: int = 0) -> Fsa:
    lengths = [len(dense) for dense in b_fsas.parts]
    assert lengths == sorted(lengths, reverse=True)
    return _made(a_fsas, [_paths(graph, dense, output_beam, False)
                          for graph, dense in zip(a_fsas.parts(), b_fsas.parts, strict=True)], "")


def shortest_path(fsa: Fsa, use_double_scores: bool) -> Fsa:
    found = []
    for states, rows in fsa.parts():
        best: dict[int, tuple[float, list[Row]]] = {0: (0.0, [])}
        for row in rows:
            total = best[row[0]][0] + row[3]
            if row[1] not in best or total > best[row[1]][0]:
                best[row[1]] = total, [*best[row[0]][1], row]
        path = best[states - 1][1] if states else []
        found.append((len(path) + 1 if path else 0, [(at, at + 1, *row[2:]) for at, row in enumerate(path)]))
    return _made(fsa, found, "")


def _paths(graph: tuple[int, list[Row]], dense: np.ndarray, beam: float, partial: bool) -> tuple[int, list[Row]]:
    """Arcs of all paths within the beam, states numbered frame by frame; nothing where no path comes to the end."""
    states, rows = graph
    leaving: dict[int, list[Row]] = {}
    for row in rows:
        leaving.setdefault(row[0], []).append(row)
    layers: list[list[tuple[int, int, Row]]] = []  # by frame: (state, next state, arc with its whole score)
    alphas: list[dict[int, float]] = [{0: 0.0}]
    for frame in range(len(dense) + 1):
        final = frame == len(dense)
        here = [(state, row) for state in alphas[-1] for row in leaving.get(state, ()) if final == (row[2] == FINAL)]
        cut = final and partial and not here
        if cut:
            here = [(state, (state, states - 1, FINAL, row[3], -1, 0)) for state in alphas[-1]
                    for row in leaving.get(state, ())]
        layer = [(state, row[1], (*row[:3], row[3] + (0.0 if final else dense[frame, row[2]]), row[4], frame))
                 for state, row in here]
        layers.append(layer)
        alpha: dict[int, float] = {}
        for state, target, row in layer:
            alpha[target] = max(alpha.get(target, -np.inf), alphas[-1][state] + row[3])
        alphas.append(alpha)
    if not alphas[-1]:
        return 0, []
    betas, best = {states - 1: 0.0}, alphas[-1][states - 1]
    kept: list[list[tuple[int, int, Row]]] = []
    for frame in range(len(dense), -1, -1):
        kept.insert(0, [(state, target, row) for state, target, row in layers[frame] if target in betas
                        and alphas[frame][state] + row[3] + betas[target] >= best - beam])
        before: dict[int, float] = {}
        for state, target, row in kept[0]:
            before[state] = max(before.get(state, -np.inf), row[3] + betas[target])
        betas = before
    names = {(frame, state): 0 for frame, layer in enumerate(kept) for state, _, _ in sorted(layer)}
    names = {key: place for place, key in enumerate([*names, (len(kept), states - 1)])}
    return len(names), sorted((names[frame, state], names[frame + 1, target], *row[2:])
                              for frame, layer in enumerate(kept) for state, target, row in layer)


def _made(source: Fsa, found: list[tuple[int, list[Row]]], frame_name: str) -> Fsa:
    every = [row for _, some in found for row in some]
    columns: Any = list(zip(*every, strict=True)) or [()] * 6
    scores = torch.tensor(columns[3], dtype=torch.float32)
    values = torch.stack([*(torch.tensor(column, dtype=torch.int32) for column in columns[:3]),
                          scores.view(torch.int32)], 1)
    made = Fsa(RaggedArc(values, [(states, len(rows)) for states, rows in found]))
    places = torch.tensor(columns[4], dtype=torch.int64)
    for name, value in source.attributes.items():
        setattr(made, name, torch.where(places >= 0, value[places.clamp(min=0)], torch.zeros((), dtype=value.dtype)))
    if frame_name:
        setattr(made, frame_name, torch.tensor(columns[5], dtype=torch.int32))
    return made
