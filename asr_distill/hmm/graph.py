"""Alignment graphs: the HMM states that the words of one utterance allow, as arrays (no FST library)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr_distill.errors import UserError
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import SILENCE_PHONE, Lang
from asr_distill.lang.silence import WordSilence

START = -1  # predecessor "before the first frame"
MAX_PREDECESSORS = 250  # Viterbi keeps the predecessor's slot in one byte


@dataclass(frozen=True)
class UtteranceGraph:
    """Emitting HMM states (S) of one utterance in topological order.

    A state goes on to itself and to what follows it. Inside a chain of phones the predecessor of state s is
    s - 1; the `entries` are the states with other predecessors (beginnings of pronunciations and silences).
    Weights are natural logs of the pronunciations' and silence's probabilities: HMM transitions are apart
    (transitions.py), since they change with every training iteration while the graph stays.
    """

    pdf: np.ndarray  # int32 (S,)
    phone: np.ndarray  # int16 (S,)
    state: np.ndarray  # int8 (S,): 0-based inside the phone
    word: np.ndarray  # int32 (S,): index into the utterance's words, -1 in silence
    initial: np.ndarray  # float32 (S,): -inf where no path begins
    final: np.ndarray  # float32 (S,): -inf where no path ends
    entries: np.ndarray  # int32 (E,): states whose predecessor is not s - 1
    entry_predecessors: np.ndarray  # int32 (E, K), padded with 0
    entry_weights: np.ndarray  # float32 (E, K), padded with -inf

    def __len__(self) -> int:
        return len(self.pdf)

    @cached_property
    def own_pdfs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pdfs that occur, ascending, and each state's place among them (S,)."""
        pdfs, places = np.unique(self.pdf, return_inverse=True)
        return pdfs, places.ravel()

    def shortest(self) -> int:
        """Fewest frames that any path takes."""
        entry = {int(s): row for row, s in enumerate(self.entries)}
        frames = np.where(np.isfinite(self.initial), 1.0, np.inf)
        for s in range(len(self)):
            if s in entry:
                used = np.isfinite(self.entry_weights[entry[s]])
                before = frames[self.entry_predecessors[entry[s]][used]]
                frames[s] = min(frames[s], before.min(initial=np.inf) + 1)
            else:
                frames[s] = min(frames[s], frames[s - 1] + 1)
        return int(frames[np.isfinite(self.final)].min())

    def predecessors(self) -> tuple[np.ndarray, np.ndarray]:
        """All predecessors but the state itself: states int32 (S, K) padded with 0, log-weights (S, K)."""
        width = max(1, self.entry_predecessors.shape[1])
        states = np.zeros((len(self), width), np.int32)
        weights = np.full((len(self), width), -np.inf, np.float32)
        states[1:, 0] = np.arange(len(self) - 1)
        weights[1:, 0] = 0.0
        states[self.entries, : self.entry_predecessors.shape[1]] = self.entry_predecessors
        weights[self.entries] = -np.inf
        weights[self.entries, : self.entry_weights.shape[1]] = self.entry_weights
        return states, weights


@dataclass
class _Phones:
    """A DAG of phone instances, in topological order."""

    phone: list[int]
    word: list[int]
    before: list[list[tuple[int, float]]]  # (predecessor or START, log-weight)
    final: dict[int, float]

    def add(self, phone: int, word: int, before: list[tuple[int, float]]) -> int:
        self.phone.append(phone)
        self.word.append(word)
        self.before.append(before)
        return len(self.phone) - 1


class GraphCompiler:
    """Compiles transcripts for one language and one tree; remembers pronunciations and contexts."""

    def __init__(self, hmm: HmmModel, lang: Lang):
        self.hmm, self.lang = hmm, lang
        self._phone_ids = {phone: index for index, phone in enumerate(hmm.phones, 1)}
        self._silence = self._phone_ids[SILENCE_PHONE]
        self._pronunciations: dict[str, list[tuple[list[int], float, WordSilence]]] = {}
        self._pdfs: dict[tuple[int, int, int], list[int]] = {}

    def compile(self, words: Sequence[str]) -> UtteranceGraph:
        """Words as written in the transcript; one outside the lexicon is read as the unknown word.

        Raises UserError where a pronunciation uses a phone that the HMM lacks, and where there is neither a word
        nor (by a silence probability of 0) a silence.
        """
        if not words and self.lang.silence_probability == 0:
            raise UserError("an utterance without words cannot be aligned while lang's silence_probability is 0")
        phones = self._phone_graph(words)
        if self.hmm.tree.context_width == 1:
            contexts = [(0, phone, 0) for phone in phones.phone]
        else:
            phones, contexts = _expand_contexts(phones)
        return self._expand_states(phones, contexts)

    def _phone_graph(self, words: Sequence[str]) -> _Phones:
        """The paths and weights of L for these words (lexicon_fst.py)."""
        silence = self.lang.silence
        graph = _Phones([], [], [], {})
        ends = [(START, silence.begin)]  # (last phone, probability of silence after it)
        for index in range(len(words) + 1):
            unpaused = [(end, math.log1p(-chance)) for end, chance in ends if chance < 1]
            pauses = [(end, math.log(chance)) for end, chance in ends if chance > 0]
            paused = [(graph.add(self._silence, -1, pauses), 0.0)] if pauses else []
            if index == len(words):
                after = _joined(unpaused, paused, silence.end, 0.0)
                graph.final = {end: weight for end, weight in after if end != START}
                break
            ends = []
            for phones, weight, around in self._pronounce(words[index]):
                last = graph.add(phones[0], index, _joined(unpaused, paused, around, weight))
                for phone in phones[1:]:
                    last = graph.add(phone, index, [(last, 0.0)])
                ends.append((last, around.after))
        return graph

    def _pronounce(self, word: str) -> list[tuple[list[int], float, WordSilence]]:
        if word not in self._pronunciations:
            known = self.lang.word_or_unknown(word)
            try:
                self._pronunciations[word] = [
                    ([self._phone_ids[phone] for phone in p.phones], math.log(p.probability),
                     self.lang.silence.around(known, p.phones))
                    for p in self.lang.lexicon.pronunciations(known)]
            except KeyError as error:
                raise UserError(f"word '{word}': its pronunciation uses {error}, which the HMM's phones lack; "
                                "train the HMM with this language directory") from None
        return self._pronunciations[word]

    def _expand_states(self, phones: _Phones, contexts: list[tuple[int, int, int]]) -> UtteranceGraph:
        pdfs = [self._context_pdfs(context) for context in contexts]
        phone = np.array(phones.phone, np.int16)
        lengths = np.array(self.hmm.states, np.int32)[phone - 1]  # emitting states of each phone instance
        first = np.cumsum(lengths) - lengths
        last = first + lengths - 1
        count = int(lengths.sum())
        initial, final = np.full(count, -np.inf, np.float32), np.full(count, -np.inf, np.float32)
        entries: list[int] = []
        rows: list[list[tuple[int, float]]] = []
        for instance, before in enumerate(phones.before):
            if len(before) == 1 and before[0] == (instance - 1, 0.0) and instance > 0:
                continue
            entries.append(instance)
            rows.append([(end, weight) for end, weight in before if end != START])
            for end, weight in before:
                if end == START:
                    initial[first[instance]] = weight
        width = max(1, max(map(len, rows)))
        if width > MAX_PREDECESSORS:
            raise UserError(f"a word has so many pronunciations that a state has {width} predecessors "
                            f"(at most {MAX_PREDECESSORS}): prune the lexicon")
        predecessors = np.zeros((len(rows), width), np.int32)
        weights = np.full((len(rows), width), -np.inf, np.float32)
        for row, before in enumerate(rows):
            for slot, (end, weight) in enumerate(before):
                predecessors[row, slot] = last[end]
                weights[row, slot] = weight
        for end, weight in phones.final.items():
            final[last[end]] = weight
        return UtteranceGraph(
            pdf=np.array([pdf for each in pdfs for pdf in each], np.int32),
            phone=np.repeat(phone, lengths), state=(np.arange(count) - np.repeat(first, lengths)).astype(np.int8),
            word=np.repeat(np.array(phones.word, np.int32), lengths), initial=initial, final=final,
            entries=first[entries].astype(np.int32), entry_predecessors=predecessors, entry_weights=weights)

    def _context_pdfs(self, context: tuple[int, int, int]) -> list[int]:
        if context not in self._pdfs:
            left, phone, right = context
            self._pdfs[context] = [self.hmm.tree.pdf(left, phone, right, state)
                                   for state in range(self.hmm.states[phone - 1])]
        return self._pdfs[context]


def _joined(unpaused: list[tuple[int, float]], paused: list[tuple[int, float]], around: WordSilence,
            weight: float) -> list[tuple[int, float]]:
    """Predecessors of a word of log-weight `weight`: where no silence stands before it, and where it does."""
    none, silence = weight + math.log(around.factor_none), weight + math.log(around.factor_silence)
    return [(end, at + none) for end, at in unpaused] + [(end, at + silence) for end, at in paused]


def _expand_contexts(graph: _Phones) -> tuple[_Phones, list[tuple[int, int, int]]]:
    """Copy each phone instance for every (left, right) neighbour it may have; silence counts as a neighbour.

    Copies are joined only where both agree about each other, so every path spells true triphones.
    """
    rights: list[list[int]] = [[] for _ in graph.phone]
    for instance, before in enumerate(graph.before):
        for end, _ in before:
            if end != START and graph.phone[instance] not in rights[end]:
                rights[end].append(graph.phone[instance])
    for end in graph.final:
        rights[end].append(0)
    out, contexts = _Phones([], [], [], {}), []
    copies: list[dict[int, list[int]]] = []  # per instance: right neighbour -> its copies
    for instance, (phone, before) in enumerate(zip(graph.phone, graph.before, strict=True)):
        copies.append({})
        lefts = dict.fromkeys(0 if end == START else graph.phone[end] for end, _ in before)
        for left in lefts:
            joined: list[tuple[int, float]] = []
            for end, weight in before:
                if end == START:
                    joined += [(START, weight)] if left == 0 else []
                elif graph.phone[end] == left:
                    joined += [(copy, weight) for copy in copies[end][phone]]
            for right in rights[instance]:
                copy = out.add(phone, graph.word[instance], joined)
                contexts.append((left, phone, right))
                copies[instance].setdefault(right, []).append(copy)
                if right == 0:
                    out.final[copy] = graph.final[instance]
    return out, contexts
