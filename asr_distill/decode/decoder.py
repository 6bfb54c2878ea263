"""One utterance's log-likelihoods to words: the beam search over HCLG, its best path and its n best."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr_distill.decode.beam_search import Found, search
from asr_distill.decode.lattice import Lattice, distinct_paths, lattice_of
from asr_distill.decode.tokens import Workspace, new_workspace, search_graph
from asr_distill.errors import UserError
from asr_distill.files import read_text
from asr_distill.lang.fst_arrays import FstArrays


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search, in Kaldi's names and units (costs are natural-log).

    acoustic_scale weighs the log-likelihoods against the graph (1 / Kaldi's LM weight); insertion_penalty is the
    cost added for every word (Kaldi's word_ins_penalty: positive makes for fewer words). nbest above 0 keeps that
    many word sequences of every utterance, no worse than the best by more than lattice_beam.
    """

    beam: float = 13.0
    max_active: int = 7000
    min_active: int = 200
    acoustic_scale: float = 0.1
    insertion_penalty: float = 0.0
    lattice_beam: float = 8.0
    nbest: int = 0

    def __post_init__(self) -> None:
        if not (self.beam > 0 and math.isfinite(self.beam)):
            raise ValueError(f"beam must be above 0, not {self.beam}")
        if not 0 <= self.min_active < self.max_active:
            raise ValueError(f"need 0 <= min_active < max_active, not {self.min_active}, {self.max_active}")
        if not (self.acoustic_scale > 0 and math.isfinite(self.acoustic_scale)):
            raise ValueError(f"acoustic_scale must be above 0, not {self.acoustic_scale}")
        if not math.isfinite(self.insertion_penalty):
            raise ValueError("insertion_penalty must be a number")
        if not (self.lattice_beam > 0 and math.isfinite(self.lattice_beam)) or self.nbest < 0:
            raise ValueError(f"need lattice_beam > 0 and nbest >= 0, not {self.lattice_beam}, {self.nbest}")


@dataclass(frozen=True)
class Hypothesis:
    """The words of one utterance.

    cost is graph_cost + acoustic_scale * acoustic_cost of the best path (graph_cost includes the insertion penalty;
    acoustic_cost is unscaled). reached_final is False where no path through the whole graph survived: the words are
    then the best partial path's (none, and cost 0, where nothing survived). seconds is the search's CPU time on
    one core.
    """

    id: str
    words: tuple[str, ...]
    cost: float
    seconds: float
    frames: int
    reached_final: bool
    graph_cost: float = 0.0
    acoustic_cost: float = 0.0
    forward_seconds: float = 0.0


class NbestPath(NamedTuple):
    """One of an utterance's word sequences, at the costs of its best path (see Hypothesis)."""

    words: tuple[str, ...]
    graph_cost: float
    acoustic_cost: float  # unscaled


class Decoder:
    """One graph, loaded once. `decode` and `decode_nbest` may be called any number of times, from several threads.

    `graph_dir` holds HCLG.fst (input label = pdf + 1, output label = word id) and words.txt. Raises UserError for a
    missing or damaged graph.
    """

    def __init__(self, graph_dir: Path, config: SearchConfig):
        self.config = config
        self.words = read_words(graph_dir / "words.txt")
        arrays = FstArrays.read(graph_dir / "HCLG.fst")
        self.states, self.arcs = arrays.num_states, arrays.num_arcs
        self.num_pdfs = int(arrays.ilabels.max(initial=0))  # log-likelihoods need at least as many columns
        last_word = int(arrays.olabels.max(initial=0))
        if last_word >= len(self.words):
            raise UserError(f"{graph_dir}: HCLG.fst has word id {last_word}, words.txt ends at "
                            f"{len(self.words) - 1}: they are of two languages; compile the graph again")
        self.graph = search_graph(arrays)
        self._idle: list[Workspace] = []  # one for every search at a time

    def with_config(self, config: SearchConfig) -> Decoder:
        """The same graph in memory under other settings."""
        other = copy.copy(self)
        other.config = config
        return other

    def decode(self, log_likelihoods: np.ndarray, id: str = "") -> Hypothesis:
        """Best path for unscaled log-likelihoods, float32 (frames, pdfs).

        Raises UserError where they hold NaN or +infinity, or too few pdfs for the graph.
        """
        started = time.thread_time()
        found = self._search(log_likelihoods, 0.0, id)
        return self.hypothesis(found, len(log_likelihoods), time.thread_time() - started, id)

    def decode_nbest(self, log_likelihoods: np.ndarray, id: str = "") -> tuple[Hypothesis, list[NbestPath]]:
        """The best path, and up to `config.nbest` distinct word sequences within `config.lattice_beam` of it, best
        first (none where no path survived). Raises UserError as `decode`.
        """
        started = time.thread_time()
        lattice, found = self._lattice(log_likelihoods, id)
        paths = distinct_paths(lattice, self.config.nbest, self.config.acoustic_scale) if lattice else []
        named = [NbestPath(self.named(path.words), path.graph_cost, path.acoustic_cost) for path in paths]
        return self.hypothesis(found, len(log_likelihoods), time.thread_time() - started, id), named

    def lattice(self, log_likelihoods: np.ndarray, id: str = "") -> Lattice | None:
        """All paths within `config.lattice_beam` of the best; None where no path survived."""
        return self._lattice(log_likelihoods, id)[0]

    def _lattice(self, log_likelihoods: np.ndarray, id: str) -> tuple[Lattice | None, Found | None]:
        found = self._search(log_likelihoods, self.config.lattice_beam, id)
        if found is None or not found.alive:
            return None, found
        return lattice_of(found.trellis, self.config.acoustic_scale), found

    def _search(self, log_likelihoods: np.ndarray, lattice_beam: float, id: str) -> Found | None:
        """None where there are no frames."""
        if len(log_likelihoods) == 0:
            return None
        matrix = checked(log_likelihoods, self.num_pdfs, id)
        config = self.config
        try:
            work = self._idle.pop()
        except IndexError:  # asked first, another thread might take the last one in between
            work = new_workspace(self.graph)
        found = search(self.graph, work, matrix, config.acoustic_scale, config.insertion_penalty, config.beam,
                       config.max_active, config.min_active, lattice_beam)
        self._idle.append(work)
        return found

    def hypothesis(self, found: Found | None, frames: int, seconds: float, id: str) -> Hypothesis:
        """What a search of so many frames found (None: there was no frame)."""
        if found is None or not found.alive:
            return Hypothesis(id, (), 0.0, seconds, frames, False)
        acoustic_cost = (found.cost - found.graph_cost) / self.config.acoustic_scale
        return Hypothesis(id, self.named(found.words.tolist()), found.cost, seconds, frames, found.reached_final,
                          found.graph_cost, acoustic_cost)

    def named(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Words by their ids."""
        return tuple(self.words[word] for word in ids)


def checked(log_likelihoods: np.ndarray, num_pdfs: int, id: str) -> np.ndarray:
    """The matrix as the compiled search reads it: float32, C order, writable (else it would be compiled anew)."""
    if log_likelihoods.ndim != 2 or log_likelihoods.shape[1] < num_pdfs:
        raise UserError(f"{id or 'utterance'}: the graph needs {num_pdfs} pdfs, the log-likelihoods have shape "
                        f"{log_likelihoods.shape}: model and graph are of two trees")
    if not log_likelihoods.max() < np.inf:  # also NaN, which max() hands on
        raise UserError(f"{id or 'utterance'}: the model's log-likelihoods hold NaN or infinity")
    return np.require(log_likelihoods, np.float32, ["C", "W"])


def read_words(path: Path) -> tuple[str, ...]:
    """words.txt (`word id` a line) as words in id order. Raises UserError where an id is missing or twice there."""
    words: dict[int, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdigit() or int(fields[1]) in words:
            raise UserError(f"{path}:{number}: expected `word id` with a new id, not {line!r}")
        words[int(fields[1])] = fields[0]
    if not words or max(words) != len(words) - 1:
        raise UserError(f"{path}: word ids must be 0, 1, 2 ... without gaps")
    return tuple(words[index] for index in range(len(words)))
