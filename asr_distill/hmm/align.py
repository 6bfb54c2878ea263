"""Alignments: which pdf, phone and state every frame belongs to; word times of one utterance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.emission import EmissionModel, Scorer, from_matrix, scorer_of
from asr_distill.errors import UserError
from asr_distill.features.store import FrameStore
from asr_distill.files import read_array, read_json, write_array, write_json
from asr_distill.hmm.aligner import AlignConfig, Aligner
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import HmmModel
from asr_distill.lang.lang import SILENCE_PHONE, Lang
from asr_distill.progress import Progress

__all__ = ["AlignConfig", "Alignment", "WordSpan", "align_store", "align_words"]

_BLOCK = 2048  # utterances whose graphs are in memory at once
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
                transcripts: Mapping[str, Sequence[str]] | None = None) -> Alignment:
    """Align every utterance of a frame store with its transcript (or its words in `transcripts`, by utterance id).

    Figures: log_likelihood_per_frame (of the aligned pdfs), share_aligned (of frames), silence_share (of the
    aligned frames), failed (ids of utterances with too few frames for their words; also logged).
    """
    compiler, aligner = GraphCompiler(hmm, lang), Aligner(hmm, config, device)
    alignment = Alignment(np.full(store.num_frames, -1, np.int32), np.full(store.num_frames, -1, np.int16),
                          np.full(store.num_frames, -1, np.int8), np.zeros(len(store.utterances), bool),
                          hmm.num_pdfs)
    lengths = np.diff(store.offsets)
    longest_first = np.argsort(-lengths, kind="stable").tolist()
    acoustic = 0.0
    with Progress(label, store.num_frames, "frames") as progress:
        for begin in range(0, len(longest_first), _BLOCK):
            block = longest_first[begin : begin + _BLOCK]
            graphs = [compiler.compile(transcripts[store.utterances[i].id] if transcripts is not None
                                       else store.utterances[i].words) for i in block]

            def scorer(at: int, block: list[int] = block) -> Scorer:
                return scorer_of(emission, store.features(block[at], device))

            for at, path in aligner.align(graphs, lengths[block].tolist(), scorer):
                index = block[at]
                progress.update(int(lengths[index]))
                if path is None:
                    continue
                rows = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
                alignment.pdf_ids[rows] = graphs[at].pdf[path.states]
                alignment.phone_ids[rows] = graphs[at].phone[path.states]
                alignment.states[rows] = graphs[at].state[path.states]
                alignment.aligned[index] = True
                acoustic += path.acoustic
    failed = [store.utterances[i].id for i in np.flatnonzero(~alignment.aligned)]
    report_failed(label, failed, len(store.utterances))
    frames = int((alignment.pdf_ids >= 0).sum())
    silence = int((alignment.phone_ids == hmm.phones.index(SILENCE_PHONE) + 1).sum())
    alignment.figures.update(
        log_likelihood_per_frame=acoustic / max(frames, 1), share_aligned=frames / max(store.num_frames, 1),
        silence_share=silence / max(frames, 1), failed=failed)
    return alignment


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
