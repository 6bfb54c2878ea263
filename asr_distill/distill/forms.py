"""What of a posterior is written: its top k and the mass of the rest, or all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from asr_distill.errors import UserError

TINY = 2.0**-24  # least positive float16


@contextmanager
def sound(directory: Path) -> Iterator[None]:
    """What is wrong with the content of soft targets' files becomes a UserError that names their directory."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{directory}: damaged soft targets ({error}); write them again") from None


class Form(Protocol):
    """Posteriors of some frames as rows of arrays."""

    def layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Of every array the shape of a frame's row and the type."""

    def encode(self, log_posteriors: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Rows of every array for log_posteriors (frames, pdfs), and sums over these frames.

        Among the sums `excess`: nats of Kullback-Leibler divergence of what is stored from what was given.
        """

    def facts(self) -> dict[str, Any]:
        """For soft_targets.json, with the name of the form."""


class TopK:
    """The k greatest probabilities (float16) with their ids, and the mass of the rest, of which no more is known.

    `excess` counts the rest as spread evenly.
    """

    def __init__(self, pdfs: int, k: int):
        self.pdfs, self.k = pdfs, k

    def layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"ids": ((self.k,), np.uint16 if self.pdfs <= 1 << 16 else np.int32),
                "probabilities": ((self.k,), np.float16), "remainder": ((), np.float16)}

    def facts(self) -> dict[str, Any]:
        return {"form": "top_k", "top_k": self.k}

    def encode(self, log_posteriors: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        frames, pdfs = log_posteriors.shape
        top, ids = log_posteriors.topk(self.k, 1)  # (frames, k), greatest first
        full, kept = log_posteriors.exp(), top.exp()
        rest = (full.sum(1) - kept.sum(1)).clamp_(min=0) if self.k < pdfs else torch.zeros(frames, device=top.device)
        stored, stored_rest = kept.half(), rest.half()
        # sum over the top of q log(q / stored), over the rest of q log(q / (rest / others))
        entropy = -(full * log_posteriors).sum(1)
        coded = (kept * stored.float().clamp_(min=TINY).log()).sum(1)
        if self.k < pdfs:
            coded += rest * (stored_rest.float().clamp_(min=TINY) / (pdfs - self.k)).log()
        return ({"ids": ids, "probabilities": stored, "remainder": stored_rest},
                {"excess": _sum(-coded - entropy), "remainder": _sum(rest)})


class Dense:
    """All log-probabilities, float16: for comparison, and for few pdfs."""

    def __init__(self, pdfs: int):
        self.pdfs = pdfs

    def layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"log_posteriors": ((self.pdfs,), np.float16)}

    def facts(self) -> dict[str, Any]:
        return {"form": "dense"}

    def encode(self, log_posteriors: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        stored = log_posteriors.clamp(min=-60000.0).half()
        decoded = torch.log_softmax(stored.float(), 1)
        return {"log_posteriors": stored}, {"excess": _sum((log_posteriors.exp() * (log_posteriors - decoded)).sum(1))}


def _sum(values: torch.Tensor) -> float:
    return float(values.double().sum())
