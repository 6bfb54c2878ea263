"""Digits as training data, and how many of them a network gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.model import AcousticModel
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.files import read_array, write_array
from local.mnist import DIGITS, Digits

WHITE = 255  # a pixel's greatest value


def save_digits(splits: Mapping[str, Digits], out: Path) -> None:
    for split, digits in splits.items():
        write_array(out / f"{split}_images.npy", digits.images)
        write_array(out / f"{split}_labels.npy", digits.labels)


def load_digits(directory: Path, split: str) -> Digits:
    """As saved by `save_digits`."""
    return Digits(read_array(directory / f"{split}_images.npy"), read_array(directory / f"{split}_labels.npy"))


def scaling(pixels: int) -> Cmvn:
    """Pixels of 0 to 255 to 0 to 1: the background stays 0, which is what shifted images are filled with."""
    return Cmvn("global", CmvnStats(1.0, np.zeros(pixels), np.full(pixels, float(WHITE**2))))


def frames_of(images: np.ndarray) -> UtteranceFeatures:
    """Images uint8 (N, height, width) as the N frames of one utterance."""
    return UtteranceFeatures(torch.from_numpy(images.reshape(len(images), -1)).float())


def training_data(digits: Digits, chosen: np.ndarray, cmvn: Cmvn, device: torch.device,
                  dtype: torch.dtype) -> TrainingData:
    """All images as frames without context; `chosen` int64: which of them are trained on. None is held out."""
    vectors = cmvn.apply(frames_of(digits.images))  # (N, pixels)
    height, width = digits.images.shape[1:]
    return TrainingData.of_vectors(vectors, torch.from_numpy(digits.labels.astype(np.int64)), torch.from_numpy(chosen),
                                   torch.empty(0, dtype=torch.int64), DIGITS, device, dtype, image=(height, width))


def chosen_images(labels: np.ndarray, heldout: int, digits: tuple[int, ...] = ()) -> np.ndarray:
    """int64: all images but the last `heldout`; of these only the ones that show one of `digits` (empty: any)."""
    first = np.arange(len(labels) - heldout)
    return first[np.isin(labels[first], digits)] if digits else first


def logits_of(model: AcousticModel, images: np.ndarray) -> np.ndarray:
    """float32 (N, 10)."""
    return model.logits(frames_of(images)).cpu().numpy()


@dataclass(frozen=True)
class Errors:
    """What is wrong among some images: in all, of each digit's images, and cross-entropy in nats an image."""

    images: int
    errors: int
    by_digit: list[int]
    cross_entropy: float

    @staticmethod
    def of(logits: np.ndarray, labels: np.ndarray) -> Errors:
        """logits (N, 10), labels (N,)."""
        wrong = logits.argmax(1) != labels
        exact = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(),
                                                  torch.from_numpy(labels.astype(np.int64)))
        return Errors(len(labels), int(wrong.sum()), np.bincount(labels[wrong], minlength=DIGITS).tolist(),
                      float(exact))

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))
