"""Beam search of one utterance: Kaldi's FasterDecoder over HCLG, at C++ speed.

The graph's input labels are pdf + 1, so kaldi_decoder's DecodableCtc reads the log-likelihood matrix as it is.
kaldi_decoder holds Python's interpreter lock while it searches (two threads take as long as one): parallel
decoding means processes, each with its own graph.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import read_text
from asr_distill.kaldi import kaldi_decoder, kaldifst
from asr_distill.lang.fst_arrays import FstArrays


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search, in Kaldi's names and units (costs are natural-log).

    acoustic_scale weighs the log-likelihoods against the graph (1 / Kaldi's LM weight); insertion_penalty is the
    cost added for every word (Kaldi's word_ins_penalty: positive makes for fewer words).
    """

    beam: float = 13.0
    max_active: int = 7000
    min_active: int = 200
    acoustic_scale: float = 0.1
    insertion_penalty: float = 0.0

    def __post_init__(self) -> None:
        if not (self.beam > 0 and math.isfinite(self.beam)):
            raise ValueError(f"beam must be above 0, not {self.beam}")
        if not 0 <= self.min_active < self.max_active:
            raise ValueError(f"need 0 <= min_active < max_active, not {self.min_active}, {self.max_active}")
        if not (self.acoustic_scale > 0 and math.isfinite(self.acoustic_scale)):
            raise ValueError(f"acoustic_scale must be above 0, not {self.acoustic_scale}")
        if not math.isfinite(self.insertion_penalty):
            raise ValueError("insertion_penalty must be a number")


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


class Decoder:
    """One graph, loaded once; `decode` may be called any number of times, from one thread.

    `graph_dir` holds HCLG.fst (input label = pdf + 1, output label = word id) and words.txt. An insertion penalty is
    written into the loaded graph: 2 s for nine million arcs. Raises UserError for a missing or damaged graph.
    """

    def __init__(self, graph_dir: Path, config: SearchConfig):
        self.config = config
        self.words = read_words(graph_dir / "words.txt")
        arrays = FstArrays.read(graph_dir / "HCLG.fst")
        self.states, self.arcs = arrays.num_states, arrays.num_arcs
        self.num_pdfs = int(arrays.ilabels.max(initial=0))  # log-likelihoods need at least as many columns
        last_word = int(arrays.olabels.max(initial=0))
        del arrays  # as large as the graph itself
        if last_word >= len(self.words):
            raise UserError(f"{graph_dir}: HCLG.fst has word id {last_word}, words.txt ends at "
                            f"{len(self.words) - 1}: they are of two languages; compile the graph again")
        with penalised_graph(graph_dir, config.insertion_penalty) as directory:
            # Arcs of a const FST lie in one piece: about 15 % faster than the vector FST. The decoder does not
            # keep its FST alive, so this object does.
            self.fst = kaldifst.StdConstFst(kaldifst.StdVectorFst.read(str(directory / "HCLG.fst")))
        self.options = _options(config)

    def with_config(self, config: SearchConfig) -> Decoder:
        """The same graph in memory under other settings. Raises ValueError for another insertion penalty."""
        if config.insertion_penalty != self.config.insertion_penalty:
            raise ValueError("the insertion penalty lies in the graph: load it again")
        other = copy.copy(self)
        other.config = config
        other.options = _options(config)
        return other

    def decode(self, log_likelihoods: np.ndarray, id: str = "") -> Hypothesis:
        """Best path for unscaled log-likelihoods, float32 (frames, pdfs).

        Raises UserError where they hold NaN or +infinity, or too few pdfs for the graph.
        """
        frames = len(log_likelihoods)
        if frames == 0:
            return Hypothesis(id, (), 0.0, 0.0, 0, False)
        decodable = scaled_decodable(log_likelihoods, self.config.acoustic_scale, self.num_pdfs, id)
        started = time.thread_time()
        search = kaldi_decoder.FasterDecoder(self.fst, self.options)
        search.decode(decodable)
        reached_final = search.reached_final()
        alive, path = search.get_best_path()
        seconds = time.thread_time() - started
        if not alive:  # the graph has no path as long as the utterance
            return Hypothesis(id, (), 0.0, seconds, frames, False)
        _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
        return Hypothesis(id, tuple(self.words[label] for label in labels), weight.value1 + weight.value2, seconds,
                          frames, reached_final, weight.value1, weight.value2 / self.config.acoustic_scale)


def _options(config: SearchConfig) -> kaldi_decoder.FasterDecoderOptions:
    return kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active,
                                              min_active=config.min_active)


def scaled_decodable(log_likelihoods: np.ndarray, scale: float, num_pdfs: int, id: str) -> kaldi_decoder.DecodableCtc:
    """The matrix, checked and scaled, as kaldi_decoder reads it (it checks nothing itself and would read past the end).

    Minus infinity (an impossible pdf) is lowered to a finite cost that no beam reaches.
    """
    if log_likelihoods.ndim != 2 or log_likelihoods.shape[1] < num_pdfs:
        raise UserError(f"{id or 'utterance'}: the graph needs {num_pdfs} pdfs, the log-likelihoods have shape "
                        f"{log_likelihoods.shape}: model and graph are of two trees")
    scaled = np.multiply(log_likelihoods, np.float32(scale), dtype=np.float32, order="C")  # (frames, pdfs)
    if not scaled.max() < np.inf:  # also NaN, which max() hands on
        raise UserError(f"{id or 'utterance'}: the model's log-likelihoods hold NaN or infinity")
    return kaldi_decoder.DecodableCtc(np.maximum(scaled, np.float32(-1e6), out=scaled))


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


@contextmanager
def penalised_graph(graph_dir: Path, penalty: float) -> Iterator[Path]:
    """The graph directory itself, or (penalty not 0) a temporary copy with the penalty on every word arc.

    A path leaves one output label for every word, so this is exactly Kaldi's `lattice-add-penalty
    --word-ins-penalty`, applied during the search.
    """
    if penalty == 0:
        yield graph_dir
        return
    with tempfile.TemporaryDirectory(prefix="asr_distill_") as name:
        changed = Path(name)
        shutil.copyfile(graph_dir / "words.txt", changed / "words.txt")
        arrays = FstArrays.read(graph_dir / "HCLG.fst")
        arrays.weights[arrays.olabels != 0] += np.float32(penalty)
        arrays.write(changed / "HCLG.fst")
        yield changed
