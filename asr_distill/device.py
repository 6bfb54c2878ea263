"""Which device a run computes on."""

from __future__ import annotations

import torch

from asr_distill.errors import UserError


def device_of(text: str) -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises UserError where that device is not there."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise UserError(f"--device {text}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {text}: this machine has no CUDA device that torch can use; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {text}: this machine has {torch.cuda.device_count()} CUDA device(s), from cuda:0 on")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {text}: use auto, cpu, cuda or cuda:N")
    return device
