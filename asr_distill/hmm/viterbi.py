"""Exact Viterbi search of many utterances at once: one step per frame for a whole batch, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable

STAY, CHAIN, ENTRY = 0, 1, 2  # back-pointer: the state itself, state - 1, slot k of its entry predecessors as 2 + k


@dataclass(frozen=True)
class Path:
    """The best path of one utterance."""

    states: np.ndarray  # int32 (frames,): states of the utterance's graph
    score: float  # log-weight of the path, acoustics scaled
    acoustic: float  # sum of the path's unscaled log-likelihoods


def batches(lengths: Sequence[int], sizes: Sequence[int], cells: int) -> Iterator[list[int]]:
    """Indices in batches of like length whose back-pointers (longest frames x sum of states) fit `cells` bytes.

    An utterance that alone needs more is a batch of its own.
    """
    batch: list[int] = []
    states = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (states + sizes[index]) > cells:
            yield batch
            batch, states = [], 0
        batch.append(index)
        states += sizes[index]
    if batch:
        yield batch


class ViterbiBatch:
    """The graphs of some utterances laid end to end (N states in all), ready to search."""

    def __init__(self, graphs: Sequence[UtteranceGraph], transitions: TransitionTable, *,
                 self_loop_scale: float, device: torch.device):
        self.graphs, self.device = graphs, device
        sizes = np.array([len(graph) for graph in graphs])
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        phone, state, pdf = (np.concatenate([getattr(graph, name) for graph in graphs])
                             for name in ("phone", "state", "pdf"))
        loop, forward = transitions.logs(phone, state, pdf)
        loop, forward = loop * self_loop_scale, forward * self_loop_scale
        width = max(graph.entry_predecessors.shape[1] for graph in graphs)
        entries = np.concatenate([graph.entries + at for graph, at in zip(graphs, self.offsets, strict=False)])
        predecessors = np.concatenate([
            np.pad(graph.entry_predecessors, ((0, 0), (0, width - graph.entry_predecessors.shape[1]))) + at
            for graph, at in zip(graphs, self.offsets, strict=False)])
        weights = np.concatenate([
            np.pad(graph.entry_weights, ((0, 0), (0, width - graph.entry_weights.shape[1])),
                   constant_values=-np.inf) for graph in graphs])
        chain = np.concatenate([[-np.inf], forward[:-1]])
        chain[entries] = -np.inf
        self.loop = self._tensor(loop)  # (N,)
        self.chain = self._tensor(chain)  # (N,): weight of coming from the state before
        # Entries with most predecessors first: slot k then concerns a prefix of them.
        used = np.isfinite(weights).sum(1)
        order = np.argsort(-used, kind="stable")
        self.entries = self._tensor(entries[order], torch.int64)  # (E,)
        rows = [order[: int((used > slot).sum())] for slot in range(width)]
        slots = [len(some) for some in rows]  # entries that have slot k
        incoming = np.concatenate([predecessors[some, slot] for slot, some in enumerate(rows)])
        weight = np.concatenate([weights[some, slot] for slot, some in enumerate(rows)])
        self.incoming = self._tensor(incoming, torch.int64)  # (sum of slots,): predecessors, slot by slot
        self.incoming_weights = self._tensor(weight + forward[incoming])
        # Work space of _enter, and each slot's view of it: cutting tensors anew at every frame costs as much as
        # the arithmetic.
        self._candidates = torch.empty_like(self.incoming_weights)
        self._score = torch.empty(len(entries), device=device)
        self._pointer = torch.empty(len(entries), dtype=torch.uint8, device=device)
        self._slots = [(ENTRY + slot, candidate, self._score[:some], self._pointer[:some]) for
                       slot, (some, candidate) in enumerate(zip(slots, self._candidates.split(slots), strict=True))]
        every = np.arange(len(phone))
        sources = np.stack([every, every - 1] + [every] * width, 1)  # (N, 2 + K): by back-pointer
        sources[entries, ENTRY:] = predecessors
        self.sources = self._tensor(sources, torch.int64)
        self.initial = self._tensor(np.concatenate([graph.initial for graph in graphs]))
        self.final = self._tensor(np.concatenate([graph.final for graph in graphs]) + forward)

    def _tensor(self, array: np.ndarray, kind: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device).to(kind)

    def search(self, log_likelihoods: Sequence[torch.Tensor], *, acoustic_scale: float,
               bonus: dict[int, float] | None = None) -> list[Path | None]:
        """Best path of each utterance; None where it has too few frames for its words.

        `log_likelihoods`: (frames, pdfs) of each utterance, on the batch's device. `bonus`: log-likelihood
        added to some pdfs (a silence boost), part of the search but not of `Path.acoustic`.
        """
        lengths = [len(scores) for scores in log_likelihoods]
        scores, columns = self._emissions(log_likelihoods, acoustic_scale, bonus or {})
        backward, best, last = self._forward(scores, columns, lengths)
        found = [b for b in range(len(lengths)) if best[b] > -np.inf]
        trace = self._trace(backward, last, lengths).cpu().numpy()
        paths: list[Path | None] = [None] * len(lengths)
        for b in found:
            path = trace[: lengths[b], b] - self.offsets[b]
            pdfs = torch.as_tensor(self.graphs[b].pdf[path], device=self.device).long()
            acoustic = log_likelihoods[b].gather(1, pdfs.unsqueeze(1)).double().sum().item()
            paths[b] = Path(path.astype(np.int32), best[b], acoustic)
        return paths

    def _emissions(self, log_likelihoods: Sequence[torch.Tensor], scale: float, bonus: dict[int, float],
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled scores of each utterance's own pdfs side by side (longest, columns); each state's column (N,)."""
        own, columns, count = [], [], 0
        for graph in self.graphs:
            pdfs, places = graph.own_pdfs
            own.append(pdfs)
            columns.append(places + count)
            count += len(pdfs)
        longest = max(map(len, log_likelihoods))
        scores = torch.zeros(longest, count, device=self.device)
        at = 0
        for pdfs, utterance in zip(own, log_likelihoods, strict=True):
            picked = utterance.index_select(1, self._tensor(pdfs, torch.int64)).mul_(scale)
            if bonus:
                picked += self._tensor(np.array([scale * bonus.get(int(pdf), 0.0) for pdf in pdfs]))
            scores[: len(utterance), at : at + len(pdfs)] = picked
            at += len(pdfs)
        return scores, self._tensor(np.concatenate(columns), torch.int64)

    def _forward(self, scores: torch.Tensor, columns: torch.Tensor, lengths: Sequence[int],
                 ) -> tuple[torch.Tensor, list[float], list[int]]:
        """Back-pointers uint8 (longest, N), and each utterance's best final score and state.

        An utterance that is over is stepped on with the others; its result was read at its last frame.
        """
        count, longest = len(self.initial), len(scores)
        # gt() writes 0 or 1 straight into the back-pointers through this bool view.
        chained = torch.zeros(longest, count, dtype=torch.bool, device=self.device)
        backward = chained.view(torch.uint8)
        now, coming = self.initial.clone(), torch.full_like(self.initial, -torch.inf)
        ends: dict[int, list[int]] = {}
        for b, length in enumerate(lengths):
            ends.setdefault(length - 1, []).append(b)
        values, states = [-np.inf] * len(lengths), [0] * len(lengths)
        then = torch.empty_like(now)
        for t in range(longest):
            if t:
                torch.add(now[:-1], self.chain[1:], out=coming[1:])
                torch.add(now, self.loop, out=then)
                torch.gt(coming, then, out=chained[t])
                torch.maximum(coming, then, out=then)
                self._enter(now, then, backward[t])
                now, then = then, now
            now += scores[t].index_select(0, columns)
            for b in ends.get(t, ()):
                part = slice(int(self.offsets[b]), int(self.offsets[b + 1]))
                score, state = torch.max(now[part] + self.final[part], 0)
                values[b], states[b] = float(score), int(state) + part.start
        return backward, values, states

    def _enter(self, now: torch.Tensor, then: torch.Tensor, backward: torch.Tensor) -> None:
        """Let paths pass from ends of words and silences to the next beginnings."""
        torch.index_select(then, 0, self.entries, out=self._score)  # so far only the self-loops
        self._pointer.zero_()
        torch.index_select(now, 0, self.incoming, out=self._candidates)
        self._candidates += self.incoming_weights
        for code, candidate, score, pointer in self._slots:
            pointer.masked_fill_(candidate > score, code)
            torch.maximum(candidate, score, out=score)
        then.index_copy_(0, self.entries, self._score)
        backward.index_copy_(0, self.entries, self._pointer)

    def _trace(self, backward: torch.Tensor, last: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """States (longest, utterances) of the best paths, backwards from each utterance's last frame."""
        state = torch.tensor(last, device=self.device)
        begin = torch.tensor(lengths, device=self.device) - 1
        trace = torch.empty(len(backward), len(last), dtype=torch.int64, device=self.device)
        for t in range(len(backward) - 1, -1, -1):
            trace[t] = state
            came = self.sources[state, backward[t].index_select(0, state).long()]
            state = torch.where(begin >= t, came, state)
        return trace
