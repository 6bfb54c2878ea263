"""The teachers' averaged posteriors on disk, in one of three forms (SoftTargetConfig.form); soft_writer.py writes them.

top_k:   DIR/ids.npy (frames, k) uint16 or int32; probabilities.npy (frames, k) float16, greatest first; remainder.npy
         (frames,) float16: the mass of the rest.
compact: compact/store.py. A few dozen bytes a frame for all pdfs, to a stated error.
dense:   log_posteriors.npy (frames, pdfs) float16.
soft_targets.json is written last: a directory without it is incomplete. Rows are those of the frame store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_distill.distill.compact.store import CompactStore
from asr_distill.distill.forms import sound
from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json

ARRAYS = ("ids", "probabilities", "remainder")


@dataclass(frozen=True)
class SoftStore:
    """Open soft targets of form top_k (memory maps)."""

    ids: np.ndarray  # uint16 or int32 (num_frames, k)
    probabilities: np.ndarray  # float16 (num_frames, k)
    remainder: np.ndarray  # float16 (num_frames,)
    temperature: float
    num_pdfs: int
    facts: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> SoftStore:
        """Raises UserError where the directory is incomplete or its files do not belong together."""
        facts = read_json(directory / "soft_targets.json")
        arrays = {name: read_array(directory / f"{name}.npy", memory_map=True) for name in ARRAYS}
        with sound(directory):
            shape = (facts["num_frames"], facts["top_k"])
            if arrays["ids"].shape != shape or arrays["probabilities"].shape != shape or \
                    arrays["remainder"].shape != shape[:1]:
                raise ValueError("arrays and soft_targets.json differ")
            return SoftStore(**arrays, temperature=float(facts["temperature"]), num_pdfs=int(facts["num_pdfs"]),
                             facts=facts)


@dataclass(frozen=True)
class DenseStore:
    """Open soft targets of form dense (a memory map)."""

    log_posteriors: np.ndarray  # float16 (num_frames, pdfs)
    temperature: float
    facts: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> DenseStore:
        """Raises UserError where the directory is incomplete or its files do not belong together."""
        facts = read_json(directory / "soft_targets.json")
        array = read_array(directory / "log_posteriors.npy", memory_map=True)
        with sound(directory):
            if array.shape != (facts["num_frames"], facts["num_pdfs"]):
                raise ValueError("log_posteriors.npy and soft_targets.json differ")
            return DenseStore(array, float(facts["temperature"]), facts)


def open_soft_targets(directory: Path) -> SoftStore | CompactStore | DenseStore:
    """Soft targets in the form that they were written in; those of before there were forms are top_k.

    Raises UserError where the directory is incomplete, its files do not belong together, or the form is not known.
    """
    form = read_json(directory / "soft_targets.json").get("form", "top_k")
    kinds: dict[str, type[SoftStore] | type[CompactStore] | type[DenseStore]] = {
        "top_k": SoftStore, "compact": CompactStore, "dense": DenseStore}
    if form not in kinds:
        raise UserError(f"{directory}: soft targets of a form '{form}', which this version does not know; "
                        "write them again")
    return kinds[form].open(directory)
