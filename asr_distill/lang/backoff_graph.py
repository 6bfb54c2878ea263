"""G of an n-gram model as arrays, for changing it: states are histories, #0 leads to the next shorter one.

A state gives P(word | history) for the words that it lists; every other word has the state's backoff weight times its
probability after the shorter history. The root is the empty history: it lists all words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr_distill.errors import UserError
from asr_distill.lang.fst_arrays import FstArrays
from asr_distill.lang.ngram_model import BEGIN, END, NEVER, NgramModel, NgramTable

_LEAST = 1e-6  # mass below which a history's n-grams leave nothing to other words: float32 is no surer
_LN10 = np.log(10)


@dataclass(frozen=True)
class BackoffGraph:
    """Arcs are sorted by (source, word); a sentence's end is an arc with the word `</s>` to no state (-1)."""

    start: int
    words: tuple[str, ...]  # names of word ids
    sources: np.ndarray  # (arcs,) int64
    labels: np.ndarray  # (arcs,) int64 word ids
    probabilities: np.ndarray  # (arcs,) float64
    targets: np.ndarray  # (arcs,) int64
    lower: np.ndarray  # (states,) int64: the next shorter history; -1 for the root
    backoff: np.ndarray  # (states,) float64: weight of the shorter history; 1 for the root
    depth: np.ndarray  # (states,) int64: words of the history

    @classmethod
    def of(cls, arrays: FstArrays, words: tuple[str, ...], name: str) -> BackoffGraph:
        """`words`: the symbol table of its labels. Raises UserError (about the file `name`) where it is not the
        acceptor of a backoff n-gram model.
        """
        strange = UserError(f"{name}: not the n-gram model of a recogniser (a grammar has replaced it?); give a "
                            "recogniser with its language model")
        ids = {word: index for index, word in enumerate(words)}
        sources, labels = arrays.sources().astype(np.int64), arrays.ilabels.astype(np.int64)
        back = labels == ids["#0"]
        lower = np.full(arrays.num_states, -1)
        backoff = np.ones(arrays.num_states)
        lower[sources[back]] = arrays.nextstates[back]
        backoff[sources[back]] = np.exp(-arrays.weights[back].astype(np.float64))
        depth = np.zeros(arrays.num_states, np.int64)
        behind = lower
        while (behind >= 0).any():
            depth += behind >= 0
            behind = np.where(behind >= 0, lower[behind], -1)
            if depth.max() > arrays.num_states:
                raise strange
        ends = np.flatnonzero(np.isfinite(arrays.finals))
        costs = np.concatenate([arrays.weights[~back], arrays.finals[ends]]).astype(np.float64)
        graph = cls(arrays.start, words, np.append(sources[~back], ends),
                    np.append(labels[~back], np.full(len(ends), ids[END])), np.exp(-costs),
                    np.append(arrays.nextstates[~back].astype(np.int64), np.full(len(ends), -1)),
                    lower, backoff, depth).sorted()
        keys = graph._keys()
        if (depth == 0).sum() != 1 or len(np.unique(sources[back])) != back.sum() or (labels == 0).any() or \
                np.any(keys[1:] == keys[:-1]) or (graph.find(graph.root, graph.labels) < 0).any():
            raise strange
        return graph

    @property
    def root(self) -> int:
        return int(np.flatnonzero(self.lower < 0)[0])

    def sorted(self) -> BackoffGraph:
        order = np.argsort(self._keys(), kind="stable")
        return replace(self, sources=self.sources[order], labels=self.labels[order],
                       probabilities=self.probabilities[order], targets=self.targets[order])

    def relabelled(self, words: tuple[str, ...]) -> BackoffGraph:
        """The same words under the ids of another symbol table, which must have them all."""
        ids = {word: index for index, word in enumerate(words)}
        moved = np.array([ids.get(word, -1) for word in self.words])[self.labels]
        return replace(self, words=words, labels=moved).sorted()

    def _keys(self) -> np.ndarray:
        return self.sources * len(self.words) + self.labels

    def find(self, states: np.ndarray | int, labels: np.ndarray) -> np.ndarray:
        """Arc of each state with each word, (N,); -1 where the state does not list it."""
        keys, wanted = self._keys(), states * len(self.words) + labels
        rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[rows] == wanted, rows, -1)

    def after(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """P(word | history) with backoff, float64 (N,); 0 for a word that even the root lacks."""
        found, weight, states = np.zeros(len(labels)), np.ones(len(labels)), states.copy()
        left = np.arange(len(labels))
        while len(left):
            rows = self.find(states[left], labels[left])
            listed = rows >= 0
            found[left[listed]] = weight[left[listed]] * self.probabilities[rows[listed]]
            left = left[~listed]
            weight[left] *= self.backoff[states[left]]
            states[left] = self.lower[states[left]]
            left = left[states[left] >= 0]
        return found

    def masses(self) -> np.ndarray:
        """Sum of P(word | history) over all words and the sentence's end, float64 (states,): one in a sound model."""
        listed = np.bincount(self.sources, self.probabilities, len(self.lower))
        mass, again = np.zeros(len(self.lower)), self._listed_below()
        for depth in range(self.depth.max() + 1):
            here = np.flatnonzero(self.depth == depth)
            rest = 0.0 if depth == 0 else mass[self.lower[here]] - again[here]
            mass[here] = listed[here] + self.backoff[here] * rest
        return mass

    def with_probabilities(self, unigrams: Mapping[int, float]) -> BackoffGraph:
        """Words (ids, new or known) with these unigram probabilities, heard after every history by backoff.

        All other unigrams shrink by one factor, n-grams stay as they are, and every backoff weight is set anew such
        that `masses` stay the same. A history whose n-grams leave nothing to other words gives the new ones room.
        """
        if not unigrams:
            return self
        mass, root, ids = self.masses(), self.root, np.array(list(unigrams), np.int64)
        given = np.array(list(unigrams.values()))
        rows = self.find(root, ids)
        known, probabilities = rows >= 0, self.probabilities.copy()
        probabilities[self.sources == root] *= ((mass[root] - given.sum()) /
                                                (mass[root] - probabilities[rows[known]].sum()))
        probabilities[rows[known]] = given[known]
        listed = np.bincount(self.sources, self.probabilities, len(mass))
        full = (self.depth > 0) & (mass - listed < _LEAST)
        probabilities[full[self.sources]] *= 1 - given.sum()
        here = np.full((~known).sum(), root)  # after a new word nothing is known of what follows
        graph = replace(self, sources=np.append(self.sources, here), labels=np.append(self.labels, ids[~known]),
                        targets=np.append(self.targets, here), backoff=self.backoff.copy(),
                        probabilities=np.append(probabilities, given[~known])).sorted()
        needed = mass - np.bincount(graph.sources, graph.probabilities, len(mass))
        for depth in range(1, self.depth.max() + 1):  # each level's weights rest on those below it
            free = mass[self.lower] - graph._listed_below()
            level = (self.depth == depth) & (free > 0) & (needed > 0)
            graph.backoff[level] = needed[level] / free[level]
        return graph

    def _listed_below(self) -> np.ndarray:
        """Of every state: the mass that the shorter history gives to the words which the state lists, (states,)."""
        above = self.lower[self.sources] >= 0
        mass = self.after(self.lower[self.sources[above]], self.labels[above])
        return np.bincount(self.sources[above], mass, len(self.lower))

    def with_likenesses(self, likenesses: Mapping[int, Sequence[int]]) -> BackoffGraph:
        """New words in all n-grams of a known one (its id -> theirs): it keeps half of each probability, they share
        the other half, and whatever follows it follows them. No other probability changes.
        """
        graph = self
        for known, others in likenesses.items():
            rows = np.flatnonzero(graph.labels == known)
            probabilities = graph.probabilities.copy()
            probabilities[rows] /= 2
            each = np.tile(rows, len(others))
            graph = replace(
                graph, sources=np.append(graph.sources, graph.sources[each]),
                labels=np.append(graph.labels, np.repeat(others, len(rows))),
                probabilities=np.append(probabilities, probabilities[each] / len(others)),
                targets=np.append(graph.targets, graph.targets[each]))
        return graph.sorted()

    def arrays(self) -> FstArrays:
        """The acceptor, its arcs sorted by label."""
        end, backs = self.words.index(END), np.flatnonzero(self.lower >= 0)
        finals = np.full(len(self.lower), np.inf)
        spoken = self.labels != end
        finals[self.sources[~spoken]] = -np.log(self.probabilities[~spoken])
        sources = np.append(self.sources[spoken], backs)
        labels = np.append(self.labels[spoken], np.full(len(backs), self.words.index("#0")))
        outputs = np.append(self.labels[spoken], np.zeros(len(backs), np.int64))
        costs = -np.log(np.append(self.probabilities[spoken], self.backoff[backs]))
        targets = np.append(self.targets[spoken], self.lower[backs])
        order = np.lexsort((labels, sources))
        return FstArrays.from_arcs(self.start, finals, *(column[order] for column in (
            sources, labels, outputs, costs, targets)))

    def ngrams(self) -> NgramModel:
        """The model in tables. Where unigrams do not sum to one (words outside the lexicon were dropped), they are
        scaled until they do.
        """
        unigram = self.sources == self.root
        labels = self.labels[unigram]
        rows = np.full(len(self.words), -1)  # word id -> unigram
        rows[labels] = np.arange(len(labels))
        rows[self.words.index(BEGIN)] = len(labels)
        names = [self.words[label] for label in labels.tolist()] + [BEGIN]
        mine = np.full(len(self.lower), -1)  # state -> its history's n-gram
        mine[self.root] = 0
        if self.depth[self.start] == 1:
            mine[self.start] = len(labels)
        tables: list[NgramTable] = []
        for order in range(1, self.depth.max() + 2):
            arcs = np.flatnonzero(self.depth[self.sources] == order - 1)
            keys = rows[self.labels[arcs]] + (mine[self.sources[arcs]] * len(names) if order > 1 else 0)
            ranks = np.argsort(keys)
            arcs, keys = arcs[ranks], keys[ranks]
            log10 = np.log10(self.probabilities[arcs])
            if order == 1:
                log10 -= np.log10(self.probabilities[arcs].sum())
                keys, log10 = np.append(keys, len(labels)), np.append(log10, NEVER)
            targets = self.targets[arcs]
            longer = np.flatnonzero((targets >= 0) & (self.depth[targets] == order))
            mine[targets[longer]] = longer
            histories = np.flatnonzero((self.depth == order) & (mine >= 0))
            backoff = np.zeros(len(keys), np.float32)
            backoff[mine[histories]] = np.log10(self.backoff[histories])
            tables.append(NgramTable(keys, log10.astype(np.float32), backoff))
        return NgramModel(names, tables)
