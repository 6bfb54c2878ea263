"""Exact Viterbi search of many utterances at once: one step per frame for a whole batch, for GPUs.

On a CPU viterbi_cpu.py is many times faster; this form runs there too (tests compare the two).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from asr_distill.hmm.graph import UtteranceGraph
from asr_distill.hmm.transitions import TransitionTable

STAY, CHAIN, ENTRY = 0, 1, 2  # back-pointer: the state itself, state - 1, slot k of its entry predecessors as 2 + k


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

    def search(self, scores: Sequence[torch.Tensor]) -> list[tuple[np.ndarray, float] | None]:
        """Best path of each utterance, states int32 (frames,), and its log-weight; None where its frames are too few.

        `scores`: scaled log-likelihoods of each utterance's own pdfs (frames, pdfs), on the batch's device.
        """
        lengths = [len(each) for each in scores]
        backward, best, last = self._forward(*self._laid_out(scores), lengths)
        trace = self._trace(backward, last, lengths).cpu().numpy()
        return [((trace[: lengths[b], b] - self.offsets[b]).astype(np.int32), best[b]) if best[b] > -np.inf else None
                for b in range(len(lengths))]

    def _laid_out(self, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of each utterance's own pdfs side by side (longest, columns); each state's column (N,)."""
        widths = [each.shape[1] for each in scores]
        begins = np.concatenate([[0], np.cumsum(widths)])
        out = torch.zeros(max(map(len, scores)), int(begins[-1]), device=self.device)
        for utterance, begin, width in zip(scores, begins.tolist(), widths, strict=False):
            out[: len(utterance), begin : begin + width] = utterance
        columns = [graph.own_pdfs[1] + begin for graph, begin in zip(self.graphs, begins, strict=False)]
        return out, self._tensor(np.concatenate(columns), torch.int64)

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
