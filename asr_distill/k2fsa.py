"""k2, where it is installed: the one place that imports it (FSA algorithms on GPUs; Povey, Kuang et al., k2-fsa).

The usual package index has no k2 wheel for today's torch, so it is never required: what needs it asks here.
"""

from __future__ import annotations

import logging
import platform
import sys
from functools import lru_cache
from typing import Any, Literal

import torch

from asr_distill.errors import UserError

Backend = Literal["auto", "cpu", "k2"]  # auto: k2 on a GPU where it is installed, else the compiled loops

log = logging.getLogger("asr_distill")


def k2_module() -> Any:
    """The module k2. Raises UserError, naming the wheel that fits, where it is missing or made for another torch."""
    try:
        import k2
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "k2"
        problem = "k2 is not installed" if missing else f"k2 cannot be imported ({' '.join(str(error).split())[:200]})"
        raise UserError(f"{problem}: {how_to_get_k2()}") from None
    return k2


def how_to_get_k2() -> str:
    """Which wheel fits this Python and torch, and what to do without."""
    version = torch.__version__.partition("+")[0]
    page, build = ("cuda", f"CUDA {torch.version.cuda}") if torch.version.cuda else ("cpu", "CPU")
    return (f"take the wheel for torch {version}, {build}, cp{sys.version_info[0]}{sys.version_info[1]}, "
            f"{platform.system().lower()} {platform.machine()} from k2-fsa's wheel page "
            f"(k2-fsa.github.io/k2/{page}.html), build it from source (docs/decoding.md), or set the backend to cpu")


def use_k2(backend: Backend, device: torch.device) -> bool:
    """Whether `backend` means k2 on this device. Raises UserError as k2_module where k2 is asked for by name."""
    if backend == "k2":
        k2_module()
        return True
    return backend == "auto" and device.type == "cuda" and _works()


@lru_cache(1)
def _works() -> bool:
    try:
        k2_module()
    except UserError as error:
        log.info("searching on the CPU: %s", error)
        return False
    return True
