"""Diagonal Gaussian mixtures for all pdfs at once: an emission model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr_distill.emission import Scorer
from asr_distill.errors import UserError
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.files import atomic_path
from asr_distill.hmm.frontend import AdaptedFrontend, Frontend, frontend_from
from asr_distill.hmm.gmm_cpu import score_pdfs

_SCORE_FRAMES = 65536  # that a GPU scores at once


# Columns of the result, matrix (rows, 2 D), constants (rows, 1), components: rows hold the first component of every
# pdf of the block, then the second ...
Block = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]


@dataclass(frozen=True)
class Mixtures:
    """Components of all pdfs (G in all), those of one pdf side by side and in the pdfs' order."""

    weights: torch.Tensor  # (G,), sum to 1 within a pdf
    means: torch.Tensor  # (G, D)
    variances: torch.Tensor  # (G, D)
    counts: tuple[int, ...]  # components of each pdf

    @property
    def num_pdfs(self) -> int:
        return len(self.counts)

    @property
    def device(self) -> torch.device:
        return self.means.device

    @cached_property
    def offsets(self) -> list[int]:
        """First component of each pdf, and G."""
        return np.concatenate([[0], np.cumsum(self.counts)]).tolist()

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.array(self.offsets)

    @cached_property
    def linear(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrix (2 D, G) and constants (G,): [x, x^2] @ matrix + constants = log(weight * density)."""
        means, variances = self.means.double(), self.variances.double()
        constants = (self.weights.double().log() - 0.5 * (
            means.shape[1] * math.log(2 * math.pi) + variances.log().sum(1) + (means.square() / variances).sum(1)))
        return torch.cat([means / variances, -0.5 / variances], 1).T.float().contiguous(), constants.float()

    @cached_property
    def _rows(self) -> torch.Tensor:
        """The matrix of `linear` and its constants, a row a component (G, 2 D + 1): what `score` picks from."""
        matrix, constants = self.linear
        return torch.cat([matrix.T, constants.unsqueeze(1)], 1)

    def score(self, features: torch.Tensor, pdfs: np.ndarray | None = None) -> torch.Tensor:
        """log p(x | pdf) of all pdfs, or of the given ones: (frames, D) to float32 (frames, pdfs)."""
        if self.device.type != "cpu":
            return self.score_in_blocks(features, pdfs)
        chosen = np.arange(self.num_pdfs) if pdfs is None else pdfs
        out = np.empty((len(features), len(chosen)), np.float32)
        score_pdfs(np.ascontiguousarray(features.numpy()), self._rows.numpy(), self._bounds[chosen],
                   self._bounds[chosen + 1], out)
        return torch.from_numpy(out)

    def scorer(self, features: torch.Tensor) -> Scorer:
        """`score` for some rows of features (frames, D) and some pdfs at a time."""
        return lambda rows, pdfs: self.score(features[rows], pdfs)

    def score_in_blocks(self, features: torch.Tensor, pdfs: np.ndarray | None = None) -> torch.Tensor:
        """`score` for GPUs: a product for all pdfs with like many components (it runs on a CPU too)."""
        blocks = self._every if pdfs is None else self._blocks(pdfs)
        out = features.new_empty(len(features), self.num_pdfs if pdfs is None else len(pdfs))
        for at in range(0, len(features), _SCORE_FRAMES):
            frames = features[at : at + _SCORE_FRAMES]
            both = torch.cat([frames, frames.square()], 1).T  # (2 D, frames)
            for columns, matrix, constants, size in blocks:
                joint = torch.addmm(constants, matrix, both).view(size, len(columns), len(frames))
                out[at : at + _SCORE_FRAMES, columns] = joint.logsumexp(0).T
        return out

    @cached_property
    def _every(self) -> list[Block]:
        return self._blocks(np.arange(self.num_pdfs))

    def _blocks(self, pdfs: np.ndarray) -> list[Block]:
        """Pdfs with like many components together. Counts are rounded up to powers of two; a component that only
        fills up has constant -inf."""
        counts = np.array(self.counts)[pdfs]
        begins = self._bounds[pdfs]
        sizes = 2 ** np.ceil(np.log2(counts)).astype(int)
        blocks = []
        for size in np.unique(sizes).tolist():
            columns = np.flatnonzero(sizes == size)
            slot = np.arange(size)[:, None]
            real = torch.as_tensor(slot < counts[columns], device=self.device).flatten()
            rows = begins[columns] + np.minimum(slot, counts[columns] - 1)  # (size, pdfs)
            picked = self._rows.index_select(0, torch.as_tensor(rows, device=self.device).flatten())
            constants = picked[:, -1:].masked_fill(~real.unsqueeze(1), -math.inf)
            blocks.append((torch.as_tensor(columns, device=self.device), picked[:, :-1], constants, size))
        return blocks

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"weights": self.weights, "means": self.means, "variances": self.variances,
                "counts": torch.tensor(self.counts)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], device: torch.device) -> Mixtures:
        weights, means, variances = (tensors[name].to(device) for name in ("weights", "means", "variances"))
        return cls(weights, means, variances, tuple(tensors["counts"].tolist()))


class DiagGmm:
    """Mixtures with the front end that they were trained on (an EmissionModel)."""

    def __init__(self, mixtures: Mixtures, frontend: Frontend | AdaptedFrontend):
        self.mixtures, self.frontend = mixtures, frontend

    @property
    def num_pdfs(self) -> int:
        return self.mixtures.num_pdfs

    @property
    def parameters(self) -> int:
        """Trained numbers: weights, means, variances, and the projection's."""
        return sum(tensor.numel() for tensor in (
            self.mixtures.weights, self.mixtures.means, self.mixtures.variances, *self.frontend.tensors().values()))

    def features(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """What the mixtures hear: (frames, D) on their device."""
        return self.frontend(utterance.to(self.mixtures.device))

    def log_likelihoods(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """log p(x_t | pdf), float32 (frames, pdfs)."""
        return self.mixtures.score(self.features(utterance))

    def scorer(self, utterance: UtteranceFeatures) -> Scorer:
        """Log-likelihoods of what is asked for alone."""
        return self.mixtures.scorer(self.features(utterance))

    def save(self, directory: Path) -> None:
        """Write gmm.safetensors; the front end's settings are in the file's header."""
        tensors = {**self.mixtures.tensors(), **self.frontend.tensors()}
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_path(directory / "gmm.safetensors") as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary,
                      {"frontend": json.dumps(self.frontend.settings())})

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> DiagGmm:
        """Raises UserError where gmm.safetensors is missing or damaged."""
        path = directory / "gmm.safetensors"
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        try:
            with safe_open(path, "pt") as file:
                settings = json.loads(file.metadata()["frontend"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            return cls(Mixtures.from_tensors(tensors, device), frontend_from(settings, tensors))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a GMM of this program ({error!r}); make it again") from None
