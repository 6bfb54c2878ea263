"""Training frames in device memory, gathered as context windows by frame index: no Python per utterance in the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr_distill.acoustic.config import DataConfig
from asr_distill.acoustic.spread import spread_alignment
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, Stream
from asr_distill.features.views import JoinedStores

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore
    from asr_distill.hmm.align import Alignment

# Share of a GPU's free memory that frames may take; the rest is the network's.
DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class TrainingData:
    """Normalised frames of one split with edges repeated, and which of them are trained on.

    A frame is named by its row in the frame store. In `rows` every utterance carries `left` copies of its first
    frame and `right` copies of its last, so that each window is one contiguous piece and never leaves its utterance.
    """

    rows: torch.Tensor  # (num_frames + utterances * (left + right), coefficients), on the device where it fits
    begins: torch.Tensor  # int64 (num_frames,): row where the frame's widest window begins
    pdf_ids: torch.Tensor  # int64 (num_frames,) on `device`, -1 where not aligned
    train: torch.Tensor  # int64, CPU: frames trained on, in order
    heldout: torch.Tensor  # int64, CPU: frames held out, in order
    left: int
    right: int
    num_pdfs: int
    device: torch.device
    offsets: np.ndarray  # int64 (utterances + 1,): frames of utterance i are offsets[i]:offsets[i + 1]
    stream: Stream = "raw"  # what the coefficients are
    image: tuple[int, int] | None = None  # height and width where a frame is an image, its rows side by side
    target_rows: np.ndarray | None = None  # int64 (num_frames,): rows of the soft targets; None: the frames' own
    fbank: Mapping[str, Any] = field(default_factory=dict)  # settings of the features (FbankConfig), where known

    @property
    def num_coefficients(self) -> int:
        return self.rows.shape[1]

    @property
    def num_frames(self) -> int:
        return len(self.begins)

    @staticmethod
    def build(store: FrameStore, alignment: Alignment, cmvn: Cmvn, config: DataConfig, device: torch.device,
              dtype: torch.dtype = torch.float32, *, left: int, right: int, unaligned: bool = False) -> TrainingData:
        """Normalise the whole store into memory, once, for networks of at most `left` and `right` frames of context.

        Of joined stores (features.views) the alignment may be that of the first. Utterances are held out among the
        first store's; views of these are held out too, all other further material is trained on. unaligned: utterances
        without alignment are trained on as well, towards soft targets alone.
        Raises UserError where alignment and store do not belong together, or where nothing is left to train on.
        """
        alignment = spread_alignment(alignment, store)
        if len(alignment.pdf_ids) != store.num_frames:
            raise UserError(f"{store.directory}: has {store.num_frames} frames but the alignment has "
                            f"{len(alignment.pdf_ids)}: align this store again")
        offsets = np.asarray(store.offsets, np.int64)
        counts = np.diff(offsets)
        margin = left + right
        begins = np.arange(store.num_frames) + np.repeat(np.arange(len(counts)) * margin, counts)
        rows = _padded_rows(store, cmvn, left, right, device, dtype)
        texts = [utterance.words for utterance in store.utterances]
        joined = store if isinstance(store, JoinedStores) else None
        train, heldout = _split(alignment, offsets, texts, config, str(store.directory), joined, unaligned=unaligned)
        return TrainingData(rows, torch.from_numpy(begins).to(rows.device),
                            torch.from_numpy(np.asarray(alignment.pdf_ids, np.int64)).to(device),
                            train, heldout, left, right, alignment.num_pdfs, device, offsets, cmvn.stream,
                            target_rows=joined.rows if joined else None, fbank=store.config)

    @staticmethod
    def of_vectors(vectors: torch.Tensor, labels: torch.Tensor, train: torch.Tensor, heldout: torch.Tensor,
                   num_classes: int, device: torch.device, dtype: torch.dtype = torch.float32, *,
                   image: tuple[int, int] | None = None) -> TrainingData:
        """Vectors (N, D), normalised already, as frames without context, each an utterance of its own.

        labels (N,): classes, -1 where not known. train and heldout: indices among the N. image: height and width where
        the vectors are images, 0 their background. Raises UserError where there is nothing to train on, ValueError
        where the parts do not belong together.
        """
        count, size = vectors.shape
        if len(labels) != count or (image is not None and image[0] * image[1] != size):
            raise ValueError(f"{count} vectors of {size} with {len(labels)} labels and images of {image} pixels")
        if not len(train):
            raise UserError("no vector to train on: check which ones are chosen")
        rows = vectors.to(home_for(count * size * dtype.itemsize, device), dtype)
        return TrainingData(rows, torch.arange(count, device=rows.device), labels.long().to(device),
                            train.long().cpu().sort().values, heldout.long().cpu().sort().values, 0, 0, num_classes,
                            device, np.arange(count + 1), image=image)

    def windows(self, frames: torch.Tensor, left: int, right: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Windows (batch, left + 1 + right, coefficients) of frames int64 (batch,), on `device`.

        Raises ValueError where the network sees further than the data was built for.
        """
        if left > self.left or right > self.right:
            raise ValueError(f"a network with {left} left and {right} right frames needs data built for as many "
                             f"(built for {self.left} and {self.right})")
        length = left + 1 + right
        coefficients = self.rows.shape[1]
        first = self.begins[frames.to(self.begins.device)] + (self.left - left)
        # every window is a contiguous run of `rows`: gathered through overlapping views, one copy each
        runs = self.rows.as_strided((len(self.rows) - length + 1, length * coefficients), (coefficients, 1))
        picked = runs.index_select(0, first).to(self.device, dtype or self.rows.dtype, non_blocking=True)
        return picked.view(-1, length, coefficients)

    def chunk_windows(self, chunks: torch.Tensor, length: int, left: int, right: int,
                      dtype: torch.dtype | None = None) -> torch.Tensor:
        """Windows (batch, left + length + right, coefficients) of chunks of `length` frames, on `device`.

        chunks int64 (batch, 3): a chunk's first frame, its utterance's first frame and end. Beyond the utterance its
        first or last frame is repeated, however far.
        """
        starts, begins, ends = chunks.to(self.begins.device).unsqueeze(2).unbind(1)  # (batch, 1) each
        frames = starts + torch.arange(-left, length + right, device=starts.device)  # (batch, window)
        frames = torch.minimum(torch.maximum(frames, begins), ends - 1).flatten()
        picked = self.rows.index_select(0, self.begins[frames] + self.left)
        picked = picked.to(self.device, dtype or self.rows.dtype, non_blocking=True)
        return picked.view(len(chunks), -1, self.num_coefficients)

    def pdf_frequencies(self) -> torch.Tensor:
        """How often each pdf occurs among the aligned frames trained on, int64 (pdfs,): for the model's priors."""
        pdf_ids = self.pdf_ids.cpu()[self.train]
        return torch.bincount(pdf_ids[pdf_ids >= 0], minlength=self.num_pdfs)


def _padded_rows(store: FrameStore, cmvn: Cmvn, left: int, right: int, device: torch.device,
                 dtype: torch.dtype) -> torch.Tensor:
    utterances = len(store.offsets) - 1
    size = store.num_frames + utterances * (left + right)
    coefficients = cmvn.apply(store.features(0, device)).shape[1] if utterances else store.num_coefficients
    home = home_for(size * coefficients * dtype.itemsize, device)
    rows = torch.empty(size, coefficients, dtype=dtype, device=home)
    at = 0
    for index in range(utterances):
        frames = cmvn.apply(store.features(index, device)).to(home)  # (T, coefficients)
        if not len(frames):
            raise UserError(f"{store.directory}: utterance {store.utterances[index].id} has no frames: remove it")
        end = at + left + len(frames)
        rows[at:at + left] = frames[0]
        rows[at + left:end] = frames
        rows[end:end + right] = frames[-1]
        at = end + right
    return rows


def home_for(size: int, device: torch.device) -> torch.device:
    """Where `size` bytes of frames live: `device`, or the CPU where a GPU has too little free memory."""
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if size < DEVICE_SHARE * free else torch.device("cpu")


def _split(alignment: Alignment, offsets: np.ndarray, texts: Sequence[tuple[str, ...]], config: DataConfig,
           source: str, joined: JoinedStores | None = None, *,
           unaligned: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligned utterances in the order of a seeded shuffle: held-out ones first, then those trained on.

    Utterances of one text stay together: a perturbed copy of a held-out recording must not be trained on. Of joined
    stores the first alone is split; `train_fraction` is of it too.
    """
    aligned = np.asarray(alignment.aligned, bool)
    origins, head = (joined.origins, joined.head) if joined else (np.arange(len(aligned)), len(aligned))
    order = np.random.default_rng(config.seed).permutation(head)
    order = order[aligned[order]]
    place: dict[tuple[str, ...], int] = {}
    for rank, index in enumerate(order):
        place.setdefault(texts[index], rank)
    ranks = np.array([place[texts[index]] for index in order], np.int64)
    order = order[np.argsort(ranks, kind="stable")]
    held = round(config.heldout_fraction * len(order))
    if config.heldout_fraction and len(order) > 1:
        held = min(max(held, 1), len(order) - 1)
    most = min(2 * held, len(order) - 1)  # where a few texts are said over and over, copies cannot be told apart
    while 0 < held < most and texts[order[held]] == texts[order[held - 1]]:
        held += 1
    used = max(1, round(config.train_fraction * (len(order) - held)))
    told = {texts[index] for index in order[:held]} - {()}
    late = ((origins >= head) & aligned) | (~aligned if unaligned else False)
    late &= np.array([text not in told for text in texts], bool)
    frames_aligned = np.asarray(alignment.pdf_ids) >= 0
    heldout = _frames_of(np.isin(origins, order[:held]), offsets, frames_aligned)
    train = _frames_of(np.isin(origins, order[held:held + used]) | late, offsets,
                       frames_aligned | np.repeat(~aligned, np.diff(offsets)))
    if not len(train):
        raise UserError(f"{source}: no aligned frame to train on ({len(order)} aligned utterances): "
                        "check the alignment")
    return train, heldout


def _frames_of(utterances: np.ndarray, offsets: np.ndarray, frames: np.ndarray) -> torch.Tensor:
    """Those of the chosen frames (bool) that belong to chosen utterances (bool)."""
    return torch.from_numpy(np.flatnonzero(np.repeat(utterances, np.diff(offsets)) & frames))
