"""HCLG as k2 searches it: no input epsilons, final weights as arcs of label -1 to one last state.

Epsilon removal in the tropical semiring (Mohri, "Generic epsilon-removal and input epsilon-normalization algorithms for
weighted transducers", 2002): an arc of the new graph is a path of epsilons and one arc of the old, at the least cost of
all such paths that say the same words. Several words may so come to stand on one arc; they are kept as a sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64, njit
from numba.typed import Dict

from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays

FINAL = -1  # k2's label of arcs into the final state
MAX_ARCS = 1 << 28  # k2 takes 16 bytes an arc, and counts with 32 bits
MAX_CLOSURE = 1 << 19  # steps of epsilons from one state; more: they go round and say words, or cost less than nothing
CYCLE, TOO_LARGE = -1, -2


class K2Graph(NamedTuple):
    """Arcs by source state, then by label (FINAL last); paths go from state 0 to the last state."""

    arcs: np.ndarray  # (arcs, 4) int32: source, target, label (pdf + 1 or FINAL), the bits of the float32 score
    outputs: np.ndarray  # (arcs,) int32: what an arc says, an index of `offsets`; 0 says nothing
    offsets: np.ndarray  # (outputs + 1,) int64: output n says words[offsets[n]:offsets[n + 1]]
    words: np.ndarray  # (words,) int32: word ids

    @property
    def states(self) -> int:
        return int(self.arcs[:, 1].max(initial=0)) + 1

    @property
    def costs(self) -> np.ndarray:
        """float32 (arcs,)."""
        return -self.arcs[:, 3].view(np.float32)

    @property
    def lengths(self) -> np.ndarray:
        """Words on every arc, int32 (arcs,)."""
        return np.diff(self.offsets).astype(np.int32)[self.outputs]


def without_epsilons(fst: FstArrays, name: str = "HCLG") -> K2Graph:
    """Raises UserError (naming `name`) where no state is final, for a cycle of epsilons that says words (or costs less
    than nothing), and for a graph that would be too large.
    """
    opens = np.zeros(fst.num_states, bool)  # whether epsilons leave a state
    opens[fst.sources()[fst.ilabels == 0]] = True
    count, arcs, outputs, offsets, words = _remove(
        fst.start, int(fst.olabels.max(initial=0)), opens, fst.finals, fst.offsets, fst.ilabels, fst.olabels,
        fst.weights, fst.nextstates)
    if count == CYCLE:
        raise UserError(f"{name}: its epsilons go round without an end; compile the graph anew")
    if count == TOO_LARGE:
        raise UserError(f"{name}: without epsilons it has more than {MAX_ARCS:,} arcs, too many for k2; prune the "
                        "language model or set the backend to cpu")
    sort = np.argsort(arcs[:, 0].astype(np.int64) << 32 | arcs[:, 2].view(np.uint32), kind="stable")
    graph = K2Graph(arcs[sort], outputs[sort], offsets, words)
    if not (graph.arcs[:, 2] == FINAL).any():
        raise UserError(f"{name}: no state is final; compile the graph anew")
    return graph


@njit(cache=True)
def _remove(start: int, last_word: int, opens: np.ndarray, finals: np.ndarray, offsets: np.ndarray,
            ilabels: np.ndarray, olabels: np.ndarray, weights: np.ndarray, nextstates: np.ndarray,
            ) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The number of arcs (or CYCLE or TOO_LARGE), and the fields of a K2Graph, arcs by source alone.

    Arcs are counted first, so memory is taken once. What is said is a node of a trie: node n > 0 says what its parent
    says and then its last word; the node of a single word is its id.
    """
    parents, last_words = [0 for _ in range(last_word + 1)], list(range(last_word + 1))
    children = Dict.empty(int64, int64)  # node << 32 | next word -> node
    for word in range(1, last_word + 1):
        children[word] = word
    order, places, count = _reached(start, opens, finals, offsets, ilabels, olabels, weights, nextstates, parents,
                                    last_words, children)
    arcs, outputs = np.empty((max(count, 0), 4), np.int32), np.empty(max(count, 0), np.int32)
    if count < 0:  # what is said may have no end
        return count, arcs, outputs, np.zeros(1, np.int64), outputs
    _fill(order, places, opens, finals, offsets, ilabels, olabels, weights, nextstates, parents, last_words, children,
          arcs, outputs)
    ends, words = _spelled(parents, last_words)
    return count, arcs, outputs, ends, words


@njit(cache=True)
def _after(node: Any, word: Any, parents: Any, last_words: Any, children: Any) -> int:
    """The sequence of `node`, and then `word` (0: nothing)."""
    if word == 0:
        return node
    key = node << 32 | word
    if key not in children:
        children[key] = len(parents)
        parents.append(node)
        last_words.append(word)
    return children[key]


@njit(cache=True)
def _closure(state: int, offsets: np.ndarray, ilabels: np.ndarray, olabels: np.ndarray, weights: np.ndarray,
             nextstates: np.ndarray, parents: Any, last_words: Any, children: Any) -> Any:
    """(state, words said, least cost) of all that epsilons lead to, the state itself first; none for endless words."""
    reached = [(int64(state), int64(0), 0.0)]
    places = Dict.empty(int64, int64)
    places[state] = 0
    done, waiting = 0, [int64(0)]
    while done < len(waiting):
        here, said, cost = reached[waiting[done]]
        done += 1
        for arc in range(offsets[here], offsets[here + 1]):
            if ilabels[arc] != 0:
                continue
            node = _after(said, olabels[arc], parents, last_words, children)
            key, then = node << 32 | int64(nextstates[arc]), cost + weights[arc]
            if key not in places:
                places[key] = len(reached)
                waiting.append(int64(len(reached)))
                reached.append((int64(nextstates[arc]), int64(node), then))
            elif then < reached[places[key]][2] - 1e-7:  # no rounding may make a cycle seem to gain
                reached[places[key]] = (int64(nextstates[arc]), int64(node), then)
                waiting.append(places[key])
            if len(waiting) > MAX_CLOSURE:
                return reached[:0]
    return reached


@njit(cache=True)
def _reached(start: int, opens: np.ndarray, finals: np.ndarray, offsets: np.ndarray, ilabels: np.ndarray,
             olabels: np.ndarray, weights: np.ndarray, nextstates: np.ndarray, parents: Any, last_words: Any,
             children: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """States that frames lead to (breadth first), each one's place among them (-1: none), and how many arcs they get.

    The number of arcs is CYCLE or TOO_LARGE where it cannot be had.
    """
    states = len(finals)
    order, places = np.empty(states, np.int32), np.full(states, -1, np.int32)
    order[0], places[start] = start, 0
    found, done, count = 1, 0, 0
    while done < found:
        closure = [(int64(order[done]), int64(0), 0.0)]
        if opens[order[done]]:
            closure = _closure(order[done], offsets, ilabels, olabels, weights, nextstates, parents, last_words,
                               children)
        done += 1
        if len(closure) == 0:
            return order, places, CYCLE
        for here, _, _ in closure:
            count += finals[here] < np.inf
            for arc in range(offsets[here], offsets[here + 1]):
                if ilabels[arc] == 0:
                    continue
                count += 1
                if places[nextstates[arc]] < 0:
                    places[nextstates[arc]] = found
                    order[found] = nextstates[arc]
                    found += 1
        if count > MAX_ARCS:
            return order, places, TOO_LARGE
    return order[:found], places, count


@njit(cache=True)
def _fill(order: np.ndarray, places: np.ndarray, opens: np.ndarray, finals: np.ndarray, offsets: np.ndarray,
          ilabels: np.ndarray, olabels: np.ndarray, weights: np.ndarray, nextstates: np.ndarray, parents: Any,
          last_words: Any, children: Any, arcs: np.ndarray, outputs: np.ndarray) -> None:
    """Write what `_reached` counted."""
    scores = arcs.view(np.float32)
    used = 0
    for place in range(len(order)):
        closure = [(int64(order[place]), int64(0), 0.0)]
        if opens[order[place]]:
            closure = _closure(order[place], offsets, ilabels, olabels, weights, nextstates, parents, last_words,
                               children)
        for here, said, cost in closure:
            if finals[here] < np.inf:
                arcs[used, 0], arcs[used, 1], arcs[used, 2] = place, len(order), FINAL
                scores[used, 3] = -(cost + finals[here])
                outputs[used] = said
                used += 1
            for arc in range(offsets[here], offsets[here + 1]):
                if ilabels[arc] == 0:
                    continue
                arcs[used, 0], arcs[used, 1], arcs[used, 2] = place, places[nextstates[arc]], ilabels[arc]
                scores[used, 3] = -(cost + weights[arc])
                outputs[used] = _after(said, olabels[arc], parents, last_words, children)
                used += 1


@njit(cache=True)
def _spelled(parents: Any, last_words: Any) -> tuple[np.ndarray, np.ndarray]:
    """Every node's words end to end: (offsets, words)."""
    offsets = np.zeros(len(parents) + 1, np.int64)
    for node in range(len(parents)):
        length, at = 0, node
        while at:
            length, at = length + 1, parents[at]
        offsets[node + 1] = offsets[node] + length
    words = np.empty(offsets[-1], np.int32)
    for node in range(len(parents)):
        at, place = node, offsets[node + 1]
        while at:
            place -= 1
            words[place] = last_words[at]
            at = parents[at]
    return offsets, words
