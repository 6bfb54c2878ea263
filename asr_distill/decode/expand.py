"""From phones to HMM states: the H of HCLG, as array arithmetic over whole graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr_distill.hmm.model import HmmModel
from asr_distill.lang.fst_arrays import FstArrays

# An arc's replacement: state labels one after another (see Chains), at least one.
Chain = tuple[int, ...]


class Chains:
    """State labels: 1 .. N for the (phone, state, pdf) triples in use, higher ones for disambiguation symbols."""

    def __init__(self, hmm: HmmModel, self_loop_scale: float):
        self.hmm, self.scale = hmm, self_loop_scale
        self.labels: dict[tuple[int, int, int], int] = {}
        self.disambig: list[int] = []

    def of_phones(self) -> list[Chain]:
        """Chain of every phone id, index 0 (epsilon) empty; for monophones."""
        return [(), *(self._chain(0, phone, 0) for phone in range(1, len(self.hmm.phones) + 1))]

    def of_windows(self, windows: np.ndarray, symbols: int) -> list[Chain]:
        """Chains of the labels of `with_context`: epsilon, disambiguation symbols, (left, phone, right) windows."""
        chains = [self._chain(left, phone, right) for left, phone, right in windows.tolist()]
        self.disambig = list(range(len(self.labels) + 1, len(self.labels) + 1 + symbols))
        return [(), *((label,) for label in self.disambig), *chains]

    def _chain(self, left: int, phone: int, right: int) -> Chain:
        keys = ((phone, state, self.hmm.tree.pdf(left, phone, right, state))
                for state in range(self.hmm.states[phone - 1]))
        return tuple(self.labels.setdefault(key, len(self.labels) + 1) for key in keys)

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per state label (index 0: epsilon): pdf + 1, and the scaled costs of staying and of leaving."""
        inputs = np.array([0, *(pdf + 1 for _, _, pdf in self.labels)], np.int32)
        return inputs, *self.costs()

    def transition_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Per state label (index 0: epsilon), Kaldi's transition-ids of entering it (its way forward, as graphs whose
        self-loops come after their state's arc have it) and of its self-loop; states numbered as `triples`."""
        order = {key: number for number, key in enumerate(self.triples())}
        place = np.array([order[key] for key in self.labels], np.int32)
        return np.concatenate([[0], 2 * place + 2]), np.concatenate([[0], 2 * place + 1])

    def triples(self) -> list[tuple[int, int, int]]:
        """The (phone, state, pdf) in use, in the order of Kaldi's transition model."""
        return sorted(self.labels)

    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """Per state label (index 0: epsilon), the scaled costs of staying and of leaving."""
        logs = np.array([(0.0, 0.0), *(self.hmm.log_transitions(*key) for key in self.labels)])
        stay, leave = (-self.scale * logs).astype(np.float32).T
        return stay, leave


def linked(chains: Sequence[Chain]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chains as linked lists that share their ends: of each chain the first label int32 and the tail after it int64, of
    each tail its first label and the tail after that. Tail 0 is the empty one; an empty chain's label is 0.
    """
    tails: dict[Chain, int] = {(): 0}  # what remains of a chain after some arcs -> id
    for chain in chains:
        for cut in range(1, len(chain)):
            tails.setdefault(chain[cut:], len(tails))

    def links(some: Sequence[Chain]) -> tuple[np.ndarray, np.ndarray]:
        return (np.array([chain[0] if chain else 0 for chain in some], np.int32),
                np.array([tails[chain[1:]] for chain in some], np.int64))

    return *links(chains), *links(list(tails))


def expand(graph: FstArrays, chains: Sequence[Chain]) -> FstArrays:
    """Replace each arc by a chain of arcs, one per state label; the first carries weight and word.

    Chains that end alike and lead to one state share their ends.
    """
    first, after_first, heads, rest = linked(chains)
    states = graph.num_states
    keys = after_first[graph.ilabels] * states + graph.nextstates  # (arcs,) inner state = (tail, target)
    inner = level = np.unique(keys[keys >= states])
    while level.size:
        level = rest[level // states] * states + level % states
        level = np.unique(level[level >= states])
        inner = np.union1d(inner, level)

    def state_of(wanted: np.ndarray) -> np.ndarray:
        found = np.searchsorted(inner, wanted) + states
        return np.where(wanted < states, wanted, found).astype(np.int32)

    tail = inner // states
    inner_targets = state_of(rest[tail] * states + inner % states)
    new = len(inner)
    # Inner states have one arc each, so the arcs stay sorted by source.
    return FstArrays(
        graph.start, np.concatenate([graph.finals, np.full(new, np.inf, np.float32)]),
        np.concatenate([graph.offsets, graph.offsets[-1] + np.arange(1, new + 1)]),
        np.concatenate([first[graph.ilabels], heads[tail]]),
        np.concatenate([graph.olabels, np.zeros(new, np.int32)]),
        np.concatenate([graph.weights, np.zeros(new, np.float32)]),
        np.concatenate([state_of(keys), inner_targets]))


def drop_disambig(graph: FstArrays, symbols: Sequence[int]) -> FstArrays:
    """Turn disambiguation symbols into epsilons, then skip states whose only way on is an epsilon."""
    dropped = np.zeros(1 + max(int(graph.ilabels.max(initial=0)), *symbols, 0), bool)
    dropped[list(symbols)] = True
    ilabels = np.where(dropped[graph.ilabels], np.int32(0), graph.ilabels)
    weights, nextstates = graph.weights.copy(), graph.nextstates.copy()
    silent = (ilabels == 0) & (graph.olabels == 0)
    single = (np.diff(graph.offsets) == 1) & np.isinf(graph.finals)
    only = np.flatnonzero(single)
    only = only[silent[graph.offsets[only]]]
    skip = np.full(graph.num_states, -1, np.int64)  # the arc by which a state is skipped
    skip[only] = graph.offsets[only]
    while True:
        # A state that leads to itself would never be left.
        arc = skip[nextstates]
        move = (arc >= 0) & (graph.nextstates[arc] != nextstates)
        if not move.any():
            break
        weights[move] += graph.weights[arc[move]]
        nextstates[move] = graph.nextstates[arc[move]]
    return FstArrays(graph.start, graph.finals, graph.offsets, ilabels, graph.olabels, weights, nextstates)


def add_self_loops(graph: FstArrays, chains: Chains, *, transition_ids: bool = False) -> FstArrays:
    """Give every HMM state its self-loop, put transition costs on, and turn state labels into pdf + 1 (or into Kaldi's
    transition-ids).

    A self-loop stands where its state's arc ends (Kaldi's reordered form). A graph state that several HMM
    states enter, or an epsilon, gets a state of its own before it for each of them.
    """
    inputs, stay, leave = chains.tables()
    entering, staying = chains.transition_ids() if transition_ids else (inputs, inputs)
    labels, targets = graph.ilabels, graph.nextstates
    states = graph.num_states
    emitting = labels > 0
    pairs, pair_of = np.unique(targets[emitting].astype(np.int64) * len(inputs) + labels[emitting],
                               return_inverse=True)
    pair_target, pair_label = pairs // len(inputs), (pairs % len(inputs)).astype(np.int32)
    entered = np.bincount(pair_target, minlength=states)  # by how many HMM states
    shared = entered > 1
    shared[targets[~emitting]] = True
    shared[graph.start] = True
    apart = shared[pair_target]
    place = pair_target.astype(np.int32)  # graph state that holds the self-loop
    place[apart] = states + np.arange(int(apart.sum()), dtype=np.int32)

    new_targets = targets.copy()
    new_targets[emitting] = place[pair_of]
    extra = int(apart.sum())
    zeros, loops = np.zeros(len(pairs), np.int32), np.zeros(extra, np.int32)
    return FstArrays.from_arcs(
        graph.start, np.concatenate([graph.finals, np.full(extra, np.inf, np.float32)]),
        np.concatenate([graph.sources(), place, place[apart]]),
        np.concatenate([entering[labels], staying[pair_label], loops]),
        np.concatenate([graph.olabels, zeros, loops]),
        np.concatenate([graph.weights + leave[labels], stay[pair_label], loops.astype(np.float32)]),
        np.concatenate([new_targets, place, pair_target[apart].astype(np.int32)]))
