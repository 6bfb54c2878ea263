"""Which frames an update is made of: single frames, or chunks of contiguous frames of one utterance.

An epoch's order and the chunks' phases are functions of (seed, epoch) alone, so that a run can go on anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.data import TrainingData

EVALUATION_BATCH = 4096  # frames


@dataclass(frozen=True)
class Part:
    """The index-th of `count` contiguous parts of something, as equal as can be."""

    index: int = 0
    count: int = 1

    def of(self, total: int) -> slice:
        """Which of `total` things."""
        return slice(self.index * total // self.count, (self.index + 1) * total // self.count)


WHOLE = Part()


@dataclass(frozen=True)
class Place:
    """Where a part of a batch stands in it. Samples are windows; rows are the frames that the loss counts."""

    first_sample: int
    samples: int  # of the whole batch
    first_row: int
    rows: int  # of the whole batch


@dataclass(frozen=True)
class Batch:
    """What the network gets and what its loss counts: `network(windows, rows)` has one row for each of `frames`.

    A batch may be a part of what an update is made of: see `place`.
    """

    windows: torch.Tensor  # (samples, left + n + right, coefficients)
    frames: torch.Tensor  # int64 (k,): rows in the frame store, each with a target
    rows: torch.Tensor | None  # int64 (k,): their rows among the samples * n; None: all, in order
    place: Place


class Sampler(Protocol):
    """Batches of the frames trained on, epoch after epoch, and of those held out."""

    epoch_updates: int
    frames: int  # trained on in an update, in the mean
    samples: int  # windows that an update is made of

    def batch(self, update: int, part: Part = WHOLE) -> Batch:
        """What an update is made of, or a part of that: nothing else is gathered."""

    def heldout(self, part: Part = WHOLE) -> Iterator[Batch]:
        """All frames held out, or the part-th of every part.count batches of them."""


def sampler_for(network: Network, data: TrainingData, batch: int, chunk: int, dtype: torch.dtype,
                seed: int) -> Sampler:
    """Batches of about `batch` frames in chunks of `chunk`. Raises ValueError where the network's stride forbids it."""
    if chunk % network.stride:
        raise ValueError(f"chunk must be a multiple of the network's stride ({network.stride}), not {chunk}")
    kind = SingleFrames if chunk == 1 else Chunks
    return kind(network, data, batch, chunk, dtype, seed)


class SingleFrames:
    """Frames in random order, each with its window."""

    def __init__(self, network: Network, data: TrainingData, batch: int, chunk: int, dtype: torch.dtype, seed: int):
        self.network, self.data, self.dtype, self.seed = network, data, dtype, seed
        self.frames = self.samples = min(batch, len(data.train))
        # a last, smaller batch is left out: every epoch leaves out others
        self.epoch_updates = len(data.train) // self.frames
        self.order = torch.empty(0, dtype=torch.int64)
        self.epoch = -1

    def batch(self, update: int, part: Part = WHOLE) -> Batch:
        epoch, position = divmod(update, self.epoch_updates)
        if epoch != self.epoch:
            shuffle = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.data.train))
            self.order, self.epoch = self.data.train[torch.from_numpy(shuffle)].to(self.data.device), epoch
        return self._windows(self.order[position * self.frames:(position + 1) * self.frames], part)

    def heldout(self, part: Part = WHOLE) -> Iterator[Batch]:
        batches = self.data.heldout.to(self.data.device).split(EVALUATION_BATCH)
        yield from map(self._windows, batches[part.index::part.count])

    def _windows(self, frames: torch.Tensor, part: Part = WHOLE) -> Batch:
        here = part.of(len(frames))
        place = Place(here.start, len(frames), here.start, len(frames))
        own = frames[here]
        return Batch(self.data.windows(own, self.network.left, self.network.right, self.dtype), own, None, place)


class Chunks:
    """Chunks that cover each utterance once an epoch, from a random phase on.

    A chunk may hang over its utterance's ends (the edge frames repeated) and over frames that are not trained on: these
    are no rows of the batch.
    """

    def __init__(self, network: Network, data: TrainingData, batch: int, chunk: int, dtype: torch.dtype, seed: int):
        self.network, self.data, self.dtype, self.seed, self.chunk = network, data, dtype, seed, chunk
        self.spans, self.heldout_spans = (_spans(frames, data.offsets) for frames in (data.train, data.heldout))
        self.trained, self.held = (_chosen(frames, data.num_frames) for frames in (data.train, data.heldout))
        chunks = int(_pieces(self.spans, chunk).sum())
        self.samples = min(max(1, batch // chunk), chunks)
        self.epoch_updates = chunks // self.samples
        self.frames = round(len(data.train) * self.samples / chunks)
        self.order = np.empty((0, 3), np.int64)
        self.epoch = -1

    def batch(self, update: int, part: Part = WHOLE) -> Batch:
        epoch, position = divmod(update, self.epoch_updates)
        if epoch != self.epoch:
            random = np.random.default_rng((self.seed, 0, epoch))
            chunks = _cut(self.spans, self.chunk, random)
            self.order, self.epoch = chunks[random.permutation(len(chunks))], epoch
        return self._windows(self.order[position * self.samples:(position + 1) * self.samples], self.trained, part)

    def heldout(self, part: Part = WHOLE) -> Iterator[Batch]:
        chunks = _cut(self.heldout_spans, self.chunk, None)
        samples = max(1, EVALUATION_BATCH // self.chunk)
        for begin in range(part.index * samples, len(chunks), part.count * samples):
            yield self._windows(chunks[begin:begin + samples], self.held)

    def _windows(self, chunks: np.ndarray, wanted: np.ndarray, part: Part = WHOLE) -> Batch:
        starts, begins, ends = chunks.T
        frames = starts[:, None] + np.arange(self.chunk)  # (samples, chunk)
        inside = (frames >= begins[:, None]) & (frames < ends[:, None])
        counts = inside & wanted[np.where(inside, frames, 0)]
        here = part.of(len(chunks))
        place = Place(here.start, len(chunks), int(counts[:here.start].sum()), int(counts.sum()))
        frames, counted = frames[here], np.flatnonzero(counts[here])
        windows = self.data.chunk_windows(torch.from_numpy(chunks[here]), self.chunk, self.network.left,
                                          self.network.right, self.dtype)
        rows = None if len(counted) == frames.size else torch.from_numpy(counted).to(self.data.device)
        return Batch(windows, torch.from_numpy(frames.ravel()[counted]).to(self.data.device), rows, place)


def _chosen(frames: torch.Tensor, count: int) -> np.ndarray:
    chosen = np.zeros(count, bool)
    chosen[frames.numpy()] = True
    return chosen


def _spans(frames: torch.Tensor, offsets: np.ndarray) -> np.ndarray:
    """int64 (utterances with such frames, 4): first frame and end of the wanted ones, first and end of all."""
    rows = frames.numpy()  # in order
    owners, first = np.unique(np.searchsorted(offsets, rows, "right") - 1, return_index=True)
    last = np.append(first, len(rows))[1:] - 1
    return np.stack([rows[first], rows[last] + 1, offsets[owners], offsets[owners + 1]], 1)


def _pieces(spans: np.ndarray, chunk: int) -> np.ndarray:
    """Chunks that each span takes."""
    return -(-(spans[:, 1] - spans[:, 0]) // chunk)


def _cut(spans: np.ndarray, chunk: int, random: np.random.Generator | None) -> np.ndarray:
    """int64 (chunks, 3): the chunk's first frame, the utterance's first frame and end.

    As few chunks as cover a span; what they are longer is split at random between its two ends.
    """
    pieces = _pieces(spans, chunk)
    slack = pieces * chunk - (spans[:, 1] - spans[:, 0])
    phase = random.integers(0, slack + 1) if random is not None else np.zeros_like(slack)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of a chunk in its utterance
    starts = np.repeat(spans[:, 0] - phase, pieces) + number * chunk
    return np.stack([starts, np.repeat(spans[:, 2], pieces), np.repeat(spans[:, 3], pieces)], 1)
