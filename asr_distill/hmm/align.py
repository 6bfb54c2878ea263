"""Alignments: which pdf, phone and state every frame belongs to; word times of one utterance."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.emission import EmissionModel, Scorer, from_matrix, scorer_of
from asr_distill.errors import UserError
from asr_distill.executor import Context, Executor, named
from asr_distill.features.store import FrameStore
from asr_distill.files import read_array, read_json, write_array, write_json
from asr_distill.hmm.aligner import AlignConfig, Aligner
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import SILENCE_PHONE, Lang
from asr_distill.progress import Progress

__all__ = ["AlignConfig", "Alignment", "WordSpan", "align_store", "align_words"]

_BLOCK = 2048  # utterances whose graphs are in memory at once
_JOB = 256  # at most, of a job that an executor is given
log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class Alignment:
    """One row per frame of a frame store, in its order; -1 where the utterance could not be aligned."""

    pdf_ids: np.ndarray  # int32 (num_frames,)
    phone_ids: np.ndarray  # int16 (num_frames,), 1-based as in Lang.phones
    states: np.ndarray  # int8 (num_frames,), emitting state inside the phone, from 0
    aligned: np.ndarray  # bool (utterances,)
    num_pdfs: int
    figures: dict[str, Any] = field(default_factory=dict)  # of align_store; kept in alignment.json

    def __post_init__(self) -> None:
        if not len(self.pdf_ids) == len(self.phone_ids) == len(self.states):
            raise ValueError("pdf_ids, phone_ids and states must have one row per frame")

    def save(self, directory: Path) -> None:
        """Write pdf_ids.npy, phone_ids.npy, states.npy, aligned.npy and, last, alignment.json."""
        for name in ("pdf_ids", "phone_ids", "states", "aligned"):
            write_array(directory / f"{name}.npy", getattr(self, name))
        write_json(directory / "alignment.json", {
            "num_pdfs": self.num_pdfs, "num_frames": len(self.pdf_ids), "utterances": len(self.aligned),
            "figures": self.figures,
        })

    @classmethod
    def load(cls, directory: Path) -> Alignment:
        """Raises UserError where a file is missing or they do not belong together."""
        facts = read_json(directory / "alignment.json")
        arrays = {name: read_array(directory / f"{name}.npy")
                  for name in ("pdf_ids", "phone_ids", "states", "aligned")}
        try:
            alignment = cls(arrays["pdf_ids"], arrays["phone_ids"], arrays["states"], arrays["aligned"],
                            int(facts["num_pdfs"]), dict(facts["figures"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory}: damaged alignment ({error!r}); make it again") from None
        if len(alignment.pdf_ids) != facts["num_frames"] or len(alignment.aligned) != facts["utterances"]:
            raise UserError(f"{directory}: damaged alignment (sizes differ from alignment.json); make it again")
        return alignment


def align_store(emission: EmissionModel, store: FrameStore, hmm: HmmModel, lang: Lang, config: AlignConfig,
                device: torch.device, label: str = "align", *,
                transcripts: Mapping[str, Sequence[str]] | None = None, executor: Executor | None = None) -> Alignment:
    """Align every utterance of a frame store with its transcript (or its words in `transcripts`, by utterance id).

    `executor`: does it in place of this process's threads (on a CPU with the same result, bit for bit). Figures:
    log_likelihood_per_frame (of the aligned pdfs), share_aligned (of frames), silence_share (of the aligned frames),
    failed (ids of utterances with too few frames for their words; also logged).
    """
    alignment = Alignment(np.full(store.num_frames, -1, np.int32), np.full(store.num_frames, -1, np.int16),
                          np.full(store.num_frames, -1, np.int8), np.zeros(len(store.utterances), bool),
                          hmm.num_pdfs)
    lengths = np.diff(store.offsets)
    longest_first = np.argsort(-lengths, kind="stable").tolist()
    texts = [transcripts[utterance.id] if transcripts is not None else utterance.words
             for utterance in store.utterances]
    acoustic = np.zeros(len(store.utterances))
    context = Context(_Aligning, (emission, store, hmm, lang, config, device))
    with Progress(label, store.num_frames, "frames") as progress:
        for index, path in _aligned(context, [(index, texts[index]) for index in longest_first], executor, label):
            progress.update(int(lengths[index]))
            if path is None:
                continue
            rows = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
            alignment.pdf_ids[rows] = path.pdfs
            alignment.phone_ids[rows] = path.phones
            alignment.states[rows] = path.states
            alignment.aligned[index] = True
            acoustic[index] = path.acoustic
    failed = [store.utterances[i].id for i in np.flatnonzero(~alignment.aligned)]
    report_failed(label, failed, len(store.utterances))
    frames = int((alignment.pdf_ids >= 0).sum())
    silence = int((alignment.phone_ids == hmm.phones.index(SILENCE_PHONE) + 1).sum())
    alignment.figures.update(
        log_likelihood_per_frame=float(acoustic.sum()) / max(frames, 1),
        share_aligned=frames / max(store.num_frames, 1), silence_share=silence / max(frames, 1), failed=failed)
    return alignment


@dataclass(frozen=True)
class _AlignedPath:
    """An utterance's rows of an Alignment."""

    pdfs: np.ndarray  # int32 (frames,)
    phones: np.ndarray  # int16 (frames,)
    states: np.ndarray  # int8 (frames,)
    acoustic: float  # sum of its log-likelihoods


_Block = list[tuple[int, Sequence[str]]]  # index in the store, words
_Found = tuple[int, _AlignedPath | None]


class _Aligning:
    """What aligns a store's utterances: in this process, or as the context of a worker."""

    def __init__(self, emission: EmissionModel, store: FrameStore, hmm: HmmModel, lang: Lang, config: AlignConfig,
                 device: torch.device):
        self._emission, self._store, self._device = emission, store, device
        self._compiler, self._aligner = GraphCompiler(hmm, lang), Aligner(hmm, config, device)

    def align(self, block: _Block) -> Iterator[_Found]:
        """None where the frames are too few."""
        graphs = []
        for index, words in block:
            with named(self._store.utterances[index].id):
                graphs.append(self._compiler.compile(words))

        def scorer(at: int) -> Scorer:
            index = block[at][0]
            with named(self._store.utterances[index].id):
                return scorer_of(self._emission, self._store.features(index, self._device))

        frames = [int(self._store.offsets[index + 1] - self._store.offsets[index]) for index, _ in block]
        for at, path in self._aligner.align(graphs, frames, scorer):
            graph = graphs[at]
            yield block[at][0], None if path is None else _AlignedPath(
                graph.pdf[path.states].astype(np.int32), graph.phone[path.states].astype(np.int16),
                graph.state[path.states].astype(np.int8), path.acoustic)


def _align_block(aligning: _Aligning, block: _Block) -> list[_Found]:
    return list(aligning.align(block))


def _aligned(context: Context, utterances: _Block, executor: Executor | None, label: str) -> Iterator[_Found]:
    """In any order. `utterances`: the longest first."""
    if executor is None:
        aligning = context.build(*context.arguments)
        for begin in range(0, len(utterances), _BLOCK):
            yield from aligning.align(utterances[begin : begin + _BLOCK])
        return
    # as many jobs as make for even progress and few losses; every one with long and short utterances
    jobs = max(min(len(utterances), 8 * executor.workers), -(-len(utterances) // _JOB))
    blocks = (utterances[first::jobs] for first in range(jobs))
    for _, found in executor.run(_align_block, blocks, context=context,
                                 name=lambda block: f"{label}: {len(block)} utterances"):
        yield from found


def report_failed(label: str, failed: Sequence[str], total: int) -> None:
    """Log the utterances that could not be aligned. Raises UserError where none could."""
    if failed and len(failed) == total:
        raise UserError(f"{label}: none of the {total} utterances has enough frames for its words: do audio and "
                        "transcripts belong together?")
    if failed:
        log.warning("%s: %d of %d utterances have too few frames for their words and are left out: %s", label,
                    len(failed), total, " ".join(failed))


@dataclass(frozen=True)
class WordSpan:
    """Where a word is spoken, and how sure the model is of it."""

    word: str
    start_frame: int
    end_frame: int  # exclusive
    confidence: float  # geometric mean over its frames of the aligned pdf's posterior, in (0, 1]


def align_words(log_likelihoods: torch.Tensor, words: Sequence[str], hmm: HmmModel, lang: Lang,
                config: AlignConfig) -> list[WordSpan]:
    """Word times of one utterance from its log-likelihoods (frames, pdfs).

    Raises UserError where the frames are too few for the words.
    """
    graph = GraphCompiler(hmm, lang).compile(words)
    aligner = Aligner(hmm, config, log_likelihoods.device)
    ((_, path),) = aligner.align([graph], [len(log_likelihoods)], lambda _: from_matrix(log_likelihoods))
    if path is None:
        raise UserError(f"{len(log_likelihoods)} frames are too few for the words '{' '.join(words)}'")
    pdfs = torch.as_tensor(graph.pdf[path.states], device=log_likelihoods.device).long()
    posteriors = log_likelihoods.log_softmax(1).gather(1, pdfs.unsqueeze(1)).squeeze(1).cpu().numpy()
    owner = graph.word[path.states]  # (frames,)
    spans = []
    for index, word in enumerate(words):
        frames = np.flatnonzero(owner == index)
        spans.append(WordSpan(word, int(frames[0]), int(frames[-1]) + 1, float(np.exp(posteriors[frames].mean()))))
    return spans
