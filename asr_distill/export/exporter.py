"""The interface of an export's target. A new target is one file in export/targets that defines EXPORTER."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from asr_distill.errors import UserError, nearest
from asr_distill.export import targets
from asr_distill.export.source import Source


@dataclass(frozen=True)
class Written:
    """What an exporter wrote: `network` are the files that hold the network, `usage` the one line of the README that
    says how to run it, `facts` (plain data) what the manifest tells beside the settings.
    """

    network: tuple[str, ...]
    usage: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Spoken:
    """One utterance to be recognised: float32 samples in [-1, 1] at the recogniser's rate."""

    id: str
    samples: np.ndarray


@dataclass(frozen=True)
class Heard:
    """What was recognised, the CPU seconds that it took (all threads; loading not counted), and the most memory that
    the process which did it has held so far.
    """

    id: str
    words: tuple[str, ...]
    seconds: float
    peak_bytes: int


class Exporter(Protocol):
    """One target. `settings_class` is a dataclass whose field `precision` (text) says how weights are kept, its default
    being that of training ("float32").
    """

    name: str
    summary: str
    runtime: tuple[str, ...]  # modules that `recognise` imports; none where this package does it alone
    settings_class: type[Any]

    def write(self, source: Source, out: Path, settings: Any, speech: Sequence[np.ndarray]) -> Written:
        """Fill the empty folder `out`. `speech`: raw log-mel frames (frames, bands) of some utterances, by which a
        network is compressed (maybe none). Raises UserError where the source cannot be brought into this form.
        """

    def recognise(self, source: Source, directory: Path, speech: Iterable[Spoken]) -> Iterator[Heard]:
        """Decode as the target's users do, on one core."""


def exporters() -> dict[str, Exporter]:
    """Every target by its name."""
    found = (importlib.import_module(f"{targets.__name__}.{item.name}").EXPORTER
             for item in pkgutil.iter_modules(targets.__path__))
    return {exporter.name: exporter for exporter in found}


def exporter_of(name: str) -> Exporter:
    """Raises UserError where there is no such target."""
    known = exporters()
    if name not in known:
        raise UserError(f"no export target '{name}'{nearest(name, known)}; known: {', '.join(known)}")
    return known[name]
