"""Fixtures that every room's tests share."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import asr_distill  # noqa: F401  (first: it says how torch's threads wait)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors: threads cost more than they give, and two test runs may share a machine."""
    torch.set_num_threads(1)
    logging.getLogger("asr_distill").setLevel(logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """A shell that starts tests in the background has them ignore Ctrl-C, and the programs under test inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout (present in CI)."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the folder {SHARED} (real LibriSpeech, lexicon, language model)")
    return SHARED


@pytest.fixture(scope="session")
def librispeech(shared: Path) -> Path:
    """The slice of real LibriSpeech in its own layout."""
    root = shared / "librispeech" / "LibriSpeech"
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    return root


@pytest.fixture(params=["fake", "real"])
def k2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """k2 itself where it is installed, and a plain stand-in."""
    import fake_k2

    from asr_distill import k2fsa

    if request.param == "fake":
        monkeypatch.setitem(sys.modules, "k2", fake_k2)
    elif importlib.util.find_spec("k2") is None:
        pytest.skip("k2 is not installed (docs/decoding.md says where it is to be had)")
    return k2fsa.k2_module()
