"""Posteriors of the Gaussians within each frame's aligned pdf, in batches: what EM, MLLT and fMLLR accumulate from.

Frames are laid out in tiles: up to `_TILE` frames of one pdf. Tiles of pdfs with equally many components make one
batched matrix product, so that neither thousands of pdfs nor a speaker's few frames of each cost a loop in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from asr_distill.hmm.gmm import Mixtures

_TILE = 32  # frames
_BATCH_FRAMES = {"cpu": 8192, "cuda": 1 << 18}  # of the tiles in one product: on a CPU they stay in cache
_SQUARES_FRAMES = {"cpu": 512, "cuda": 8192}  # of one float32 sum of weighted squares


@dataclass(frozen=True)
class Tiles:
    """Frames of pdfs with K components each."""

    components: torch.Tensor  # int64 (tiles, K)
    frames: torch.Tensor  # int64 (tiles, _TILE); repeated where there are fewer frames
    weights: torch.Tensor  # float32 (tiles, 1, _TILE): of the frames, 0 for the repeated ones

    @property
    def real(self) -> torch.Tensor:
        """Positions, in `frames` flattened, of the frames that are not mere filling: int64 (real frames,)."""
        return self.weights.flatten().nonzero().squeeze(1)


def tile_frames(mixtures: Mixtures, pdfs: torch.Tensor, weights: torch.Tensor | None = None) -> list[Tiles]:
    """Tiles of all frames with a weight: pdfs int64 (frames,), weights (frames,) at least 0 (None: all 1)."""
    device = pdfs.device
    # A sort of 16-bit numbers is linear, several times faster than torch's.
    narrow = np.int16 if mixtures.num_pdfs < 1 << 15 else np.int32
    labels = pdfs.cpu().numpy().astype(narrow)
    order = np.argsort(labels, kind="stable")
    if weights is not None:
        order = order[weights.cpu().numpy()[order] > 0]
    frames_of = np.bincount(labels[order], minlength=mixtures.num_pdfs)
    tiles_of = -(-frames_of // _TILE)  # of each pdf
    owners = np.repeat(np.arange(mixtures.num_pdfs), tiles_of)
    nth = np.arange(len(owners)) - np.repeat(np.cumsum(tiles_of) - tiles_of, tiles_of)  # tile of its pdf
    ends = np.cumsum(frames_of)
    places = (ends - frames_of)[owners] + nth * _TILE  # in order
    sizes, offsets = np.array(mixtures.counts)[owners], np.array(mixtures.offsets)[owners]
    batch = _BATCH_FRAMES.get(device.type, _BATCH_FRAMES["cuda"]) // _TILE
    order_on_device = torch.from_numpy(order).to(device)
    result = []
    for size in np.unique(sizes).tolist():
        members = np.flatnonzero(sizes == size)
        for at in range(0, len(members), batch):
            chosen = members[at : at + batch]
            last = torch.from_numpy(ends[owners[chosen]] - 1).to(device).unsqueeze(1)
            place = torch.from_numpy(places[chosen]).to(device).unsqueeze(1) + torch.arange(_TILE, device=device)
            frames = order_on_device[torch.minimum(place, last)]
            share = (place <= last).float() if weights is None else (place <= last) * weights[frames].float()
            components = torch.from_numpy(offsets[chosen]).to(device).unsqueeze(1) + torch.arange(size, device=device)
            result.append(Tiles(components, frames, share.unsqueeze(1)))
    return result


class TilePosteriors:
    """The posteriors that some mixtures give."""

    def __init__(self, mixtures: Mixtures):
        matrix, self.constants = mixtures.linear
        self.rows = matrix.T.contiguous()  # a component's numbers side by side

    def __call__(self, both: torch.Tensor, tiles: Tiles) -> tuple[torch.Tensor, torch.Tensor]:
        """Posteriors times the frames' weights, float32 (tiles, K, _TILE), and log p(x | pdf) so, (tiles, _TILE).

        both: [x, x^2] of the tiles' frames, float32 (tiles, _TILE, 2 D).
        """
        constants = self.constants[tiles.components].unsqueeze(2)
        joint = torch.baddbmm(constants, pick(self.rows, tiles.components), both.mT)
        # By hand: torch's softmax over a few elements is several times slower on a CPU.
        best = joint.amax(1, keepdim=True)
        likelihoods = joint.sub_(best).exp_()
        sums = likelihoods.sum(1, keepdim=True)
        evidence = sums.log().add_(best).mul_(tiles.weights)
        return likelihoods.mul_(tiles.weights / sums), evidence.squeeze(1)


def pick(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """rows[index] for rows (n, D) and any index: on a CPU several times faster."""
    return rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[1])


def zeros64(device: torch.device, *shape: int) -> torch.Tensor:
    """An accumulator: float64, on the device of what it sums."""
    return torch.zeros(shape, dtype=torch.float64, device=device)


def with_squares(frames: torch.Tensor) -> torch.Tensor:
    """[x, x^2] along the last axis."""
    return torch.cat([frames, frames.square()], -1)


def weighted_squares(weights: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """sum_t weights[t, d] v_t v_t^T: (frames, D), (frames, E) to float64 (D, E, E).

    Products in the precision of the arguments, summed over a few hundred frames; float64 from there on.
    """
    dimension, size = weights.shape[1], vectors.shape[1]
    result = zeros64(vectors.device, dimension, size * size)
    step = _SQUARES_FRAMES.get(vectors.device.type, _SQUARES_FRAMES["cuda"])
    for at in range(0, len(vectors), step):
        part = vectors[at : at + step]
        outer = (part.unsqueeze(2) * part.unsqueeze(1)).flatten(1)  # (step, E * E)
        result += weights[at : at + step].T @ outer
    return result.view(dimension, size, size)
