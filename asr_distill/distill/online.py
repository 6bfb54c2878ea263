"""Soft targets of which nothing is stored: the teachers are asked about the frames of every batch.

A network is asked about runs of contiguous frames, each cut at its own grid's steps from the utterance's beginning on:
so the posteriors are those that it gives for whole utterances. Batches of chunks (trainer.chunk) cost a teacher little
more than whole utterances do; single frames cost it its whole context each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.data import home_for
from asr_distill.acoustic.ensemble import Ensemble, mean_log_posteriors
from asr_distill.acoustic.losses import RowLoss
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.precision import choose_precision
from asr_distill.distill.config import DistillConfig, SoftTargetConfig
from asr_distill.distill.losses import soft_cross_entropy_rows
from asr_distill.distill.mixed_targets import MixedTargets
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn
from asr_distill.files import read_json, write_json

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore

PIECE_ROWS = 1 << 16  # frames, context and all, that a teacher is given at once
log = logging.getLogger("asr_distill")


@dataclass(frozen=True)
class Runs:
    """Stretches of contiguous frames of a batch, each inside one utterance: int64 (runs,) each."""

    starts: np.ndarray  # first frame
    lengths: np.ndarray
    begins: np.ndarray  # first frame of the utterance
    ends: np.ndarray  # its end

    @staticmethod
    def of(frames: np.ndarray, offsets: np.ndarray) -> Runs:
        """Of frames int64 (batch,), in their order."""
        owners = np.searchsorted(offsets, frames, "right") - 1
        first = np.flatnonzero(np.r_[True, (np.diff(frames) != 1) | (np.diff(owners) != 0)])
        lengths = np.diff(np.r_[first, len(frames)])
        return Runs(frames[first], lengths, offsets[owners[first]], offsets[owners[first] + 1])


class Teacher(Protocol):
    """Whoever says log-posteriors of some frames of a store."""

    def log_posteriors(self, runs: Runs, temperature: float) -> torch.Tensor:
        """float32 (frames of the runs, pdfs)."""


class NetworkTeacher:
    """A network, asked about windows of the normalised frames that it hears."""

    def __init__(self, model: AcousticModel, rows: torch.Tensor):
        self.network, self.rows = model.network, rows

    @torch.no_grad()
    def log_posteriors(self, runs: Runs, temperature: float) -> torch.Tensor:
        network, stride = self.network, self.network.stride
        early = (runs.starts - runs.begins) % stride  # frames since the last step of the grid
        typical = int(np.median(runs.lengths + early))
        length = -(-typical // stride) * stride  # of a piece
        pieces = -(-(runs.lengths + early) // length)
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of a piece in its run
        starts = np.repeat(runs.starts - early, pieces) + number * length
        begins, ends = np.repeat(runs.begins, pieces), np.repeat(runs.ends, pieces)
        # rows of the batch among all pieces' frames
        within = np.arange(runs.lengths.sum()) - np.repeat(np.cumsum(runs.lengths) - runs.lengths, runs.lengths)
        wanted = within + np.repeat((np.cumsum(pieces) - pieces) * length + early, runs.lengths)
        step = max(1, PIECE_ROWS // (length + network.left + network.right))
        parts = []
        for at in range(0, len(starts), step):
            here = slice(at, at + step)
            low, high = np.searchsorted(wanted, [at * length, (at + step) * length])
            frames = starts[here, None] + np.arange(-network.left, length + network.right)
            frames = np.clip(frames, begins[here, None], ends[here, None] - 1)  # (pieces, window)
            index = torch.from_numpy(frames.ravel()).to(self.rows.device)
            windows = self.rows.index_select(0, index).view(*frames.shape, -1)
            rows = torch.from_numpy(wanted[low:high] - at * length).to(network.device)
            parts.append(network(windows.to(network.device, network.dtype), rows).float())
        return torch.log_softmax(torch.cat(parts) / temperature, 1)


class AnyTeacher:
    """Any other model, asked about whole utterances: those that the batch has frames of."""

    def __init__(self, model: PosteriorModel, store: FrameStore, device: torch.device):
        self.model, self.store, self.device = model, store, device

    @torch.no_grad()
    def log_posteriors(self, runs: Runs, temperature: float) -> torch.Tensor:
        parts, heard = [], {}
        for start, length, begin in zip(runs.starts, runs.lengths, runs.begins, strict=True):
            if begin not in heard:
                index = int(np.searchsorted(self.store.offsets, begin, "right")) - 1
                heard[begin] = self.model.log_posteriors(self.store.features(index, self.device), temperature)
            parts.append(heard[begin][start - begin:start - begin + length].to(self.device))
        return torch.cat(parts)


class OnlineTargets(MixedTargets):
    """The ensemble's posteriors of a batch's frames; pdf_ids: see MixedTargets.

    store: what the teachers hear; `Cmvn.stream` says of each of them which of its frames. rows: as of StoredTargets
    (they lead from a frame to its row in `store`). settings: temperature and precision are used.
    """

    def __init__(self, ensemble: Ensemble, store: FrameStore, settings: SoftTargetConfig, config: DistillConfig,
                 pdf_ids: torch.Tensor | None, device: torch.device, *, rows: np.ndarray | None = None):
        super().__init__(settings.temperature, config, pdf_ids, ensemble.num_pdfs)
        frames = store.num_frames if rows is None else len(rows)
        if pdf_ids is not None and len(pdf_ids) != frames:
            raise UserError(f"{store.directory}: {frames} frames but the alignment has {len(pdf_ids)}: align this "
                            "store again")
        self.mean, self.weights = ensemble.mean, ensemble.weights
        self.offsets, self.rows = np.asarray(store.offsets, np.int64), rows
        dtype = choose_precision(settings.precision, device).dtype
        self.teachers = list(_teachers(ensemble, store, dtype, device))
        self.device = device

    @staticmethod
    def open(directory: Path, store: FrameStore, settings: SoftTargetConfig, config: DistillConfig,
             pdf_ids: torch.Tensor | None, device: torch.device, *, rows: np.ndarray | None = None) -> OnlineTargets:
        """From a directory of save_ensemble. Raises UserError where it is incomplete."""
        return OnlineTargets(load_ensemble(directory, device), store, settings, config, pdf_ids, device, rows=rows)

    def to(self, device: torch.device) -> OnlineTargets:
        """The same; teachers stay on the device that they were given. Raises ValueError for another."""
        if device != self.device:
            raise ValueError(f"these teachers are on {self.device}, not on {device}")
        return super().to(device)

    def log_posteriors(self, frames: torch.Tensor) -> torch.Tensor:
        """The ensemble's, float32 (batch, pdfs), of frames int64 (batch,)."""
        asked = frames.cpu().numpy()
        runs = Runs.of(asked if self.rows is None else self.rows[asked], self.offsets)
        each = (teacher.log_posteriors(runs, self.temperature) for teacher in self.teachers)
        return mean_log_posteriors(each, self.mean, self.weights)

    def soft_loss(self, frames: torch.Tensor, dtype: torch.dtype) -> RowLoss:
        return soft_cross_entropy_rows(self.log_posteriors(frames).exp_(), self.temperature)


def _teachers(ensemble: Ensemble, store: FrameStore, dtype: torch.dtype, device: torch.device) -> Iterator[Teacher]:
    heard: list[tuple[Cmvn, torch.Tensor]] = []  # teachers of one normalisation share their frames
    for model in ensemble.models:
        if not isinstance(model, AcousticModel):
            yield AnyTeacher(model, store, device)
            continue
        rows = next((rows for cmvn, rows in heard if cmvn.to_dict() == model.cmvn.to_dict()), None)
        if rows is None:
            rows = _normalised(store, model.cmvn, dtype, device)
            heard.append((model.cmvn, rows))
        yield NetworkTeacher(model.cast(dtype), rows)


def _normalised(store: FrameStore, cmvn: Cmvn, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """All frames of the store as a model of this normalisation hears them, (num_frames, coefficients)."""
    size = store.num_frames * cmvn.dimension * dtype.itemsize
    rows = torch.empty(store.num_frames, cmvn.dimension, dtype=dtype, device=home_for(size, device))
    for index in range(len(store.offsets) - 1):
        begin, end = int(store.offsets[index]), int(store.offsets[index + 1])
        rows[begin:end] = cmvn.apply(store.features(index, device)).to(rows.device, dtype)
    return rows


def save_ensemble(ensemble: Ensemble, out: Path) -> dict[str, object]:
    """Keep an ensemble of networks in `out`, for `OnlineTargets.open`: teacherN/ each and, last, ensemble.json.

    Raises UserError where a model is none of our networks.
    """
    for number, model in enumerate(ensemble.models, 1):
        if not isinstance(model, AcousticModel):
            raise UserError(f"online distillation: teacher {number} is no network of this package; store its "
                            "posteriors (distill.online=false)")
        model.save(out / f"teacher{number}")
    facts = {"mean": ensemble.mean, "weights": list(ensemble.weights), "teachers": len(ensemble.models)}
    write_json(out / "ensemble.json", facts)
    return {"form": "online", "bytes_per_frame": 0, **facts}


def load_ensemble(directory: Path, device: torch.device) -> Ensemble:
    """What save_ensemble kept. Raises UserError where a file is missing or damaged."""
    facts = read_json(directory / "ensemble.json")
    try:
        models = [AcousticModel.load(directory / f"teacher{number}", device)
                  for number in range(1, facts["teachers"] + 1)]
        return Ensemble(models, facts["mean"], facts["weights"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{directory}: damaged ensemble ({error}); run the stage that wrote it again") from None
