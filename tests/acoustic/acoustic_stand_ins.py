"""Synthetic speech for the tests of acoustic and distill: utterances of drifting states with Gaussian frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from asr_distill.features.cmvn import Cmvn, CmvnStats
from asr_distill.features.store import FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.files import write_array
from asr_distill.hmm.align import Alignment


def store_of(utterances: list[np.ndarray], directory: Path | None = None) -> FrameStore:
    """A frame store of the given frames; without a directory its files are gone, its memory map lives on."""
    if directory is None:
        with tempfile.TemporaryDirectory() as name:
            return store_of(utterances, Path(name))
    halves = [frames.astype(np.float16) for frames in utterances]
    write_array(directory / "frames.npy", np.concatenate(halves))
    write_store_index(
        directory, [Utterance(f"utt{i}", f"spk{i % 3}", (f"WORD{i}",), len(h) / 100) for i, h in enumerate(halves)],
        [len(h) for h in halves], np.stack([pack_stats(CmvnStats.of(h)) for h in halves]), {"config": {}})
    return FrameStore(directory)


def synthetic(utterances: int = 12, frames: int = 60, pdfs: int = 8, coefficients: int = 6, *, noise: float = 1.0,
              seed: int = 0, unaligned: tuple[int, ...] = (),
              directory: Path | None = None) -> tuple[FrameStore, Alignment, Cmvn]:
    """States that last a few frames, each with its own mean; the same `pdfs` and coefficients: the same means."""
    means = np.random.default_rng(99).normal(size=(pdfs, coefficients)) * 1.5
    random = np.random.default_rng(seed)
    spoken, labels = [], []
    for index in range(utterances):
        length = frames + index % 5
        states = np.repeat(random.integers(0, pdfs, length), 4)[:length]
        spoken.append(means[states] + noise * random.normal(size=(length, coefficients)))
        labels.append(np.full(length, -1) if index in unaligned else states)
    store = store_of(spoken, directory)
    pdf_ids = np.concatenate(labels).astype(np.int32)
    aligned = np.array([index not in unaligned for index in range(utterances)])
    alignment = Alignment(pdf_ids, np.zeros(len(pdf_ids), np.int16), np.zeros(len(pdf_ids), np.int8), aligned, pdfs)
    return store, alignment, Cmvn("global", store.total_stats)
