"""Target onnx: the network alone, for whoever brings a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_distill.config import to_dict
from asr_distill.export.compress import Precision, compress
from asr_distill.export.exporter import Heard, Spoken, Written
from asr_distill.export.onnx import export_onnx
from asr_distill.export.onnx_model import NETWORK_FILE, OnnxModel
from asr_distill.export.precision_plan import check_divergence, plan_of, whole_utterances
from asr_distill.export.recognise import recognise_here
from asr_distill.export.source import Source


@dataclass(frozen=True)
class OnnxSettings:
    precision: Precision = "float32"
    priors: bool = True  # divided out: log-likelihoods; else log posteriors
    scaled: bool = False  # times the acoustic scale that was tuned
    max_divergence: float = 0.01  # nats a frame; a layer that costs more in integers stays in float32

    def __post_init__(self) -> None:
        check_divergence(self.max_divergence)


class OnnxExporter:
    name = "onnx"
    summary = "the network: raw log-mel (batch, frames, bands) to log-likelihoods (batch, frames, pdfs)"
    runtime: tuple[str, ...] = ()
    settings_class = OnnxSettings

    def write(self, source: Source, out: Path, settings: OnnxSettings, speech: Sequence[np.ndarray]) -> Written:
        export_onnx(source.model, out / NETWORK_FILE, {"features": to_dict(source.features)}, priors=settings.priors,
                    acoustic_scale=source.search.acoustic_scale if settings.scaled else 1.0)
        plan = plan_of(source, settings.precision, speech, settings.max_divergence)
        compress(out / NETWORK_FILE, settings.precision, keep=plan.keep, feeds=whole_utterances(speech))
        usage = (f"python: onnxruntime.InferenceSession('{NETWORK_FILE}').run(None, {{'features': log_mel}})[0] gives "
                 f"(batch, frames, {source.model.num_pdfs}) log-{'likelihoods' if settings.priors else 'posteriors'}; "
                 "the HCLG's input label is pdf + 1")
        return Written((NETWORK_FILE,), usage, plan.facts)

    def recognise(self, source: Source, directory: Path, speech: Iterable[Spoken]) -> Iterator[Heard]:
        """Through onnxruntime and this package's own search over the source's graph."""
        return recognise_here(OnnxModel(directory), source, speech)


EXPORTER = OnnxExporter()
