"""A toy recogniser for tests: five words of three-state phones, log-likelihoods without audio, plain Viterbi."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.lang.fst_arrays import FstArrays

PHONES = ("SIL", "a", "b", "c", "d", "e", "f", "g", "h")
LEXICON = {"yes": "ab", "no": "cda", "up": "ef", "down": "dgb", "stop": "hac"}
WORDS = ("<eps>", *LEXICON)
NUM_PDFS = 3 * len(PHONES)


def toy_graph(directory: Path) -> Path:
    """HCLG.fst and words.txt: optional silence, then any word, again and again."""
    directory.mkdir(parents=True, exist_ok=True)
    arcs: list[tuple[int, int, int, float, int]] = []  # source, input label, output label, cost, target
    states = 2  # 0: between words (before silence), 1: before a word

    def phone(source: int, name: str, word: int = 0, cost: float = 0.0) -> int:
        nonlocal states
        for state in range(3):
            label = 3 * PHONES.index(name) + state + 1
            entry = (word, 0.7 + cost) if state == 0 else (0, 0.7)
            arcs.append((source, label, *entry, states))
            arcs.append((states, label, 0, 0.3, states))
            source, states = states, states + 1
        return source

    arcs.append((0, 0, 0, 0.7, 1))
    arcs.append((phone(0, "SIL", cost=0.7), 0, 0, 0.0, 1))
    for number, (word, spelling) in enumerate(LEXICON.items(), 1):
        state = 1
        for position, name in enumerate(spelling):
            state = phone(state, name, *((WORDS.index(word), 1.2 + 0.2 * number) if position == 0 else ()))
        arcs.append((state, 0, 0, 0.0, 0))
    finals = np.full(states, np.inf, np.float32)
    finals[:2] = 0.1, 0.2
    columns = (np.array(column) for column in zip(*arcs, strict=True))
    FstArrays.from_arcs(0, finals, *columns).write(directory / "HCLG.fst")
    (directory / "words.txt").write_text("".join(f"{word} {i}\n" for i, word in enumerate(WORDS)))
    return directory


def utterance(random: np.random.Generator, words: tuple[str, ...], noise: float = 6.0) -> np.ndarray:
    """Unscaled log-likelihoods, float32 (frames, NUM_PDFS), that fit `words`, with noise."""
    phones = ["SIL"]
    for word in words:
        phones += [*LEXICON[word], *(["SIL"] if random.random() < 0.5 else [])]
    pdfs = [3 * PHONES.index(name) + state for name in [*phones, "SIL"] for state in range(3)
            for _ in range(random.integers(2, 6))]
    matrix = random.normal(0, noise, (len(pdfs), NUM_PDFS))
    matrix[np.arange(len(pdfs)), pdfs] += 12
    return matrix.astype(np.float32)


def viterbi(graph: FstArrays, log_likelihoods: np.ndarray, scale: float, penalty: float,
            ) -> tuple[float, tuple[str, ...]]:
    """Best cost and words by dynamic programming over all states, float64, without a beam: the reference."""
    rows = list(zip(graph.sources().tolist(), graph.ilabels.tolist(), graph.olabels.tolist(),
                    graph.weights.astype(float).tolist(), graph.nextstates.tolist(), strict=True))
    best: dict[int, tuple[float, tuple[str, ...]]] = {graph.start: (0.0, ())}

    def follow(old: dict, new: dict, frame: np.ndarray | None) -> bool:
        changed = False
        for source, ilabel, olabel, weight, target in rows:
            if source not in old or (ilabel == 0) != (frame is None):
                continue
            cost, words = old[source]
            cost += weight - (scale * frame[ilabel - 1] if frame is not None else 0)
            if olabel:
                cost, words = cost + penalty, (*words, WORDS[olabel])
            if target not in new or cost < new[target][0] - 1e-12:
                new[target] = (cost, words)
                changed = True
        return changed

    while follow(best, best, None):
        pass
    for frame in log_likelihoods.astype(np.float64):
        fresh: dict[int, tuple[float, tuple[str, ...]]] = {}
        follow(best, fresh, frame)
        while follow(fresh, fresh, None):
            pass
        best = fresh
    return min((cost + float(graph.finals[state]), words) for state, (cost, words) in best.items())


def random_graph(random: np.random.Generator, directory: Path, states: int = 6) -> FstArrays:
    """Word arcs with and without labels, epsilons (forward only) with and without words, several final states."""
    arcs = []
    for source in range(states):
        for target in random.integers(0, states, size=3).tolist():
            arcs.append((source, int(random.integers(1, 5)), int(random.integers(0, 3)), random.random(), target))
        if source < states - 1:
            arcs.append((source, 0, int(random.integers(0, 3)), random.normal(0.3, 0.4),
                         int(random.integers(source + 1, states))))
    finals = np.where(random.random(states) < 0.5, random.random(states), np.inf).astype(np.float32)
    finals[-1] = 0.25
    fst = FstArrays.from_arcs(0, finals, *(np.array(column) for column in zip(*arcs, strict=True)))
    directory.mkdir(exist_ok=True)
    fst.write(directory / "HCLG.fst")
    (directory / "words.txt").write_text("<eps> 0\na 1\nb 2\n")
    return fst


@dataclass(frozen=True)
class ToyUtterance:
    id: str
    seconds: float


class ToyStore:
    """The part of a FrameStore that decoding reads; the frames are the log-likelihoods themselves."""

    def __init__(self, matrices: list[np.ndarray]):
        self.matrices = matrices
        self.utterances = [ToyUtterance(f"utt{index:03d}", 0.01 * len(m)) for index, m in enumerate(matrices)]

    def features(self, index: int, device: torch.device) -> UtteranceFeatures:
        return UtteranceFeatures(torch.from_numpy(self.matrices[index]).to(device))


class ToyEmission:
    """Hands the frames on; counts how often it is asked."""

    num_pdfs = NUM_PDFS

    def __init__(self) -> None:
        self.calls = 0

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        self.calls += 1
        return utterance.raw


def toy_corpus(number: int, noise: float = 6.0, seed: int = 0) -> tuple[ToyStore, dict[str, tuple[str, ...]]]:
    random = np.random.default_rng(seed)
    spoken = [tuple(random.choice(WORDS[1:], size=random.integers(1, 7)).tolist()) for _ in range(number)]
    store = ToyStore([utterance(random, words, noise) for words in spoken])
    return store, {item.id: words for item, words in zip(store.utterances, spoken, strict=True)}
