"""The compact form as it is written: a codec fitted on a pilot of the store, then every frame encoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr_distill.distill.compact.codec import Codec, fit_codec
from asr_distill.files import read_json, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore

CHECKED = 8  # every so many-th utterance of the pilot is not fitted to, but measured on
Ask = Callable[[int], torch.Tensor]  # an utterance's index -> its log-posteriors (frames, pdfs)


class Compact:
    """Rows of bytes under one codec."""

    def __init__(self, codec: Codec, figures: dict[str, Any]):
        self.codec, self.figures = codec, figures

    @staticmethod
    def prepare(ask: Ask, store: FrameStore, out: Path, device: torch.device, *, max_error: float, max_bytes: int,
                pilot_frames: int) -> Compact:
        """The codec that is in `out`, or one fitted on about `pilot_frames` of the store and saved there."""
        if (out / "pilot.json").is_file():
            return Compact(Codec.load(out, device), read_json(out / "pilot.json"))
        fitted, checked = pilot_of(ask, store, pilot_frames)
        codec, figures = fit_codec(fitted, checked, max_error, max_bytes)
        codec.save(out)
        figures |= {"pilot_frames": len(fitted), "check_frames": len(checked)}
        write_json(out / "pilot.json", figures)
        return Compact(codec, figures)

    def layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return {"codes": ((self.codec.num_bytes,), np.uint8)}

    def facts(self) -> dict[str, Any]:
        return {"form": "compact", "codes": self.codec.basis.rank, **self.figures}

    def encode(self, log_posteriors: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        rows, nats = self.codec.encode(log_posteriors)
        return {"codes": rows}, {"excess": float(nats.double().sum())}


def pilot_of(ask: Ask, store: FrameStore, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-posteriors of evenly spread utterances, about `frames` in all: those to fit to, and those to measure on."""
    utterances = len(store.offsets) - 1
    wanted = max(1, min(utterances, round(utterances * frames / max(1, store.num_frames))))
    chosen = np.unique(np.linspace(0, utterances - 1, wanted).round().astype(int))
    fitted: list[torch.Tensor] = []
    checked: list[torch.Tensor] = []
    with Progress("soft targets: pilot", len(chosen), "utterances") as progress:
        for number, index in enumerate(chosen):
            (checked if number % CHECKED == CHECKED // 2 else fitted).append(ask(int(index)))
            progress.update(1)
    return torch.cat(fitted), torch.cat(checked or fitted)
