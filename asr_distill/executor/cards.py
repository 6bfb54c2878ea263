"""Which GPU a worker process of this machine sees: one of those that this process sees, taken in turn.

A worker that sees one card alone calls it cuda:0, as this process calls its first: models and devices go to it as they
are, and all lists of jobs spread over the cards without knowing of them.
"""

from __future__ import annotations

import os
import sys

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_cards() -> list[str]:
    """Names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process may use."""
    said = os.environ.get(VISIBLE)
    if said is not None:
        return [name.strip() for name in said.split(",") if name.strip()]
    torch = sys.modules.get("torch")  # who has not loaded it computes on no GPU
    return [str(number) for number in range(torch.cuda.device_count())] if torch else []


def take_card(cards: list[str], worker: int) -> None:
    """To be called in worker number `worker` (from 0) before it uses a GPU: it sees its own alone."""
    if len(cards) > 1:
        os.environ[VISIBLE] = cards[worker % len(cards)]
