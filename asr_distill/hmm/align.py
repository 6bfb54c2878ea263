"""Alignments: which pdf, phone and state every frame belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json, write_array, write_json


@dataclass(frozen=True)
class Alignment:
    """One row per frame of a frame store, in its order; -1 where the utterance could not be aligned."""

    pdf_ids: np.ndarray  # int32 (num_frames,)
    phone_ids: np.ndarray  # int16 (num_frames,), 1-based as in Lang.phones
    states: np.ndarray  # int8 (num_frames,), emitting state inside the phone, from 0
    aligned: np.ndarray  # bool (utterances,)
    num_pdfs: int

    def __post_init__(self) -> None:
        if not len(self.pdf_ids) == len(self.phone_ids) == len(self.states):
            raise ValueError("pdf_ids, phone_ids and states must have one row per frame")

    def save(self, directory: Path) -> None:
        """Write pdf_ids.npy, phone_ids.npy, states.npy, aligned.npy and, last, alignment.json."""
        for name in ("pdf_ids", "phone_ids", "states", "aligned"):
            write_array(directory / f"{name}.npy", getattr(self, name))
        write_json(directory / "alignment.json", {
            "num_pdfs": self.num_pdfs, "num_frames": len(self.pdf_ids), "utterances": len(self.aligned),
            "aligned_utterances": int(self.aligned.sum()), "aligned_frames": int((self.pdf_ids >= 0).sum()),
        })

    @classmethod
    def load(cls, directory: Path) -> Alignment:
        """Raises UserError where a file is missing or they do not belong together."""
        facts = read_json(directory / "alignment.json")
        arrays = {name: read_array(directory / f"{name}.npy")
                  for name in ("pdf_ids", "phone_ids", "states", "aligned")}
        try:
            alignment = cls(arrays["pdf_ids"], arrays["phone_ids"], arrays["states"], arrays["aligned"],
                            int(facts["num_pdfs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory}: damaged alignment ({error!r}); make it again") from None
        if len(alignment.pdf_ids) != facts["num_frames"] or len(alignment.aligned) != facts["utterances"]:
            raise UserError(f"{directory}: damaged alignment (arrays and alignment.json differ); make it again")
        return alignment
