"""G of a small grammar: an acyclic deterministic acceptor whose weights are the probabilities of its sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.phrases import Phrase, Said, Sequence

MOST_STATES = 200_000
_DIGITS = 9  # of a subset's weights: subsets that differ by less are one

# What may come next from a state: (word, state after it) -> probability; the key None: the sentence ends here.
Moves = dict[tuple[str, int] | None, float]


class _Automaton:
    """Built from the sentence's end backwards: the moves of a part follow from those of what comes after it."""

    def __init__(self, phrase: Phrase):
        self.states: list[Moves] = []
        self.start = self._before(phrase, self._state({None: 1.0}))

    def _state(self, moves: Moves) -> int:
        self.states.append(moves)
        if len(self.states) > MOST_STATES:
            raise UserError(f"this grammar needs more than {MOST_STATES:,} states: give fewer or shorter phrases")
        return len(self.states) - 1

    def _before(self, phrase: Phrase, following: int) -> int:
        if isinstance(phrase, Said):
            return self._state({(phrase.word, following): 1.0})
        if isinstance(phrase, Sequence):
            for part in reversed(phrase.parts):
                following = self._before(part, following)
            return following
        total = sum(weight for weight, _ in phrase.alternatives)
        moves: Moves = defaultdict(float)
        for weight, alternative in phrase.alternatives:
            for move, probability in self.states[self._before(alternative, following)].items():
                moves[move] += weight / total * probability
        return self._state(dict(moves))


def phrase_graph(phrase: Phrase, word_ids: Mapping[str, int]) -> FstArrays:
    """The acceptor over word ids; from every state the probabilities of its arcs and of its end sum to one.

    Weights of alternatives are made to sum to one at each choice; a sentence that can be read in several ways has
    the sum of their probabilities. Subset construction with weights (Mohri 1997, section 3.3), in float64. Raises
    UserError where that takes more than 200,000 states.
    """
    automaton = _Automaton(phrase)
    subsets: dict[tuple[tuple[int, float], ...], int] = {}
    pending: list[dict[int, float]] = []
    rows: list[tuple[int, int, float, int]] = []  # source, word id, cost, target
    finals: list[float] = []

    def number(weights: dict[int, float]) -> int:
        key = tuple(sorted((state, round(weight, _DIGITS)) for state, weight in weights.items()))
        if key not in subsets:
            subsets[key] = len(subsets)
            pending.append(weights)
        if len(subsets) > MOST_STATES:
            raise UserError(f"this grammar needs more than {MOST_STATES:,} states: give fewer or shorter phrases")
        return subsets[key]

    number({automaton.start: 1.0})
    while len(finals) < len(pending):
        end = 0.0
        after: dict[str, dict[int, float]] = {}
        for state, weight in pending[len(finals)].items():
            for move, probability in automaton.states[state].items():
                if move is None:
                    end += weight * probability
                else:
                    reached = after.setdefault(move[0], defaultdict(float))
                    reached[move[1]] += weight * probability
        source = len(finals)
        finals.append(-np.log(end) if end else np.inf)
        for word in sorted(after, key=word_ids.__getitem__):
            total = sum(after[word].values())
            target = number({state: weight / total for state, weight in after[word].items()})
            rows.append((source, word_ids[word], -np.log(total), target))
    sources, labels, costs, targets = (np.array(column) for column in zip(*rows, strict=True))
    return FstArrays.from_arcs(0, np.array(finals), sources, labels, labels, costs, targets)
