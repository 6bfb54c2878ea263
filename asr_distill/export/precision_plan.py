"""Which layers of a network may be computed in integers: those whose posteriors stay what they were on speech."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.export.compress import divergences
from asr_distill.export.onnx import INPUT, export_onnx
from asr_distill.export.source import Source
from asr_distill.logs import log

INTEGERS = ("int8", "int8-static")


@dataclass(frozen=True)
class Plan:
    """`keep`: numbers of the layers that stay in float32; `facts` for the manifest."""

    keep: tuple[int, ...]
    facts: dict[str, Any]


def plan_of(source: Source, precision: str, speech: Sequence[np.ndarray], limit: float) -> Plan:
    """Every layer is put into integers alone; one that moves the posteriors by more than `limit` (mean Kullback-Leibler
    divergence, nats a frame of `speech`) is left in float32. Without speech all go into integers.
    """
    if precision not in INTEGERS or not speech:
        return Plan((), {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(source.model, path)
        found = divergences(path, precision, whole_utterances(speech), source.model.log_priors.double().numpy())
    keep = tuple(number for number, (_, nats) in enumerate(found) if nats > limit)
    for number in keep:
        log.info("%s stays in float32: in integers it moves posteriors by %.3f nats a frame", *found[number])
    return Plan(keep, {"divergence": {name: float(f"{nats:.3g}") for name, nats in found},
                       "float_layers": [found[number][0] for number in keep]})


def whole_utterances(speech: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Inputs of a network of export_onnx."""
    return [{INPUT: frames[None]} for frames in speech]


def check_divergence(limit: float) -> None:
    """Raises ValueError where it is no limit."""
    if not limit >= 0:
        raise ValueError(f"max_divergence must be at least 0 nats, not {limit}")
